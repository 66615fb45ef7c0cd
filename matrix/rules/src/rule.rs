//! [`Rule`] and [`Policy`] as people write them in the configuration file.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use patchbay_media::{AudioShape, Codec, Kind, VideoShape};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{EndpointKind, Pattern};

/// One rule. The first rule whose `from`, `to` and `stream` all fit decides; the built-in matrix comes after all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name shown in the ledger and by `explain`; `rules[0]` and so on when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kinds of source it speaks of; every kind when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<EndpointKind>,
    /// Kinds of sink it speaks of; every kind when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<EndpointKind>,
    /// Names of streams it speaks of: `*` stands for any characters inside a part, `**` across parts; every stream when
    /// left out.
    #[serde(default)]
    pub stream: Pattern,
    /// What happens to the video track: `"auto"`, `"pass"`, `"drop"`, `"transcode"` or a table such as
    /// `{ codec = "h264", size = "640x360", bitrate_kbps = 600 }`.
    #[serde(default)]
    pub video: Policy<VideoWish>,
    /// What happens to the audio track: `"auto"`, `"pass"`, `"drop"`, `"transcode"` or a table such as
    /// `{ codec = "opus", bitrate_kbps = 96 }`.
    #[serde(default)]
    pub audio: Policy<AudioWish>,
}

impl Rule {
    /// Whether the rule speaks of this pair.
    pub fn fits(&self, from: EndpointKind, to: EndpointKind, stream: &str) -> bool {
        let within = |kinds: &[EndpointKind], kind| kinds.is_empty() || kinds.contains(&kind);
        within(&self.from, from) && within(&self.to, to) && self.stream.matches(stream)
    }
}

impl fmt::Display for Rule {
    /// One line: `rtmp to webrtc, live/**: video auto, audio transcode to opus 96k`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |kinds: &[EndpointKind]| match kinds {
            [] => "any".to_owned(),
            _ => kinds.iter().map(|k| k.name()).collect::<Vec<_>>().join("|"),
        };
        write!(f, "{} to {}, {}: video {}, audio {}", list(&self.from), list(&self.to), self.stream, self.video, self.audio)
    }
}

/// What a rule wants done with a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy<W> {
    /// Decide from what the source carries and the sink takes: pass if possible, else transcode.
    #[default]
    Auto,
    /// Pass through; transcode only what the sink refuses.
    Pass,
    /// Transcode to this, unless the source is it already.
    Transcode(W),
    /// Leave the track out.
    Drop,
}

/// What the words of [`Policy`] mean, for documents.
pub(crate) const POLICIES: [(&str, &str); 5] = [
    ("\"auto\"", "Decide from what the source really carries and the sink really takes: pass if possible, else transcode."),
    ("\"pass\"", "Pass through. What the sink refuses is transcoded all the same, and the reason says so."),
    ("\"transcode\"", "Transcode to the first codec the sink names, unless it takes the source as it is."),
    ("{ codec = …, … }", "Transcode to exactly this, unless the source is it already. Everything left out is chosen."),
    ("\"drop\"", "Leave the track out."),
];

/// What a rule may ask of a video encode; everything left out is chosen by the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoWish {
    /// Codec; the sink's first choice when left out.
    #[serde(default, deserialize_with = "video_codec", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "video_codecs")]
    pub codec: Option<Codec>,
    /// Kilobits per second, 16 to 100000; chosen by size when left out.
    #[serde(default, deserialize_with = "within::<_, 16, 100_000>", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 100_000))]
    pub bitrate_kbps: Option<u32>,
    /// Size of the picture, such as `"1280x720"`, turned for a source that stands upright; the source's when left out.
    /// A picture of another shape gets bars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Frames per second at most, 1 to 120; the source's when left out.
    #[serde(default, deserialize_with = "within::<_, 1, 120>", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 120))]
    pub fps: Option<u32>,
    /// Milliseconds from one key frame to the next at most, 100 to 30000; 2000 when left out.
    #[serde(default, deserialize_with = "within::<_, 100, 30_000>", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 30_000))]
    pub gop_ms: Option<u32>,
}

/// What a rule may ask of an audio encode; everything left out is chosen by the planner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AudioWish {
    /// Codec; the sink's first choice when left out.
    #[serde(default, deserialize_with = "audio_codec", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "audio_codecs")]
    pub codec: Option<Codec>,
    /// Kilobits per second, 6 to 512; chosen by codec and channels when left out.
    #[serde(default, deserialize_with = "within::<_, 6, 512>", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 6, max = 512))]
    pub bitrate_kbps: Option<u32>,
    /// Samples per second, 8000 to 48000; 48000 where the codec lacks it. The source's when left out.
    #[serde(default, deserialize_with = "within::<_, 8_000, 48_000>", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8_000, max = 48_000))]
    pub rate: Option<u32>,
    /// Channels, 1 or 2; the source's when left out.
    #[serde(default, deserialize_with = "within::<_, 1, 2>", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2))]
    pub channels: Option<u32>,
}

impl VideoWish {
    /// The size that is wished for of a source of this shape: turned, if the source stands upright and the wish lies.
    pub(crate) fn size_for(&self, source: &VideoShape) -> Option<(u32, u32)> {
        let Size { width, height } = self.size?;
        let turned = source.width < source.height && width > height || source.width > source.height && width < height;
        Some(if turned { (height, width) } else { (width, height) })
    }

    /// Whether a source of this codec and shape needs no encode to be what is wished for.
    pub(crate) fn met_by(&self, codec: Codec, shape: Option<&VideoShape>) -> bool {
        let shape = shape.copied().unwrap_or_default();
        self.codec.is_none_or(|c| c == codec)
            && self.size_for(&shape).is_none_or(|size| size == (shape.width, shape.height))
            && self.fps.is_none_or(|max| shape.frame_rate.is_some_and(|rate| rate <= f64::from(max) + 0.01))
            && self.bitrate_kbps.is_none()
            && self.gop_ms.is_none()
    }
}

impl AudioWish {
    /// Whether a source of this codec and shape needs no encode to be what is wished for.
    pub(crate) fn met_by(&self, codec: Codec, shape: Option<&AudioShape>) -> bool {
        let shape = shape.copied().unwrap_or_default();
        self.codec.is_none_or(|c| c == codec)
            && self.rate.is_none_or(|r| r == shape.sample_rate)
            && self.channels.is_none_or(|n| n == u32::from(shape.channels))
            && self.bitrate_kbps.is_none()
    }
}

/// Width and height of a picture, written `1280x720`. Both even, 16 to 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let side = |t: &str| t.parse().ok().filter(|n: &u32| (16..=4_096).contains(n) && n.is_multiple_of(2));
        s.split_once('x')
            .and_then(|(w, h)| Some(Self { width: side(w)?, height: side(h)? }))
            .ok_or_else(|| "a size is written like \"1280x720\", both sides even and from 16 to 4096".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{2,4}x[0-9]{2,4}$" })
    }
}

/// An optional number from `LO` to `HI`.
fn within<'de, D: Deserializer<'de>, const LO: u32, const HI: u32>(d: D) -> Result<Option<u32>, D::Error> {
    // i64, so that a negative number is told its range instead of "expected u32".
    match i64::deserialize(d)? {
        n if (i64::from(LO)..=i64::from(HI)).contains(&n) => Ok(Some(n as u32)),
        n => Err(D::Error::custom(format_args!("{n} is out of range, {LO} to {HI} is possible"))),
    }
}

fn video_codec<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Codec>, D::Error> {
    codec_of(d, Kind::Video)
}

fn audio_codec<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Codec>, D::Error> {
    codec_of(d, Kind::Audio)
}

fn codec_of<'de, D: Deserializer<'de>>(d: D, kind: Kind) -> Result<Option<Codec>, D::Error> {
    let codec: Codec = String::deserialize(d)?.parse().map_err(D::Error::custom)?;
    if codec.kind() != kind {
        return Err(D::Error::custom(format_args!("{codec} is no {kind} codec; known: {}", names(kind).join(", "))));
    }
    Ok(Some(codec))
}

fn names(kind: Kind) -> Vec<&'static str> {
    Codec::ALL.into_iter().filter(|c| c.kind() == kind).map(Codec::name).collect()
}

fn video_codecs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": names(Kind::Video) })
}

fn audio_codecs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": names(Kind::Audio) })
}

const WORDS: &str = "\"auto\", \"pass\", \"drop\", \"transcode\" or a table such as { codec = \"…\" }";

impl<'de, W: Deserialize<'de> + Default> Deserialize<'de> for Policy<W> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct WordOrTable<W>(PhantomData<W>);

        impl<'de, W: Deserialize<'de> + Default> Visitor<'de> for WordOrTable<W> {
            type Value = Policy<W>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WORDS)
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Policy<W>, E> {
                match word {
                    "auto" => Ok(Policy::Auto),
                    "pass" => Ok(Policy::Pass),
                    "drop" => Ok(Policy::Drop),
                    "transcode" => Ok(Policy::Transcode(W::default())),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Policy<W>, A::Error> {
                W::deserialize(MapAccessDeserializer::new(map)).map(Policy::Transcode)
            }
        }

        d.deserialize_any(WordOrTable(PhantomData))
    }
}

impl<W: Serialize + Default + PartialEq> Serialize for Policy<W> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => s.serialize_str("auto"),
            Self::Pass => s.serialize_str("pass"),
            Self::Drop => s.serialize_str("drop"),
            Self::Transcode(wish) if *wish == W::default() => s.serialize_str("transcode"),
            Self::Transcode(wish) => wish.serialize(s),
        }
    }
}

impl<W: JsonSchema> JsonSchema for Policy<W> {
    fn schema_name() -> Cow<'static, str> {
        format!("Policy_of_{}", W::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let wish = generator.subschema_for::<W>();
        json_schema!({ "oneOf": [{ "type": "string", "enum": ["auto", "pass", "drop", "transcode"] }, wish] })
    }
}

impl<W: fmt::Display> fmt::Display for Policy<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Pass => f.write_str("pass"),
            Self::Drop => f.write_str("drop"),
            Self::Transcode(wish) => write!(f, "transcode{wish}"),
        }
    }
}

impl fmt::Display for VideoWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codec.map_or(Ok(()), |c| write!(f, " to {c}"))?;
        self.size.map_or(Ok(()), |s| write!(f, " {s}"))?;
        self.fps.map_or(Ok(()), |n| write!(f, " {n} fps"))?;
        self.bitrate_kbps.map_or(Ok(()), |n| write!(f, " {n} kbit/s"))?;
        self.gop_ms.map_or(Ok(()), |n| write!(f, " key frame every {n} ms"))
    }
}

impl fmt::Display for AudioWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.codec.map_or(Ok(()), |c| write!(f, " to {c}"))?;
        self.rate.map_or(Ok(()), |n| write!(f, " {n} Hz"))?;
        self.channels.map_or(Ok(()), |n| write!(f, " {n} ch"))?;
        self.bitrate_kbps.map_or(Ok(()), |n| write!(f, " {n} kbit/s"))
    }
}

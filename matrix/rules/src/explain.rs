//! `matrix explain`: tracks from a few words, and the plan for them.

use std::fmt;

use patchbay_media::{AudioShape, Codec, H264Profile, Kind, TrackInfo, UnknownCodec, VideoShape};

use crate::{Abilities, Bounds, EndpointKind, Plan, RuleTable, Source, plan};

/// A description of a track that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The first word is no codec.
    #[error(transparent)]
    Codec(#[from] UnknownCodec),
    /// The codec is of the other kind.
    #[error("{codec} is no {wanted} codec")]
    Kind {
        /// What was given.
        codec: Codec,
        /// What belongs here.
        wanted: Kind,
    },
    /// A later word.
    #[error("{word:?} says nothing of a {codec} track; possible: {possible}")]
    Word {
        /// What was given, shortened.
        word: String,
        /// Of which track.
        codec: Codec,
        /// Examples.
        possible: &'static str,
    },
}

const VIDEO_WORDS: &str = "baseline, constrained-baseline, main, high, high10, high422, high444, bframes=2, 1280x720, 30fps";
const AUDIO_WORDS: &str = "44100 (Hz), 2 (channels), mono, stereo";

/// Reads `h264:high:bframes=3:1280x720:30fps`, `aac:44100:2`, `opus`… in any order after the codec; `none` is no track.
/// What is left out is usual: 1280x720 at 30, constrained baseline, stereo at the codec's usual rate.
pub fn parse_track(kind: Kind, spec: &str) -> Result<Option<TrackInfo>, SpecError> {
    if spec == "none" {
        return Ok(None);
    }
    let mut words = spec.split(':');
    let codec: Codec = words.next().unwrap_or_default().parse()?;
    if codec.kind() != kind {
        return Err(SpecError::Kind { codec, wanted: kind });
    }
    let mut track = usual(codec);
    for word in words {
        let understood = match &mut track.shape {
            patchbay_media::Shape::Video(shape) => video_word(codec, shape, word),
            patchbay_media::Shape::Audio(shape) => audio_word(shape, word),
        };
        if understood.is_none() {
            let possible = if kind == Kind::Video { VIDEO_WORDS } else { AUDIO_WORDS };
            return Err(SpecError::Word { word: word.chars().take(32).collect(), codec, possible });
        }
    }
    Ok(Some(track))
}

fn video_word(codec: Codec, shape: &mut VideoShape, word: &str) -> Option<()> {
    let profile = |idc, constraints| (codec == Codec::H264).then_some(H264Profile { idc, constraints, level: 31 });
    match word {
        "constrained-baseline" => shape.profile = Some(profile(66, 0xC0)?),
        "baseline" => shape.profile = Some(profile(66, 0)?),
        "main" => shape.profile = Some(profile(77, 0)?),
        "high" => shape.profile = Some(profile(100, 0)?),
        "high10" => shape.profile = Some(profile(110, 0)?),
        "high422" => shape.profile = Some(profile(122, 0)?),
        "high444" => shape.profile = Some(profile(244, 0)?),
        _ => {
            if let Some(depth) = word.strip_prefix("bframes=") {
                shape.reorder_frames = depth.parse().ok().filter(|n| *n <= 16)?;
            } else if let Some(rate) = word.strip_suffix("fps") {
                shape.frame_rate = Some(rate.parse().ok().filter(|r| (1.0..=240.0).contains(r))?);
            } else {
                let (width, height) = word.split_once('x')?;
                let side = |s: &str| s.parse().ok().filter(|n| (1..=16_384).contains(n));
                (shape.width, shape.height) = (side(width)?, side(height)?);
            }
        }
    }
    Some(())
}

fn audio_word(shape: &mut AudioShape, word: &str) -> Option<()> {
    match word {
        "mono" => shape.channels = 1,
        "stereo" => shape.channels = 2,
        _ => match word.trim_end_matches("ch").trim_end_matches("hz").parse().ok()? {
            n @ 1..=8 => shape.channels = n as u8,
            n @ 4_000..=192_000 => shape.sample_rate = n,
            _ => return None,
        },
    }
    Some(())
}

/// A track as its codec is usually met.
fn usual(codec: Codec) -> TrackInfo {
    let audio = |sample_rate, channels| TrackInfo::audio(codec, Default::default(), AudioShape { sample_rate, channels });
    match codec {
        Codec::Pcma | Codec::Pcmu => audio(8_000, 1),
        Codec::G722 => audio(16_000, 1),
        Codec::Aac | Codec::Flac | Codec::Mp2 | Codec::Mp3 => audio(44_100, 2),
        Codec::Opus => audio(48_000, 2),
        _ => {
            let profile = (codec == Codec::H264).then_some(H264Profile { idc: 66, constraints: 0xC0, level: 31 });
            let shape = VideoShape { width: 1_280, height: 720, frame_rate: Some(30.0), profile, ..VideoShape::default() };
            TrackInfo::video(codec, Default::default(), shape)
        }
    }
}

/// What a source of a kind usually carries: video, audio.
pub fn typical_tracks(kind: EndpointKind) -> (TrackInfo, TrackInfo) {
    let (video, audio) = match kind {
        EndpointKind::Webrtc | EndpointKind::Udp | EndpointKind::Mix => (Codec::H264, Codec::Opus),
        EndpointKind::H5 => (Codec::Mpeg1, Codec::Mp2),
        EndpointKind::Sip => (Codec::H264, Codec::Pcma),
        EndpointKind::Miniprogram | EndpointKind::Rtmp | EndpointKind::Cdn | EndpointKind::File => (Codec::H264, Codec::Aac),
    };
    (usual(video), usual(audio))
}

/// An explained pair; prints as text.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Kind of the source.
    pub from: EndpointKind,
    /// Kind of the sink.
    pub to: EndpointKind,
    /// The video track that was assumed.
    pub video: Option<TrackInfo>,
    /// The audio track that was assumed.
    pub audio: Option<TrackInfo>,
    /// The plan for them.
    pub plan: Plan,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |track: &Option<TrackInfo>| track.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        writeln!(f, "source {}: {}; {}", self.from, name(&self.video), name(&self.audio))?;
        writeln!(f, "sink   {}", self.to)?;
        self.plan.fmt(f)
    }
}

/// The plan for a pair of kinds with described tracks; `None` stands for what a source of that kind usually carries, and
/// the sink takes what its kind usually takes.
pub fn explain(
    rules: &RuleTable,
    able: &Abilities,
    (from, to): (EndpointKind, EndpointKind),
    stream: &str,
    video: Option<&str>,
    audio: Option<&str>,
) -> Result<Explained, SpecError> {
    let typical = typical_tracks(from);
    let video = video.map_or(Ok(Some(typical.0)), |spec| parse_track(Kind::Video, spec))?;
    let audio = audio.map_or(Ok(Some(typical.1)), |spec| parse_track(Kind::Audio, spec))?;
    let source = Source { kind: from, bounds: Bounds::default(), stream, video: video.as_ref(), audio: audio.as_ref() };
    let plan = plan(rules, &source, &to.default_sink(), able);
    Ok(Explained { from, to, video, audio, plan })
}

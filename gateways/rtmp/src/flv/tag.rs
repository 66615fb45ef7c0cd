//! FLV audio and video tag bodies: the legacy form (FLV 10.1, annex E.4) and enhanced RTMP v2.
//!
//! Reads both into one type and writes the legacy form where it exists (H.264, AAC), else the
//! enhanced one. Of several tracks in one message the default one is read. Codecs that nobody here
//! carries are refused by name; the track, not the session, has to end then. Payloads are slices of
//! the input.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest chain of ModEx prefixes that is skipped.
const MAX_MOD_EX: usize = 8;

/// Why a tag body is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// It ends inside its header.
    #[error("tag body is cut off")]
    Truncated,
    /// Legacy codec id or sound format that is not carried.
    #[error("codec id {0} is not supported")]
    UnsupportedCodec(u8),
    /// Enhanced-RTMP codec that is not carried.
    #[error("codec {:?} is not supported", String::from_utf8_lossy(.0))]
    UnsupportedFourCc([u8; 4]),
    /// Another track than the default one.
    #[error("track {0} beside the default track is not carried")]
    OtherTrack(u8),
    /// Reserved packet type or frame type.
    #[error("packet type {0} is not known")]
    PacketType(u8),
    /// More ModEx prefixes than are skipped.
    #[error("more than {MAX_MOD_EX} ModEx prefixes")]
    TooManyModEx,
}

/// Codec of a video tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    /// H.264; coded frames are length-prefixed NAL units.
    Avc,
    /// H.265; as H.264.
    Hevc,
    /// AV1; low-overhead OBUs.
    Av1,
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
}

impl VideoCodec {
    /// The FourCC of enhanced RTMP.
    pub fn fourcc(self) -> [u8; 4] {
        match self {
            VideoCodec::Avc => *b"avc1",
            VideoCodec::Hevc => *b"hvc1",
            VideoCodec::Av1 => *b"av01",
            VideoCodec::Vp8 => *b"vp08",
            VideoCodec::Vp9 => *b"vp09",
        }
    }

    fn from_fourcc(fourcc: [u8; 4]) -> Result<Self, TagError> {
        [Self::Avc, Self::Hevc, Self::Av1, Self::Vp8, Self::Vp9]
            .into_iter()
            .find(|codec| codec.fourcc() == fourcc)
            .ok_or(TagError::UnsupportedFourCc(fourcc))
    }

    /// Whether coded frames carry a composition time.
    fn has_composition_time(self) -> bool {
        matches!(self, VideoCodec::Avc | VideoCodec::Hevc)
    }
}

/// What a video tag carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoPacket {
    /// The decoder configuration record (avcC, hvcC, av1C, vpcC).
    SequenceStart(Bytes),
    /// One access unit.
    Frame {
        /// Presentation minus decoding time in milliseconds; 24 bits.
        composition_ms: i32,
        /// The access unit.
        data: Bytes,
    },
    /// No more frames.
    SequenceEnd,
    /// AMF metadata inside the track, as for HDR.
    Metadata(Bytes),
}

/// A video tag body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoTag {
    /// Codec.
    pub codec: VideoCodec,
    /// Decoding can begin here. As the sender says: it may be wrong.
    pub keyframe: bool,
    /// What it carries.
    pub packet: VideoPacket,
}

/// Codec of an audio tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    /// AAC, raw access units.
    Aac,
    /// MP3.
    Mp3,
    /// G.711 A-law.
    G711A,
    /// G.711 mu-law.
    G711U,
    /// Opus.
    Opus,
    /// FLAC.
    Flac,
    /// AC-3.
    Ac3,
    /// Enhanced AC-3.
    Eac3,
}

impl AudioCodec {
    /// The FourCC of enhanced RTMP; G.711 has none.
    pub fn fourcc(self) -> Option<[u8; 4]> {
        match self {
            AudioCodec::Aac => Some(*b"mp4a"),
            AudioCodec::Mp3 => Some(*b".mp3"),
            AudioCodec::Opus => Some(*b"Opus"),
            AudioCodec::Flac => Some(*b"fLaC"),
            AudioCodec::Ac3 => Some(*b"ac-3"),
            AudioCodec::Eac3 => Some(*b"ec-3"),
            AudioCodec::G711A | AudioCodec::G711U => None,
        }
    }

    fn from_fourcc(fourcc: [u8; 4]) -> Result<Self, TagError> {
        [Self::Aac, Self::Mp3, Self::Opus, Self::Flac, Self::Ac3, Self::Eac3]
            .into_iter()
            .find(|codec| codec.fourcc() == Some(fourcc))
            .ok_or(TagError::UnsupportedFourCc(fourcc))
    }
}

/// What an audio tag carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioPacket {
    /// The decoder configuration (AudioSpecificConfig, OpusHead, ...).
    SequenceStart(Bytes),
    /// One access unit.
    Frame(Bytes),
    /// No more frames.
    SequenceEnd,
    /// How the channels are laid out, undecoded.
    ChannelConfig(Bytes),
}

/// The legacy sound description: true for MP3 and G.711, fixed for everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoundFormat {
    /// Samples per second.
    pub rate_hz: u32,
    /// 16-bit samples, else 8-bit.
    pub wide: bool,
    /// Two channels, else one.
    pub stereo: bool,
}

impl SoundFormat {
    /// What AAC tags must say whatever the AAC is (annex E.4.2.1).
    pub const AAC: SoundFormat = SoundFormat { rate_hz: 44_100, wide: true, stereo: true };
}

/// An audio tag body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioTag {
    /// Codec.
    pub codec: AudioCodec,
    /// The legacy description; [`SoundFormat::AAC`] when read from an enhanced tag.
    pub sound: SoundFormat,
    /// What it carries.
    pub packet: AudioPacket,
}

const ENHANCED: u8 = 0x80;
const COMMAND_FRAME: u8 = 5;
const KEY_FRAME: u8 = 1;
const INTER_FRAME: u8 = 2;
const FORMAT_ENHANCED: u8 = 9;

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const SEQUENCE_END: u8 = 2;
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const CHANNEL_CONFIG: u8 = 4;
const MULTITRACK_AUDIO: u8 = 5;
const MULTITRACK_VIDEO: u8 = 6;
const MOD_EX: u8 = 7;

/// One track, whose body goes on to the end.
const ONE_TRACK: u8 = 0;
/// Each track has a codec of its own.
const MANY_CODECS: u8 = 2;
/// The track that is meant when none is named.
const DEFAULT_TRACK: u8 = 0;

impl VideoTag {
    /// Reads a tag body. `None` for the commands that only seeking players need, and for the
    /// empty bodies some encoders send.
    pub fn parse(mut body: Bytes) -> Result<Option<Self>, TagError> {
        let Some(first) = body.first().copied() else { return Ok(None) };
        body.advance(1);
        let frame_type = (first >> 4) & 7;
        let keyframe = frame_type == KEY_FRAME;
        if first & ENHANCED == 0 {
            if frame_type == COMMAND_FRAME {
                return Ok(None);
            }
            let codec = match first & 0x0F {
                7 => VideoCodec::Avc,
                // Never specified, but what encoders without enhanced RTMP send.
                12 => VideoCodec::Hevc,
                other => return Err(TagError::UnsupportedCodec(other)),
            };
            let packet_type = u8_of(&mut body)?;
            let composition_ms = i24_of(&mut body)?;
            let packet = match packet_type {
                0 => VideoPacket::SequenceStart(body),
                1 => VideoPacket::Frame { composition_ms, data: body },
                2 => VideoPacket::SequenceEnd,
                other => return Err(TagError::PacketType(other)),
            };
            return Ok(Some(Self { codec, keyframe, packet }));
        }
        let packet_type = skip_mod_ex(first & 0x0F, &mut body)?;
        if frame_type == COMMAND_FRAME && packet_type != METADATA {
            return Ok(None);
        }
        let (packet_type, fourcc) = track(packet_type, MULTITRACK_VIDEO, &mut body)?;
        let codec = VideoCodec::from_fourcc(fourcc)?;
        let packet = match packet_type {
            SEQUENCE_START => VideoPacket::SequenceStart(body),
            CODED_FRAMES if codec.has_composition_time() => VideoPacket::Frame { composition_ms: i24_of(&mut body)?, data: body },
            CODED_FRAMES | CODED_FRAMES_X => VideoPacket::Frame { composition_ms: 0, data: body },
            SEQUENCE_END => VideoPacket::SequenceEnd,
            METADATA => VideoPacket::Metadata(body),
            other => return Err(TagError::PacketType(other)),
        };
        Ok(Some(Self { codec, keyframe, packet }))
    }

    /// Appends the tag body. The composition time is cut to 24 bits.
    pub fn encode(&self, out: &mut BytesMut) {
        let frame_type = if self.keyframe { KEY_FRAME } else { INTER_FRAME };
        let cts = match &self.packet {
            VideoPacket::Frame { composition_ms, .. } => *composition_ms,
            _ => 0,
        };
        let metadata = matches!(self.packet, VideoPacket::Metadata(_));
        if self.codec == VideoCodec::Avc && !metadata {
            out.put_slice(&[
                frame_type << 4 | 7,
                match self.packet {
                    VideoPacket::SequenceStart(_) => 0,
                    VideoPacket::SequenceEnd => 2,
                    _ => 1,
                },
            ]);
            out.put_int(i64::from(cts), 3);
        } else {
            let timed = self.codec.has_composition_time() && cts != 0;
            let packet_type = match self.packet {
                VideoPacket::SequenceStart(_) => SEQUENCE_START,
                VideoPacket::Frame { .. } if timed => CODED_FRAMES,
                // CodedFramesX is CodedFrames with no composition time; VP and AV1 have none.
                VideoPacket::Frame { .. } if self.codec.has_composition_time() => CODED_FRAMES_X,
                VideoPacket::Frame { .. } => CODED_FRAMES,
                VideoPacket::SequenceEnd => SEQUENCE_END,
                VideoPacket::Metadata(_) => METADATA,
            };
            out.put_u8(ENHANCED | frame_type << 4 | packet_type);
            out.put_slice(&self.codec.fourcc());
            if timed {
                out.put_int(i64::from(cts), 3);
            }
        }
        match &self.packet {
            VideoPacket::SequenceStart(data) | VideoPacket::Frame { data, .. } | VideoPacket::Metadata(data) => out.put_slice(data),
            VideoPacket::SequenceEnd => {}
        }
    }
}

impl AudioTag {
    /// Reads a tag body; `None` for the empty bodies some encoders send.
    pub fn parse(mut body: Bytes) -> Result<Option<Self>, TagError> {
        let Some(first) = body.first().copied() else { return Ok(None) };
        body.advance(1);
        let format = first >> 4;
        if format == FORMAT_ENHANCED {
            return Self::parse_enhanced(first & 0x0F, body).map(Some);
        }
        let sound = SoundFormat {
            rate_hz: [5_500, 11_025, 22_050, 44_100][usize::from(first >> 2 & 3)],
            wide: first & 2 != 0,
            stereo: first & 1 != 0,
        };
        let (codec, sound) = match format {
            2 => (AudioCodec::Mp3, sound),
            14 => (AudioCodec::Mp3, SoundFormat { rate_hz: 8000, ..sound }),
            7 => (AudioCodec::G711A, SoundFormat { rate_hz: 8000, ..sound }),
            8 => (AudioCodec::G711U, SoundFormat { rate_hz: 8000, ..sound }),
            10 => (AudioCodec::Aac, SoundFormat::AAC),
            other => return Err(TagError::UnsupportedCodec(other)),
        };
        let packet = match codec {
            AudioCodec::Aac => match u8_of(&mut body)? {
                0 => AudioPacket::SequenceStart(body),
                1 => AudioPacket::Frame(body),
                other => return Err(TagError::PacketType(other)),
            },
            _ => AudioPacket::Frame(body),
        };
        Ok(Some(Self { codec, sound, packet }))
    }

    fn parse_enhanced(packet_type: u8, mut body: Bytes) -> Result<Self, TagError> {
        let packet_type = skip_mod_ex(packet_type, &mut body)?;
        let (packet_type, fourcc) = track(packet_type, MULTITRACK_AUDIO, &mut body)?;
        let codec = AudioCodec::from_fourcc(fourcc)?;
        let packet = match packet_type {
            SEQUENCE_START => AudioPacket::SequenceStart(body),
            CODED_FRAMES => AudioPacket::Frame(body),
            SEQUENCE_END => AudioPacket::SequenceEnd,
            CHANNEL_CONFIG => AudioPacket::ChannelConfig(body),
            other => return Err(TagError::PacketType(other)),
        };
        Ok(Self { codec, sound: SoundFormat::AAC, packet })
    }

    /// Appends the tag body. Packets that the codec's form cannot carry (the end of a legacy
    /// track) become a tag without data.
    pub fn encode(&self, out: &mut BytesMut) {
        let legacy = |format: u8| {
            let rate = match self.sound.rate_hz {
                0..=8_000 => 0,
                8_001..=11_025 => 1,
                11_026..=22_050 => 2,
                _ => 3,
            };
            format << 4 | rate << 2 | u8::from(self.sound.wide) << 1 | u8::from(self.sound.stereo)
        };
        let enhanced_only = matches!(self.packet, AudioPacket::SequenceEnd | AudioPacket::ChannelConfig(_));
        match (self.codec, self.codec.fourcc()) {
            (AudioCodec::Aac, _) if !enhanced_only => {
                let config = matches!(self.packet, AudioPacket::SequenceStart(_));
                out.put_slice(&[0xAF, u8::from(!config)]);
            }
            (AudioCodec::Mp3, _) if matches!(self.packet, AudioPacket::Frame(_)) => {
                out.put_u8(legacy(if self.sound.rate_hz == 8000 { 14 } else { 2 }));
            }
            (_, Some(fourcc)) => {
                let packet_type = match self.packet {
                    AudioPacket::SequenceStart(_) => SEQUENCE_START,
                    AudioPacket::Frame(_) => CODED_FRAMES,
                    AudioPacket::SequenceEnd => SEQUENCE_END,
                    AudioPacket::ChannelConfig(_) => CHANNEL_CONFIG,
                };
                out.put_u8(FORMAT_ENHANCED << 4 | packet_type);
                out.put_slice(&fourcc);
            }
            (AudioCodec::G711A, None) => out.put_u8(legacy(7)),
            (_, None) => out.put_u8(legacy(8)),
        }
        match &self.packet {
            AudioPacket::SequenceStart(data) | AudioPacket::Frame(data) | AudioPacket::ChannelConfig(data) => out.put_slice(data),
            AudioPacket::SequenceEnd => {}
        }
    }
}

/// Skips ModEx prefixes (enhanced RTMP v2, "ExVideoTagHeader"); gives the packet type after them.
fn skip_mod_ex(mut packet_type: u8, body: &mut Bytes) -> Result<u8, TagError> {
    for _ in 0..=MAX_MOD_EX {
        if packet_type != MOD_EX {
            return Ok(packet_type);
        }
        let mut len = usize::from(u8_of(body)?) + 1;
        if len == 256 {
            len = usize::from(u8_of(body)?) << 8;
            len += usize::from(u8_of(body)?) + 1;
        }
        if body.len() < len {
            return Err(TagError::Truncated);
        }
        body.advance(len);
        packet_type = u8_of(body)? & 0x0F;
    }
    Err(TagError::TooManyModEx)
}

/// Leaves the default track's part in `body`; gives its packet type and FourCC (enhanced RTMP v2, "Multitrack").
fn track(packet_type: u8, multitrack: u8, body: &mut Bytes) -> Result<(u8, [u8; 4]), TagError> {
    if packet_type != multitrack {
        return Ok((packet_type, fourcc_of(body)?));
    }
    let head = u8_of(body)?;
    let (form, packet_type) = (head >> 4, head & 0x0F);
    if form > MANY_CODECS {
        return Err(TagError::PacketType(head));
    }
    let mut fourcc = if form == MANY_CODECS { [0; 4] } else { fourcc_of(body)? };
    loop {
        if form == MANY_CODECS {
            fourcc = fourcc_of(body)?;
        }
        let id = u8_of(body)?;
        let len = if form == ONE_TRACK { body.len() } else { body.try_get_uint(3).map_err(|_| TagError::Truncated)? as usize };
        if len > body.len() {
            return Err(TagError::Truncated);
        }
        let data = body.split_to(len);
        if id == DEFAULT_TRACK {
            *body = data;
            return Ok((packet_type, fourcc));
        }
        if body.is_empty() {
            return Err(TagError::OtherTrack(id));
        }
    }
}

fn u8_of(body: &mut Bytes) -> Result<u8, TagError> {
    body.try_get_u8().map_err(|_| TagError::Truncated)
}

fn i24_of(body: &mut Bytes) -> Result<i32, TagError> {
    let value = body.try_get_uint(3).map_err(|_| TagError::Truncated)? as u32;
    // Shifted up and back to carry the sign of the 24 bits.
    Ok((value << 8) as i32 >> 8)
}

fn fourcc_of(body: &mut Bytes) -> Result<[u8; 4], TagError> {
    body.try_get_u32().map(u32::to_be_bytes).map_err(|_| TagError::Truncated)
}

#[cfg(test)]
#[path = "tag_tests.rs"]
mod tests;

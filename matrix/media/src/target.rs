//! What a rendition is to be: the exact target of a transcode. Two sinks with equal targets share one encoder.

use std::fmt;

use crate::{Codec, Kind};

/// Target of a video encode. Every figure is resolved by the planner, so that equality means "the same bits".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VideoTarget {
    /// Codec to encode.
    pub codec: Codec,
    /// Output size; the source is scaled to it. `None` keeps the source's size, also when that changes.
    pub size: Option<(u32, u32)>,
    /// Frames per second at most; `None` keeps the source's rate.
    pub frame_rate_max: Option<u32>,
    /// Bits per second.
    pub bitrate_bps: u32,
    /// Longest time between key frames, milliseconds.
    pub gop_ms: u32,
}

/// Target of an audio encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AudioTarget {
    /// Codec to encode.
    pub codec: Codec,
    /// Samples per second and channel.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u8,
    /// Bits per second.
    pub bitrate_bps: u32,
}

/// Target of an encode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A video rendition.
    Video(VideoTarget),
    /// An audio rendition.
    Audio(AudioTarget),
}

impl Target {
    /// The codec that comes out.
    pub const fn codec(&self) -> Codec {
        match self {
            Self::Video(v) => v.codec,
            Self::Audio(a) => a.codec,
        }
    }

    /// Video or audio.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Video(_) => Kind::Video,
            Self::Audio(_) => Kind::Audio,
        }
    }
}

impl fmt::Display for Target {
    /// One word for rendition ids and reasons: `opus-48000-2ch-64k`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audio(a) => write!(f, "{}-{}-{}ch-{}k", a.codec, a.sample_rate, a.channels, a.bitrate_bps / 1_000),
            Self::Video(v) => {
                write!(f, "{}", v.codec)?;
                if let Some((width, height)) = v.size {
                    write!(f, "-{width}x{height}")?;
                }
                if let Some(rate) = v.frame_rate_max {
                    write!(f, "-{rate}fps")?;
                }
                write!(f, "-{}k-gop{}ms", v.bitrate_bps / 1_000, v.gop_ms)
            }
        }
    }
}

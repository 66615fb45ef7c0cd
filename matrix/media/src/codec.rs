//! The codecs the bus can carry, by their usual names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Video or audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Moving pictures.
    Video,
    /// Sound.
    Audio,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Video => "video",
            Self::Audio => "audio",
        })
    }
}

/// No codec of that name is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no codec is named {0:?}; known: {known}", known = Codec::ALL.map(Codec::name).join(", "))]
pub struct UnknownCodec(pub String);

macro_rules! codecs {
    ($($variant:ident, $kind:ident, $name:literal, $doc:literal;)*) => {
        /// A media codec. Its byte layout on the bus is in the crate's table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Codec {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)*
        }

        impl Codec {
            /// Every codec, in the order of the table.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name used in configuration, API and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Video or audio.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

codecs! {
    H264, Video, "h264", "H.264 / AVC (ITU-T H.264).";
    H265, Video, "h265", "H.265 / HEVC.";
    Vp8, Video, "vp8", "VP8 (RFC 6386).";
    Vp9, Video, "vp9", "VP9.";
    Av1, Video, "av1", "AV1.";
    Mpeg1, Video, "mpeg1", "MPEG-1 video (ISO/IEC 11172-2).";
    Mpeg2, Video, "mpeg2", "MPEG-2 video (ISO/IEC 13818-2).";
    Aac, Audio, "aac", "AAC-LC and its relatives (ISO/IEC 14496-3).";
    Opus, Audio, "opus", "Opus (RFC 6716).";
    Flac, Audio, "flac", "FLAC (RFC 9639).";
    Mp2, Audio, "mp2", "MPEG-1 audio layer II.";
    Mp3, Audio, "mp3", "MPEG-1 audio layer III.";
    Pcma, Audio, "pcma", "G.711 A-law.";
    Pcmu, Audio, "pcmu", "G.711 µ-law.";
    G722, Audio, "g722", "G.722.";
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(s: &str) -> Result<Self, UnknownCodec> {
        let wanted = s.to_ascii_lowercase();
        Self::ALL.into_iter().find(|c| c.name() == wanted).ok_or_else(|| UnknownCodec(s.chars().take(32).collect()))
    }
}

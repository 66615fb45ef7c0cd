//! What can go wrong in a codec, and whether it concerns one packet or the codec's whole state.

use patchbay_media::nal::NalError;
use patchbay_media::{AudioTarget, Codec, Target};

use crate::limits::PACKET_MAX;

/// The library's own words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LibraryError {
    /// FFmpeg.
    #[error("ffmpeg: {0}")]
    Ffmpeg(ffmpeg_next::Error),
    /// libopus.
    #[error("libopus: {0}")]
    Opus(&'static str),
    /// fdk-aac.
    #[error("fdk-aac: {0}")]
    Fdk(String),
    /// The library has no such codec.
    #[error("not built into the library")]
    Missing,
    /// The library answered with something it must not answer.
    #[error("unexpected output: {0}")]
    Unexpected(&'static str),
}

impl From<ffmpeg_next::Error> for LibraryError {
    fn from(e: ffmpeg_next::Error) -> Self {
        Self::Ffmpeg(e)
    }
}

impl From<opus::Error> for LibraryError {
    fn from(e: opus::Error) -> Self {
        Self::Opus(e.description())
    }
}

/// Why a codec step failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// A packet above [`PACKET_MAX`]; it was not looked at.
    #[error("{codec} packet of {len} bytes exceeds {PACKET_MAX}")]
    PacketTooLarge {
        /// The source's codec.
        codec: Codec,
        /// Its length.
        len: usize,
    },
    /// One packet does not decode; the next may.
    #[error("{codec} packet does not decode: {why}")]
    Packet {
        /// The source's codec.
        codec: Codec,
        /// Why.
        why: LibraryError,
    },
    /// A decoder or encoder cannot be opened.
    #[error("cannot open {codec} {role}: {why}")]
    Open {
        /// Codec that was to be opened.
        codec: Codec,
        /// `decoder` or `encoder`.
        role: &'static str,
        /// Why.
        why: LibraryError,
    },
    /// The encoder, resampler or scaler failed.
    #[error("{codec} {role} failed: {why}")]
    Broken {
        /// Codec of the side that failed.
        codec: Codec,
        /// `decoder`, `encoder`, `resampler` or `scaler`.
        role: &'static str,
        /// Why.
        why: LibraryError,
    },
    /// The source's parameter sets are unusable.
    #[error(transparent)]
    H264(#[from] NalError),
    /// No encoder takes this rate or channel count.
    #[error("no encoder takes {}", Target::Audio(*.0))]
    Target(AudioTarget),
    /// The source or target exceeds a limit.
    #[error("{what} {value} exceeds {max}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        value: u64,
        /// How large it may be.
        max: u64,
    },
}

impl CodecError {
    /// Whether only one packet is concerned: it counts as lost, and the codec goes on.
    pub fn is_packet(&self) -> bool {
        matches!(self, Self::PacketTooLarge { .. } | Self::Packet { .. })
    }
}

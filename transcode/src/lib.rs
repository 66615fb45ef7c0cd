//! The transcode engine: frames of one bus track in, frames of a new bus track out.
//!
//! Owns: decoders, encoders, resampling, scaling, the sample clock that keeps sound in step with pictures, and
//! the threads all of that runs on. Refuses: protocols, rules, to decide what is transcoded (the caller does), to
//! run on anybody else's thread, and input beyond the limits in [`limits`].
//!
//! One [`Rendition`] is one encoder and one output track, whatever the number of readers; the caller keeps exactly
//! one per source track and target. Video renditions of one source share its decoder. To add a codec, write one file under `audio/` or `video/` and
//! one line in the registry.

mod audio;
mod cost;
mod engine;
mod error;
mod ff;
mod pool;
mod raw;
mod registry;
mod rendition;
mod stats;
mod video;

pub use cost::{decode_cores, encode_cores};
pub use engine::{Engine, EngineConfig, StartError};
pub use error::{CodecError, LibraryError};
pub use raw::{Plane, RawAudio, RawVideo};
pub use registry::abilities;
pub use rendition::Rendition;
pub use stats::{RenditionState, RenditionStats};

/// What is accepted from a source, checked before a codec library sees it.
pub mod limits {
    /// Largest packet, bytes.
    pub const PACKET_MAX: usize = 8 << 20;
    /// Highest sample rate, Hz.
    pub const SAMPLE_RATE_MAX: u32 = 192_000;
    /// Most channels.
    pub const CHANNELS_MAX: u8 = 8;
    /// Largest picture area, luma samples: 8K. Sides are limited by `patchbay_media::h264::SIDE_MAX`.
    pub const AREA_MAX: u64 = 8_192 * 4_320;
}

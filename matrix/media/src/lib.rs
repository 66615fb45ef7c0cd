//! The media model every other crate speaks: codecs, tracks, frames and time.
//!
//! Owns: [`Codec`], [`TrackInfo`], [`Frame`], [`MediaTime`], the [`timeline`] that turns wire clocks into
//! bus time, and readers/writers of codec parameter sets. Refuses: sockets, runtimes, codec libraries, clocks
//! (the current time is always an argument).
//!
//! # Byte layouts on the bus
//! A frame's layout is named once, here, and never guessed:
//!
//! | codec | `Frame::payload` | `TrackInfo::config` |
//! |---|---|---|
//! | H.264 | one access unit, NAL units with 4-byte length prefixes, no parameter sets, no AUD | `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1) |
//! | H.265 | the same | `HEVCDecoderConfigurationRecord` |
//! | VP8 | one frame | empty |
//! | VP9 | one frame | `vpcC` (VP Codec ISO Media File Format Binding), or empty where it cannot say what the stream is |
//! | AV1 | one temporal unit, OBUs as in a file (AV1 §5.2) without temporal delimiters | `av1C` with the sequence header |
//! | MPEG-1/2 video | one picture; key pictures begin with their sequence header | empty |
//! | AAC | one raw_data_block | `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2.1) |
//! | Opus | one Opus packet (RFC 6716) | empty |
//! | FLAC | one frame | the start of a file: `fLaC` and STREAMINFO (RFC 9639 §8.2) |
//! | MP2, MP3 | one frame with its header | empty |
//! | G.711, G.722 | bytes of one packet | empty |

pub mod aac;
pub mod av1;
mod bits;
mod codec;
pub mod flac;
mod frame;
#[doc(hidden)]
pub mod fuzz_entry;
pub mod h264;
pub mod hevc;
pub mod nal;
mod reorder;
mod target;
mod time;
pub mod timeline;
mod track;
pub mod vpx;

pub use codec::{Codec, Kind, UnknownCodec};
pub use frame::Frame;
pub use reorder::Reorder;
pub use target::{AudioTarget, Target, VideoTarget};
pub use time::MediaTime;
pub use track::{AudioShape, H264Profile, Shape, TrackInfo, VideoShape};

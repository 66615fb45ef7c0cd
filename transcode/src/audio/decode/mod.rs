//! Audio decoders: one file per library.

pub(crate) mod ffmpeg;
pub(crate) mod opus;

//! Sound: the two traits every audio codec implements, and the samples that pass between them.

pub(crate) mod clock;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod pipeline;
mod resample;

use bytes::Bytes;
use patchbay_media::TrackInfo;

use crate::error::CodecError;

/// Interleaved samples in -1..1 with their format. Reused as a scratch buffer; decoders append.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pcm {
    /// Samples per second and channel.
    pub(crate) rate: u32,
    /// Channels, in FFmpeg's default order for the count.
    pub(crate) channels: u8,
    /// `channels` values per sample.
    pub(crate) samples: Vec<f32>,
}

impl Pcm {
    /// Samples per channel.
    pub(crate) fn len(&self) -> usize {
        self.samples.len() / usize::from(self.channels.max(1))
    }

    /// Drops all samples, keeps the format.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Drops `n` samples per channel from the front.
    pub(crate) fn trim_front(&mut self, n: usize) {
        let n = n.min(self.len()) * usize::from(self.channels);
        self.samples.drain(..n);
    }

    /// Appends `n` samples per channel of silence.
    pub(crate) fn silence(&mut self, n: usize) {
        self.samples.resize(self.samples.len() + n * usize::from(self.channels), 0.0);
    }
}

/// Packets to samples.
pub(crate) trait AudioDecoder: Send {
    /// Decodes one packet into `out` (which it may re-format when `out` is empty).
    ///
    /// # Errors
    /// [`CodecError::Packet`] when only this packet is bad.
    fn decode(&mut self, packet: &[u8], out: &mut Pcm) -> Result<(), CodecError>;

    /// Makes up at most `samples` samples per channel for packets that never came, before `next` (when that is
    /// known) is decoded. Appends fewer, or none, when the codec cannot.
    fn conceal(&mut self, samples: usize, next: Option<&[u8]>, out: &mut Pcm);
}

/// Samples to packets.
pub(crate) trait AudioEncoder: Send {
    /// Samples per channel that [`Self::encode`] takes.
    fn frame_samples(&self) -> usize;

    /// By how many samples the packet that a call returns begins, once decoded, before the samples given to that
    /// call: look-ahead, overlap and held-back frames together.
    fn latency_samples(&self) -> usize;

    /// Encodes exactly one frame of interleaved samples; `None` while the encoder fills up.
    fn encode(&mut self, samples: &[f32]) -> Result<Option<Bytes>, CodecError>;

    /// The track that comes out.
    fn track_info(&self) -> TrackInfo;
}

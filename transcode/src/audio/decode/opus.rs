//! Opus by libopus itself: decodes at 48 kHz, conceals losses, uses in-band FEC when the next packet has it.

use opus::{Channels, Decoder};
use patchbay_media::{Codec, TrackInfo};

use crate::audio::{AudioDecoder, Pcm};
use crate::engine::check_audio;
use crate::error::CodecError;
use crate::limits::PACKET_MAX;

const RATE: u32 = 48_000;
/// Longest packet: 120 ms (RFC 6716 §3.2.5).
const PACKET_SAMPLES_MAX: usize = 5_760;
/// Concealment comes in steps of 2.5 ms.
const STEP: usize = 120;

struct OpusDecoder {
    inner: Decoder,
    channels: u8,
    scratch: Vec<f32>,
}

/// Opens a decoder for `info`.
pub(crate) fn open(info: &TrackInfo) -> Result<Box<dyn AudioDecoder>, CodecError> {
    let shape = info.audio_shape().copied().unwrap_or_default();
    check_audio(shape.sample_rate, shape.channels)?;
    // A stereo decoder plays mono packets and the other way round, so an unknown count costs nothing but time.
    let (layout, channels) = if shape.channels == 1 { (Channels::Mono, 1) } else { (Channels::Stereo, 2) };
    let inner = Decoder::new(RATE, layout).map_err(|e| CodecError::Open { codec: Codec::Opus, role: "decoder", why: e.into() })?;
    Ok(Box::new(OpusDecoder { inner, channels, scratch: vec![0.0; PACKET_SAMPLES_MAX * usize::from(channels)] }))
}

impl OpusDecoder {
    /// Decodes into at most `samples` samples; an empty packet is a lost one.
    fn run(&mut self, packet: &[u8], samples: usize, fec: bool, out: &mut Pcm) -> Result<(), opus::Error> {
        let room = samples.min(PACKET_SAMPLES_MAX) * usize::from(self.channels);
        let n = self.inner.decode_float(packet, &mut self.scratch[..room], fec)?;
        out.samples.extend_from_slice(&self.scratch[..n * usize::from(self.channels)]);
        Ok(())
    }

    fn format(&self, out: &mut Pcm) {
        if out.samples.is_empty() {
            (out.rate, out.channels) = (RATE, self.channels);
        }
    }
}

impl AudioDecoder for OpusDecoder {
    fn decode(&mut self, packet: &[u8], out: &mut Pcm) -> Result<(), CodecError> {
        if packet.len() > PACKET_MAX {
            return Err(CodecError::PacketTooLarge { codec: Codec::Opus, len: packet.len() });
        }
        self.format(out);
        self.run(packet, PACKET_SAMPLES_MAX, false, out).map_err(|e| CodecError::Packet { codec: Codec::Opus, why: e.into() })
    }

    fn conceal(&mut self, samples: usize, next: Option<&[u8]>, out: &mut Pcm) {
        self.format(out);
        let mut left = samples / STEP * STEP;
        let redundant = next.and_then(|packet| self.inner.get_nb_samples(packet).ok()).filter(|&n| n > 0 && n <= left);
        let tail = redundant.unwrap_or(0);
        while left > tail {
            let n = (left - tail).min(PACKET_SAMPLES_MAX);
            // An error leaves the rest to silence, which the caller fills in.
            if self.run(&[], n, false, out).is_err() {
                return;
            }
            left -= n;
        }
        if let (Some(n), Some(packet)) = (redundant, next) {
            let _ = self.run(packet, n, true, out);
        }
    }
}

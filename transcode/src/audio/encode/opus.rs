//! Opus by libopus: 20 ms frames at complexity 5, the best trade of CPU for quality that was measured.

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Encoder};
use patchbay_media::{AudioShape, AudioTarget, Codec, TrackInfo};

use super::check_target;
use crate::audio::AudioEncoder;
use crate::error::{CodecError, LibraryError};

/// Largest packet of 20 ms: 1275 bytes per frame (RFC 6716 §3.2.1), with room for the header.
const PACKET_MAX: usize = 1_500;
const COMPLEXITY: i32 = 5;

struct OpusEncoder {
    inner: Encoder,
    frame: usize,
    latency: usize,
    channels: u8,
    scratch: Box<[u8; PACKET_MAX]>,
}

fn failed(why: impl Into<LibraryError>) -> CodecError {
    CodecError::Open { codec: Codec::Opus, role: "encoder", why: why.into() }
}

/// Opens an encoder; the rate must be one of Opus's own (8, 12, 16, 24 or 48 kHz).
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    check_target(target)?;
    let layout = if target.channels == 1 { Channels::Mono } else { Channels::Stereo };
    // The general mode's 6.5 ms of look-ahead are well inside the latency budget, and below 48 kbit/s it sounds
    // far better than the restricted one.
    let mut inner = Encoder::new(target.sample_rate, layout, Application::Audio).map_err(failed)?;
    inner.set_complexity(COMPLEXITY).map_err(failed)?;
    inner.set_bitrate(Bitrate::Bits(target.bitrate_bps.clamp(6_000, 510_000) as i32)).map_err(failed)?;
    inner.set_inband_fec(false).map_err(failed)?;
    inner.set_dtx(false).map_err(failed)?;
    let latency = usize::try_from(inner.get_lookahead().map_err(failed)?).unwrap_or(0);
    let channels = layout as u8;
    Ok(Box::new(OpusEncoder { inner, frame: target.sample_rate as usize / 50, latency, channels, scratch: Box::new([0; PACKET_MAX]) }))
}

impl AudioEncoder for OpusEncoder {
    fn frame_samples(&self) -> usize {
        self.frame
    }

    fn latency_samples(&self) -> usize {
        self.latency
    }

    fn encode(&mut self, samples: &[f32]) -> Result<Option<Bytes>, CodecError> {
        let n = self.inner.encode_float(samples, &mut self.scratch[..]).map_err(|e| CodecError::Broken {
            codec: Codec::Opus,
            role: "encoder",
            why: e.into(),
        })?;
        Ok(Some(Bytes::copy_from_slice(&self.scratch[..n])))
    }

    fn track_info(&self) -> TrackInfo {
        // Opus always runs on a 48 kHz clock (RFC 7587 §4.1), whatever the encoder was fed.
        TrackInfo::audio(Codec::Opus, Bytes::new(), AudioShape { sample_rate: 48_000, channels: self.channels })
    }
}

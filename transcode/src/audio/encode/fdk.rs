//! AAC-LC by fdk-aac: a third of the CPU of libavcodec's encoder. See docs/licences.md before shipping it.

use bytes::Bytes;
use fdk_aac::enc::{AudioObjectType, BitRate, ChannelMode, Encoder, EncoderParams, Transport};
use patchbay_media::aac::{AudioSpecificConfig, OBJECT_AAC_LC};
use patchbay_media::{AudioShape, AudioTarget, Codec, TrackInfo};

use super::check_target;
use crate::audio::AudioEncoder;
use crate::error::{CodecError, LibraryError};

/// Samples per AAC-LC frame.
const FRAME: usize = 1_024;
/// 6144 bits per channel and frame (ISO/IEC 14496-3 §4.5.3.2), for two channels, with room.
const PACKET_MAX: usize = 2_048;

struct FdkEncoder {
    inner: Encoder,
    config: Bytes,
    shape: AudioShape,
    latency: usize,
    input: Vec<i16>,
    scratch: Box<[u8; PACKET_MAX]>,
}

/// Opens an AAC-LC encoder.
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    check_target(target)?;
    let failed =
        |e: fdk_aac::enc::EncoderError| CodecError::Open { codec: Codec::Aac, role: "encoder", why: LibraryError::Fdk(e.to_string()) };
    let channels = target.channels.clamp(1, 2);
    let inner = Encoder::new(EncoderParams {
        bit_rate: BitRate::Cbr(target.bitrate_bps.min(6 * target.sample_rate * u32::from(channels)).max(8_000)),
        sample_rate: target.sample_rate,
        transport: Transport::Raw,
        channels: if channels == 1 { ChannelMode::Mono } else { ChannelMode::Stereo },
        audio_object_type: AudioObjectType::Mpeg4LowComplexity,
    })
    .map_err(failed)?;
    let info = inner.info().map_err(failed)?;
    let shape = AudioShape { sample_rate: target.sample_rate, channels };
    let written = info.confBuf.get(..info.confSize as usize).filter(|c| AudioSpecificConfig::parse(c).is_ok());
    let config = written.map_or_else(
        || AudioSpecificConfig { object_type: OBJECT_AAC_LC, sample_rate: shape.sample_rate, channels }.to_bytes(),
        Bytes::copy_from_slice,
    );
    Ok(Box::new(FdkEncoder {
        inner,
        config,
        shape,
        latency: info.nDelay as usize,
        input: Vec::with_capacity(FRAME * 2),
        scratch: Box::new([0; PACKET_MAX]),
    }))
}

impl AudioEncoder for FdkEncoder {
    fn frame_samples(&self) -> usize {
        FRAME
    }

    fn latency_samples(&self) -> usize {
        self.latency
    }

    fn encode(&mut self, samples: &[f32]) -> Result<Option<Bytes>, CodecError> {
        let broken = |why| CodecError::Broken { codec: Codec::Aac, role: "encoder", why };
        self.input.clear();
        self.input.extend(samples.iter().map(|&x| (x * 32_768.0) as i16));
        let done = self.inner.encode(&self.input, &mut self.scratch[..]).map_err(|e| broken(LibraryError::Fdk(e.to_string())))?;
        if done.input_consumed != samples.len() {
            return Err(broken(LibraryError::Unexpected("input left over")));
        }
        Ok((done.output_size > 0).then(|| Bytes::copy_from_slice(&self.scratch[..done.output_size.min(PACKET_MAX)])))
    }

    fn track_info(&self) -> TrackInfo {
        TrackInfo::audio(Codec::Aac, self.config.clone(), self.shape)
    }
}

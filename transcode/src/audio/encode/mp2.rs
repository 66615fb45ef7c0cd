//! MPEG-1 audio layer II by libavcodec: fixed frames of 1152 samples, a few milliseconds of delay, little CPU.

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::ChannelLayout;
use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::{AudioShape, AudioTarget, Codec, TrackInfo};

use super::check_target;
use crate::audio::AudioEncoder;
use crate::error::{CodecError, LibraryError};
use crate::ff;

/// Samples per frame of layer II (ISO/IEC 11172-3 §2.4.2.1).
const FRAME: usize = 1_152;
/// The filter banks of encoder and decoder together: 512 - 32 + 1.
const LATENCY: usize = 481;
/// Sampling frequencies of MPEG-1 audio.
const SAMPLE_RATES: [u32; 3] = [32_000, 44_100, 48_000];
/// Bitrates that layer II allows for one channel and for two, kbit/s (ISO/IEC 11172-3 §2.4.2.3).
const MONO: &[u32] = &[32, 48, 56, 64, 80, 96, 112, 128, 160, 192];
const STEREO: &[u32] = &[64, 96, 112, 128, 160, 192, 224, 256, 320, 384];

struct Mp2Encoder {
    inner: ffmpeg::encoder::Audio,
    frame: ffmpeg::frame::Audio,
    packet: ffmpeg::Packet,
    shape: AudioShape,
    fed: i64,
}

/// The largest legal bitrate that is not above `wanted`, else the smallest.
fn legal_bitrate(wanted: u32, channels: u8) -> u32 {
    let legal = if channels == 1 { MONO } else { STEREO };
    legal.iter().rev().find(|&&k| k * 1_000 <= wanted).unwrap_or(&legal[0]) * 1_000
}

/// Opens an encoder; the rate must be one of MPEG-1's own.
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    check_target(target)?;
    if !SAMPLE_RATES.contains(&target.sample_rate) {
        return Err(CodecError::Target(*target));
    }
    ff::init();
    let failed = |why: LibraryError| CodecError::Open { codec: Codec::Mp2, role: "encoder", why };
    let channels = target.channels.clamp(1, 2);
    let layout = ChannelLayout::default(i32::from(channels));
    let format = Sample::I16(Type::Packed);
    let library = ffmpeg::encoder::find_by_name("mp2").ok_or(failed(LibraryError::Missing))?;
    let context = ffmpeg::codec::Context::new_with_codec(library);
    let mut setup = context.encoder().audio().map_err(|e| failed(e.into()))?;
    setup.set_rate(target.sample_rate as i32);
    setup.set_channel_layout(layout);
    #[allow(deprecated)]
    setup.set_channels(i32::from(channels));
    setup.set_format(format);
    setup.set_bit_rate(legal_bitrate(target.bitrate_bps, channels) as usize);
    setup.set_time_base((1, target.sample_rate as i32));
    let inner = setup.open_as(library).map_err(|e| failed(e.into()))?;
    let shape = AudioShape { sample_rate: target.sample_rate, channels };
    let mut frame = ffmpeg::frame::Audio::new(format, FRAME, layout);
    frame.set_rate(target.sample_rate);
    Ok(Box::new(Mp2Encoder { inner, frame, packet: ffmpeg::Packet::empty(), shape, fed: 0 }))
}

impl AudioEncoder for Mp2Encoder {
    fn frame_samples(&self) -> usize {
        FRAME
    }

    fn latency_samples(&self) -> usize {
        LATENCY
    }

    fn encode(&mut self, samples: &[f32]) -> Result<Option<Bytes>, CodecError> {
        let broken = |why: LibraryError| CodecError::Broken { codec: Codec::Mp2, role: "encoder", why };
        // SAFETY: the frame is live; the call leaves its data exclusively ours (the encoder may still hold a
        // reference to the buffer of the last call).
        let rc = unsafe { ffmpeg::ffi::av_frame_make_writable(self.frame.as_mut_ptr()) };
        if rc < 0 {
            return Err(broken(ffmpeg::Error::from(rc).into()));
        }
        // The cast saturates, so what is too loud clips and does not wrap.
        for (slot, &x) in self.frame.data_mut(0).chunks_exact_mut(2).zip(samples) {
            slot.copy_from_slice(&((x * 32_768.0) as i16).to_ne_bytes());
        }
        self.frame.set_pts(Some(self.fed));
        self.fed += FRAME as i64;
        self.inner.send_frame(&self.frame).map_err(|e| broken(e.into()))?;
        match self.inner.receive_packet(&mut self.packet) {
            Ok(()) => Ok(self.packet.data().map(Bytes::copy_from_slice)),
            Err(e) if ff::is_dry(&e) => Ok(None),
            Err(e) => Err(broken(e.into())),
        }
    }

    fn track_info(&self) -> TrackInfo {
        TrackInfo::audio(Codec::Mp2, Bytes::new(), self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitrates_are_the_legal_ones_for_the_channel_count() {
        let cases =
            [(0, 1, 32), (96_000, 1, 96), (100_000, 1, 96), (384_000, 1, 192), (32_000, 2, 64), (127_999, 2, 112), (u32::MAX, 2, 384)];
        for (wanted, channels, kilobits) in cases {
            assert_eq!(legal_bitrate(wanted, channels), kilobits * 1_000, "{wanted} for {channels}");
            let target = AudioTarget { codec: Codec::Mp2, sample_rate: 44_100, channels, bitrate_bps: wanted };
            assert!(open(&target).is_ok(), "{target:?} does not open");
        }
    }
}

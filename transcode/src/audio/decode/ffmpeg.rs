//! Every audio codec libavcodec decodes (Opus excepted), to interleaved floats.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::{Codec, MediaTime, TrackInfo};

use crate::audio::{AudioDecoder, Pcm};
use crate::engine::check_audio;
use crate::error::{CodecError, LibraryError};
use crate::ff::{self, DecoderSetup};

struct FfmpegDecoder {
    codec: Codec,
    inner: ffmpeg::decoder::Audio,
    frame: ffmpeg::frame::Audio,
}

/// Opens libavcodec's decoder for `info`.
pub(crate) fn open(info: &TrackInfo) -> Result<Box<dyn AudioDecoder>, CodecError> {
    let codec = info.codec;
    let shape = info.audio_shape().copied().unwrap_or_default();
    check_audio(shape.sample_rate, shape.channels)?;
    // Only these carry no header of their own.
    let raw = matches!(codec, Codec::Pcma | Codec::Pcmu | Codec::G722);
    let audio = raw.then(|| {
        let rate = if codec == Codec::G722 { 16_000 } else { shape.sample_rate.max(8_000) };
        (rate, if codec == Codec::G722 { 1 } else { shape.channels.max(1) })
    });
    let opened = ff::open_decoder(codec, &DecoderSetup { extradata: &info.config, audio, ..DecoderSetup::default() })?;
    let inner = opened.audio().map_err(|e| CodecError::Open { codec, role: "decoder", why: e.into() })?;
    Ok(Box::new(FfmpegDecoder { codec, inner, frame: ffmpeg::frame::Audio::empty() }))
}

impl FfmpegDecoder {
    fn bad(&self, why: impl Into<LibraryError>) -> CodecError {
        CodecError::Packet { codec: self.codec, why: why.into() }
    }

    /// Takes the samples of `self.frame`.
    fn take(&self, out: &mut Pcm) -> Result<(), CodecError> {
        let (rate, channels) = frame_format(&self.frame);
        let n = self.frame.samples();
        if n == 0 {
            return Ok(());
        }
        let channels = u8::try_from(channels).map_err(|_| self.bad(LibraryError::Unexpected("channel count")))?;
        check_audio(rate, channels)?;
        if rate == 0 || channels == 0 {
            return Err(self.bad(LibraryError::Unexpected("sound without rate or channels")));
        }
        if out.samples.is_empty() {
            (out.rate, out.channels) = (rate, channels);
        } else if (out.rate, out.channels) != (rate, channels) {
            return Err(self.bad(LibraryError::Unexpected("format change inside a packet")));
        }
        if append(&self.frame, usize::from(channels), n, &mut out.samples) {
            Ok(())
        } else {
            Err(self.bad(LibraryError::Unexpected("sample format")))
        }
    }
}

impl AudioDecoder for FfmpegDecoder {
    fn decode(&mut self, packet: &[u8], out: &mut Pcm) -> Result<(), CodecError> {
        // The clock of the samples is kept by the pipeline; the decoder sees none.
        let packet = ff::packet(self.codec, packet, MediaTime::ZERO, MediaTime::ZERO)?;
        self.inner.send_packet(&packet).map_err(|e| self.bad(e))?;
        loop {
            match self.inner.receive_frame(&mut self.frame) {
                Ok(()) => self.take(out)?,
                Err(e) if ff::is_dry(&e) => return Ok(()),
                Err(e) => return Err(self.bad(e)),
            }
        }
    }

    fn conceal(&mut self, _: usize, _: Option<&[u8]>, _: &mut Pcm) {}
}

fn frame_format(frame: &ffmpeg::frame::Audio) -> (u32, i32) {
    // SAFETY: plain fields of a live AVFrame.
    unsafe { ((*frame.as_ptr()).sample_rate.max(0) as u32, (*frame.as_ptr()).ch_layout.nb_channels) }
}

/// Appends the frame's samples, interleaved; false for a sample format no supported decoder has.
fn append(frame: &ffmpeg::frame::Audio, channels: usize, n: usize, out: &mut Vec<f32>) -> bool {
    match frame.format() {
        Sample::F32(kind) => copy::<f32>(frame, kind, channels, n, out, |x| x),
        Sample::I16(kind) => copy::<i16>(frame, kind, channels, n, out, |x| f32::from(x) / 32_768.0),
        Sample::I32(kind) => copy::<i32>(frame, kind, channels, n, out, |x| (f64::from(x) / 2_147_483_648.0) as f32),
        _ => return false,
    }
    true
}

fn copy<T: Copy>(frame: &ffmpeg::frame::Audio, kind: Type, channels: usize, n: usize, out: &mut Vec<f32>, to: impl Fn(T) -> f32) {
    let (planes, per_plane) = match kind {
        Type::Packed => (1, n * channels),
        Type::Planar => (channels, n),
    };
    let begin = out.len();
    out.resize(begin + n * channels, 0.0);
    let out = &mut out[begin..];
    for plane in 0..planes {
        // SAFETY: a decoded frame has `planes` planes of `nb_samples` (times channels when packed) values of its
        // sample format, as libavutil lays out; planar audio beyond 8 planes continues in extended_data.
        let data: &[T] = unsafe {
            let planes: *mut *mut u8 = (*frame.as_ptr()).extended_data;
            let first = *planes.add(plane);
            if first.is_null() {
                continue;
            }
            std::slice::from_raw_parts(first.cast::<T>(), per_plane)
        };
        for (slot, &value) in out[plane..].iter_mut().step_by(planes).zip(data) {
            let value = to(value);
            // Damaged floats can be anything; the filters after this must not see NaN.
            *slot = if value.is_finite() { value.clamp(-4.0, 4.0) } else { 0.0 };
        }
    }
}

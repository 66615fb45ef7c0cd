//! Sound encoders of libavcodec: opened by a description, fed with frames of fixed length.

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::ChannelLayout;
use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::{AudioShape, AudioTarget, Codec, TrackInfo};

use super::check_target;
use crate::audio::AudioEncoder;
use crate::error::{CodecError, LibraryError};
use crate::ff;

/// What one of libavcodec's encoders is opened with.
pub(super) struct Description {
    pub(super) codec: Codec,
    /// libavcodec's name for it.
    pub(super) name: &'static str,
    /// Sample format it takes: packed 16-bit or planar float.
    pub(super) format: Sample,
    /// Samples per frame and channel.
    pub(super) frame: usize,
    /// See [`AudioEncoder::latency_samples`].
    pub(super) latency: usize,
    /// Bits per second; 0 where the codec has one rate.
    pub(super) bitrate_bps: usize,
    pub(super) options: &'static [(&'static str, &'static str)],
    /// Whether its configuration belongs to the track and not into each frame.
    pub(super) global_header: bool,
}

pub(super) struct LibraryEncoder {
    inner: ffmpeg::encoder::Audio,
    frame: ffmpeg::frame::Audio,
    packet: ffmpeg::Packet,
    description: Description,
    shape: AudioShape,
    fed: i64,
    /// Configuration of the track.
    pub(super) config: Bytes,
}

impl LibraryEncoder {
    /// Opens the encoder for the rate and channels of `target`.
    pub(super) fn open(description: Description, target: &AudioTarget) -> Result<Self, CodecError> {
        check_target(target)?;
        ff::init();
        let codec = description.codec;
        let failed = |why: LibraryError| CodecError::Open { codec, role: "encoder", why };
        let channels = target.channels.clamp(1, 2);
        let layout = ChannelLayout::default(i32::from(channels));
        let library = ffmpeg::encoder::find_by_name(description.name).ok_or(failed(LibraryError::Missing))?;
        let context = ffmpeg::codec::Context::new_with_codec(library);
        let mut setup = context.encoder().audio().map_err(|e| failed(e.into()))?;
        setup.set_rate(target.sample_rate as i32);
        setup.set_channel_layout(layout);
        #[allow(deprecated)]
        setup.set_channels(i32::from(channels));
        setup.set_format(description.format);
        setup.set_time_base((1, target.sample_rate as i32));
        if description.bitrate_bps > 0 {
            setup.set_bit_rate(description.bitrate_bps);
        }
        if description.global_header {
            setup.set_flags(ffmpeg::codec::Flags::GLOBAL_HEADER);
        }
        let mut options = ffmpeg::Dictionary::new();
        description.options.iter().for_each(|(key, value)| options.set(key, value));
        let inner = setup.open_as_with(library, options).map_err(|e| failed(e.into()))?;
        let config = Bytes::from(ff::extradata(&inner));
        let mut frame = ffmpeg::frame::Audio::new(description.format, description.frame, layout);
        frame.set_rate(target.sample_rate);
        let shape = AudioShape { sample_rate: target.sample_rate, channels };
        Ok(Self { inner, frame, packet: ffmpeg::Packet::empty(), description, shape, fed: 0, config })
    }

    /// Writes interleaved samples in the encoder's format.
    fn fill(&mut self, samples: &[f32]) {
        match self.description.format {
            Sample::F32(Type::Planar) => {
                let channels = usize::from(self.shape.channels);
                for channel in 0..channels {
                    let plane = self.frame.plane_mut::<f32>(channel);
                    for (slot, value) in plane.iter_mut().zip(samples[channel..].iter().step_by(channels)) {
                        *slot = *value;
                    }
                }
            }
            _ => {
                // The cast saturates, so what is too loud clips and does not wrap.
                for (slot, &x) in self.frame.data_mut(0).chunks_exact_mut(2).zip(samples) {
                    slot.copy_from_slice(&((x * 32_768.0) as i16).to_ne_bytes());
                }
            }
        }
    }
}

impl AudioEncoder for LibraryEncoder {
    fn frame_samples(&self) -> usize {
        self.description.frame
    }

    fn latency_samples(&self) -> usize {
        self.description.latency
    }

    fn encode(&mut self, samples: &[f32]) -> Result<Option<Bytes>, CodecError> {
        let codec = self.description.codec;
        let broken = |why: LibraryError| CodecError::Broken { codec, role: "encoder", why };
        // SAFETY: the frame is live; the call leaves its data exclusively ours (the encoder may still hold a
        // reference to the buffer of the last call).
        let rc = unsafe { ffmpeg::ffi::av_frame_make_writable(self.frame.as_mut_ptr()) };
        if rc < 0 {
            return Err(broken(ffmpeg::Error::from(rc).into()));
        }
        self.fill(samples);
        self.frame.set_pts(Some(self.fed));
        self.fed += self.description.frame as i64;
        self.inner.send_frame(&self.frame).map_err(|e| broken(e.into()))?;
        match self.inner.receive_packet(&mut self.packet) {
            Ok(()) => Ok(self.packet.data().map(Bytes::copy_from_slice)),
            Err(e) if ff::is_dry(&e) => Ok(None),
            Err(e) => Err(broken(e.into())),
        }
    }

    fn track_info(&self) -> TrackInfo {
        TrackInfo::audio(self.description.codec, self.config.clone(), self.shape)
    }
}

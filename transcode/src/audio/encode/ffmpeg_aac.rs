//! AAC-LC by libavcodec's own encoder, for builds without fdk-aac.

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::ChannelLayout;
use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::aac::{AudioSpecificConfig, OBJECT_AAC_LC};
use patchbay_media::{AudioShape, AudioTarget, Codec, TrackInfo};

use super::check_target;
use crate::audio::AudioEncoder;
use crate::error::{CodecError, LibraryError};
use crate::ff;

/// Samples per AAC-LC frame.
const FRAME: usize = 1_024;
/// One frame of MDCT overlap and one held back inside the encoder.
const LATENCY: usize = 2 * FRAME;

struct NativeEncoder {
    inner: ffmpeg::encoder::Audio,
    frame: ffmpeg::frame::Audio,
    packet: ffmpeg::Packet,
    shape: AudioShape,
    config: Bytes,
    fed: i64,
}

/// Opens an AAC-LC encoder with the fast coder: a third of the default's CPU.
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    check_target(target)?;
    ff::init();
    let failed = |why: LibraryError| CodecError::Open { codec: Codec::Aac, role: "encoder", why };
    let channels = target.channels.clamp(1, 2);
    let layout = ChannelLayout::default(i32::from(channels));
    let format = Sample::F32(Type::Planar);
    let library = ffmpeg::encoder::find_by_name("aac").ok_or(failed(LibraryError::Missing))?;
    let context = ffmpeg::codec::Context::new_with_codec(library);
    let mut setup = context.encoder().audio().map_err(|e| failed(e.into()))?;
    setup.set_rate(target.sample_rate as i32);
    setup.set_channel_layout(layout);
    #[allow(deprecated)]
    setup.set_channels(i32::from(channels));
    setup.set_format(format);
    setup.set_bit_rate(target.bitrate_bps as usize);
    setup.set_time_base((1, target.sample_rate as i32));
    setup.set_flags(ffmpeg::codec::Flags::GLOBAL_HEADER);
    let mut options = ffmpeg::Dictionary::new();
    options.set("aac_coder", "fast");
    options.set("threads", "1");
    let inner = setup.open_as_with(library, options).map_err(|e| failed(e.into()))?;
    let shape = AudioShape { sample_rate: target.sample_rate, channels };
    let config = Bytes::from(ff::extradata(&inner));
    let config = if AudioSpecificConfig::parse(&config).is_ok() {
        config
    } else {
        AudioSpecificConfig { object_type: OBJECT_AAC_LC, sample_rate: shape.sample_rate, channels }.to_bytes()
    };
    let mut frame = ffmpeg::frame::Audio::new(format, FRAME, layout);
    frame.set_rate(target.sample_rate);
    Ok(Box::new(NativeEncoder { inner, frame, packet: ffmpeg::Packet::empty(), shape, config, fed: 0 }))
}

impl AudioEncoder for NativeEncoder {
    fn frame_samples(&self) -> usize {
        FRAME
    }

    fn latency_samples(&self) -> usize {
        LATENCY
    }

    fn encode(&mut self, samples: &[f32]) -> Result<Option<Bytes>, CodecError> {
        let broken = |why: LibraryError| CodecError::Broken { codec: Codec::Aac, role: "encoder", why };
        // SAFETY: the frame is live; the call leaves its data exclusively ours (the encoder may still hold a
        // reference to the buffer of the last call).
        let rc = unsafe { ffmpeg::ffi::av_frame_make_writable(self.frame.as_mut_ptr()) };
        if rc < 0 {
            return Err(broken(ffmpeg::Error::from(rc).into()));
        }
        let channels = usize::from(self.shape.channels);
        for channel in 0..channels {
            let plane = self.frame.plane_mut::<f32>(channel);
            for (slot, value) in plane.iter_mut().zip(samples[channel..].iter().step_by(channels)) {
                *slot = *value;
            }
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
        TrackInfo::audio(Codec::Aac, self.config.clone(), self.shape)
    }
}

//! Encoders for pictures and samples that are made in this process (a test picture, later a mixer), with the same
//! codecs as the renditions. Everything here is codec work: call it from a thread of your own.

use ffmpeg_next as ffmpeg;
use patchbay_media::{AudioTarget, Frame, MediaTime, TrackInfo, VideoTarget};

use crate::audio::AudioEncoder;
use crate::error::CodecError;
use crate::video::{Picture, VideoEncoder};
use crate::{ff, registry};

/// An I420 picture to paint on, and its encoder.
pub struct RawVideo {
    encoder: Box<dyn VideoEncoder>,
    picture: Picture,
}

/// One plane of an I420 picture.
pub struct Plane<'a> {
    /// Rows of `stride` bytes.
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

impl RawVideo {
    /// Opens an encoder for pictures of an even `width` and `height` at `frame_rate`.
    ///
    /// # Errors
    /// When there is no such encoder or it does not open.
    pub fn open(width: u32, height: u32, frame_rate: f64, target: &VideoTarget) -> Result<Self, CodecError> {
        ff::init();
        let frame = ffmpeg::frame::Video::new(ffmpeg::format::Pixel::YUV420P, width & !1, height & !1);
        let picture = Picture { frame, pts: MediaTime::ZERO, arrival: MediaTime::ZERO };
        Ok(Self { encoder: registry::video_encoder(target, &picture, frame_rate)?, picture })
    }

    /// The track that comes out.
    pub fn track_info(&self) -> &TrackInfo {
        self.encoder.track_info()
    }

    /// Luma (0) or chroma (1: Cb, 2: Cr, half width and height).
    pub fn plane(&mut self, index: usize) -> Plane<'_> {
        let stride = self.picture.frame.stride(index);
        Plane { data: self.picture.frame.data_mut(index), stride }
    }

    /// Encodes what was painted.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn encode(&mut self, pts: MediaTime, key: bool) -> Result<Option<Frame>, CodecError> {
        self.picture.pts = pts;
        self.picture.arrival = pts;
        let encoded = self.encoder.encode(&mut self.picture, key)?;
        Ok(encoded.map(|e| Frame { pts, dts: pts, duration: MediaTime::ZERO, key: e.key, loss: 0, arrival: pts, payload: e.payload }))
    }
}

/// An encoder for samples.
pub struct RawAudio {
    encoder: Box<dyn AudioEncoder>,
    rate: u32,
}

impl RawAudio {
    /// Opens an encoder.
    ///
    /// # Errors
    /// When there is no such encoder or it does not open.
    pub fn open(target: &AudioTarget) -> Result<Self, CodecError> {
        ff::init();
        Ok(Self { encoder: registry::audio_encoder(target)?, rate: target.sample_rate })
    }

    /// The track that comes out.
    pub fn track_info(&self) -> TrackInfo {
        self.encoder.track_info()
    }

    /// Samples per channel that [`Self::encode`] takes.
    pub fn frame_samples(&self) -> usize {
        self.encoder.frame_samples()
    }

    /// Encodes one frame of interleaved samples heard from `pts` on.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn encode(&mut self, samples: &[f32], pts: MediaTime) -> Result<Option<Frame>, CodecError> {
        let duration = MediaTime::from_ticks(self.frame_samples() as i64, self.rate);
        let pts = pts - MediaTime::from_ticks(self.encoder.latency_samples() as i64, self.rate);
        let payload = self.encoder.encode(samples)?;
        Ok(payload.map(|payload| Frame { pts, dts: pts, duration, key: true, loss: 0, arrival: pts + duration, payload }))
    }
}

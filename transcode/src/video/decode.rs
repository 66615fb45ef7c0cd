//! Every video codec libavcodec decodes, one thread each; what is too large is refused before a decoder is opened.

use std::collections::VecDeque;

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use patchbay_media::h264::{ParameterSets, SIDE_MAX};
use patchbay_media::{Codec, Frame, MediaTime, TrackInfo};

use super::{Picture, VideoDecoder};
use crate::engine::within;
use crate::error::{CodecError, LibraryError};
use crate::ff::{self, DecoderSetup};
use crate::limits::AREA_MAX;

/// Packets whose picture may still come: the deepest reordering H.264 allows is 16.
const PENDING_MAX: usize = 64;

struct FfmpegVideoDecoder {
    codec: Codec,
    inner: ffmpeg::decoder::Video,
    /// Presentation time and arrival of packets inside the decoder.
    pending: VecDeque<(i64, MediaTime)>,
    hurried: bool,
}

/// Opens libavcodec's decoder for `info`.
pub(crate) fn open(info: &TrackInfo) -> Result<Box<dyn VideoDecoder>, CodecError> {
    let codec = info.codec;
    let mut config = info.config.clone();
    if codec == Codec::H264 {
        let (sets, _) = ParameterSets::from_avcc(&info.config)?;
        let shape = sets.shape()?;
        check_size(shape.width, shape.height)?;
        // The record of a source may claim other length prefixes than the bus's four bytes.
        config = sets.to_avcc().unwrap_or_else(Bytes::new);
    }
    if let Some(shape) = info.video_shape() {
        check_size(shape.width, shape.height)?;
    }
    let opened = ff::open_decoder(codec, &DecoderSetup { extradata: &config, audio: None })?;
    let inner = opened.video().map_err(|e| CodecError::Open { codec, role: "decoder", why: e.into() })?;
    Ok(Box::new(FfmpegVideoDecoder { codec, inner, pending: VecDeque::new(), hurried: false }))
}

/// Refuses pictures beyond the limits.
pub(super) fn check_size(width: u32, height: u32) -> Result<(), CodecError> {
    within("picture width", u64::from(width), u64::from(SIDE_MAX))?;
    within("picture height", u64::from(height), u64::from(SIDE_MAX))?;
    within("picture area", u64::from(width) * u64::from(height), AREA_MAX)
}

impl FfmpegVideoDecoder {
    fn bad(&self, why: impl Into<LibraryError>) -> CodecError {
        CodecError::Packet { codec: self.codec, why: why.into() }
    }

    /// When the packet with this presentation time arrived; forgets older ones.
    fn arrival(&mut self, pts: i64) -> Option<MediaTime> {
        let at = self.pending.iter().position(|&(p, _)| p == pts)?;
        self.pending.remove(at).map(|(_, arrival)| arrival)
    }
}

impl VideoDecoder for FfmpegVideoDecoder {
    fn send(&mut self, frame: &Frame) -> Result<(), CodecError> {
        let packet = ff::packet(self.codec, &frame.payload, frame.pts, frame.dts)?;
        if self.pending.len() >= PENDING_MAX {
            self.pending.pop_front();
        }
        self.pending.push_back((frame.pts.as_nanos(), frame.arrival));
        self.inner.send_packet(&packet).map_err(|e| self.bad(e))
    }

    fn receive(&mut self) -> Result<Option<Picture>, CodecError> {
        let mut frame = ffmpeg::frame::Video::empty();
        match self.inner.receive_frame(&mut frame) {
            Ok(()) => {}
            Err(e) if ff::is_dry(&e) => return Ok(None),
            Err(e) => return Err(self.bad(e)),
        }
        check_size(frame.width(), frame.height())?;
        let pts = frame.pts().or_else(|| frame.timestamp()).or_else(|| self.pending.front().map(|&(p, _)| p));
        let pts = pts.ok_or_else(|| self.bad(LibraryError::Unexpected("picture without time")))?;
        let fallback = self.pending.back().map_or(MediaTime::ZERO, |&(_, arrival)| arrival);
        let arrival = self.arrival(pts).unwrap_or(fallback);
        Ok(Some(Picture { frame, pts: MediaTime::from_nanos(pts), arrival }))
    }

    fn drain(&mut self) {
        // Fails only when it is drained already.
        let _ = self.inner.send_eof();
    }

    fn hurry(&mut self, on: bool) {
        if std::mem::replace(&mut self.hurried, on) != on {
            self.inner.skip_frame(if on { ffmpeg::Discard::NonReference } else { ffmpeg::Discard::Default });
        }
    }
}

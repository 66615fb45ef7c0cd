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
/// How far into a picture its header is looked for.
const HEADERS_MAX: usize = 512;

struct FfmpegVideoDecoder {
    codec: Codec,
    inner: ffmpeg::decoder::Video,
    /// It was told that there are no B-pictures.
    low_delay: bool,
    /// It was opened anew in mid-group.
    needs_key: bool,
    /// Presentation time and arrival of packets inside the decoder.
    pending: VecDeque<(i64, MediaTime)>,
    hurried: bool,
}

/// Whether an MPEG-1 or MPEG-2 picture is bidirectional: `picture_coding_type` 3 (ISO/IEC 13818-2 §6.3.9).
fn is_b_picture(payload: &[u8]) -> bool {
    // Headers of a sequence or group come first; a B-picture has neither, but user data may.
    let header = payload.windows(6).take(HEADERS_MAX).find(|w| w[..4] == [0, 0, 1, 0]);
    header.is_some_and(|w| w[5] >> 3 & 7 == 3)
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
    // Without being told, these decoders hold back one picture in case the next is a B-picture.
    let low_delay = matches!(codec, Codec::Mpeg1 | Codec::Mpeg2) && info.video_shape().is_none_or(|v| v.reorder_frames == 0);
    let inner = open_library(codec, &config, low_delay)?;
    Ok(Box::new(FfmpegVideoDecoder { codec, inner, low_delay, needs_key: false, pending: VecDeque::new(), hurried: false }))
}

fn open_library(codec: Codec, extradata: &[u8], low_delay: bool) -> Result<ffmpeg::decoder::Video, CodecError> {
    let opened = ff::open_decoder(codec, &DecoderSetup { extradata, low_delay, ..DecoderSetup::default() })?;
    opened.video().map_err(|e| CodecError::Open { codec, role: "decoder", why: e.into() })
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
        if self.low_delay && is_b_picture(&frame.payload) {
            // MPEG-1 and MPEG-2 do not announce B-pictures. One that comes after all costs the rest of its group once.
            self.inner = open_library(self.codec, &[], false)?;
            (self.low_delay, self.needs_key) = (false, true);
            self.pending.clear();
        }
        self.needs_key &= !frame.key;
        if self.needs_key {
            return Ok(());
        }
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

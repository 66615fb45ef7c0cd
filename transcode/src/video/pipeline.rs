//! One video rendition: decode, catch up with live, limit the rate, scale, encode without reordering.

use std::sync::Arc;

use patchbay_bus::now;
use patchbay_media::h264::SIDE_MAX;
use patchbay_media::{Codec, Frame, MediaTime, TrackInfo, VideoTarget};

use super::decode::check_size;
use super::scale::Scaler;
use super::{Picture, VideoDecoder, VideoEncoder, encode_mpeg1};
use crate::error::CodecError;
use crate::registry;
use crate::rendition::{Output, Stage};

/// Behind its source by more than this, a pipeline decodes without encoding…
const LATE: MediaTime = MediaTime::from_secs(1);
/// …until it is this close again. A pipeline starts that way: the newest group may be seconds long.
const NEAR: MediaTime = MediaTime::from_millis(200);
/// Undecodable packets in a row after which the decoder is rebuilt.
const BAD_MAX: u32 = 30;
/// A picture this much before the last one belongs to a source clock that was set anew.
const JUMP_BACK: MediaTime = MediaTime::from_secs(2);
/// Assumed where the source does not say.
const FRAME_RATE: f64 = 30.0;

pub(crate) struct VideoStage {
    target: VideoTarget,
    info: Option<Arc<TrackInfo>>,
    decoder: Option<Box<dyn VideoDecoder>>,
    encoder: Option<Box<dyn VideoEncoder>>,
    scaler: Scaler,
    catching_up: bool,
    /// The newest picture that was decoded but not encoded while catching up.
    held: Option<Picture>,
    last_pts: Option<MediaTime>,
    last_key: Option<MediaTime>,
    /// Earliest time of the next picture when the frame rate is limited.
    next_due: Option<MediaTime>,
    /// Frames missing before the next one that goes out.
    loss: u32,
    bad: u32,
}

impl VideoStage {
    /// A stage for `target`.
    pub(crate) fn new(mut target: VideoTarget) -> Result<Self, CodecError> {
        if let Some((width, height)) = target.size {
            check_size(width, height)?;
        }
        if target.codec == Codec::Mpeg1 {
            let legal = encode_mpeg1::FRAME_RATE_MAX;
            target.frame_rate_max = Some(target.frame_rate_max.map_or(legal, |max| max.min(legal)));
        }
        Ok(Self {
            target,
            info: None,
            decoder: None,
            encoder: None,
            scaler: Scaler::default(),
            catching_up: true,
            held: None,
            last_pts: None,
            last_key: None,
            next_due: None,
            loss: 0,
            bad: 0,
        })
    }

    fn frame_rate(&self) -> f64 {
        let source = self.info.as_ref().and_then(|i| i.video_shape()).and_then(|v| v.frame_rate);
        let source = source.filter(|r| (1.0..=240.0).contains(r)).unwrap_or(FRAME_RATE);
        self.target.frame_rate_max.map_or(source, |max| source.min(f64::from(max.max(1))))
    }

    /// A packet was bad: counts it, or gives up on the decoder.
    fn tolerate(&mut self, error: CodecError, out: &mut Output<'_>) -> Result<(), CodecError> {
        if !error.is_packet() || self.bad >= BAD_MAX {
            return Err(error);
        }
        tracing::debug!(%error, "video packet counts as lost");
        self.bad += 1;
        self.loss = self.loss.saturating_add(1);
        out.dropped(1);
        out.ask_source_for_key();
        Ok(())
    }

    /// Encodes what the decoder has ready.
    fn receive(&mut self, out: &mut Output<'_>) -> Result<(), CodecError> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(()) };
            match decoder.receive() {
                Ok(Some(picture)) => {
                    self.bad = 0;
                    self.picture(picture, out)?;
                }
                Ok(None) => return Ok(()),
                // An error from here consumes the picture, so the loop comes to an end.
                Err(e) => self.tolerate(e, out)?,
            }
        }
    }

    fn picture(&mut self, picture: Picture, out: &mut Output<'_>) -> Result<(), CodecError> {
        if !self.catching_up {
            self.held = None;
            return self.encode(picture, out);
        }
        if self.held.replace(picture).is_some() && self.last_pts.is_some() {
            self.loss = self.loss.saturating_add(1);
            out.dropped(1);
        }
        Ok(())
    }

    /// Whether the frame-rate limit leaves this picture out.
    fn is_surplus(&mut self, pts: MediaTime) -> bool {
        let Some(max) = self.target.frame_rate_max else { return false };
        let interval = MediaTime::from_ticks(1, max.max(1));
        // Timestamps in milliseconds make a picture come up to one early.
        let slack = MediaTime::from_millis(2);
        if self.next_due.is_some_and(|due| pts + slack < due && due - pts <= interval) {
            return true;
        }
        let due = self.next_due.filter(|&due| pts - due < interval).unwrap_or(pts);
        self.next_due = Some(due + interval);
        false
    }

    fn encode(&mut self, picture: Picture, out: &mut Output<'_>) -> Result<(), CodecError> {
        if self.last_pts.is_some_and(|last| last - picture.pts > JUMP_BACK) {
            self.encoder = None;
            (self.last_pts, self.last_key, self.next_due) = (None, None, None);
        }
        if self.last_pts.is_some_and(|last| picture.pts <= last) || self.is_surplus(picture.pts) {
            return Ok(());
        }
        let source = (picture.frame.width(), picture.frame.height());
        let codec = self.target.codec;
        let size = coded_size(codec, self.target.size.unwrap_or(source));
        // MPEG-1 has no sign for full-range samples; H.264 has, and keeps them.
        let mut picture =
            self.scaler.fit(picture, size, codec == Codec::H264).map_err(|why| CodecError::Broken { codec, role: "scaler", why })?;
        let gop = MediaTime::from_millis(i64::from(self.target.gop_ms.max(1)));
        let mut key = self.last_key.is_none_or(|at| picture.pts - at >= gop);
        if self.encoder.as_ref().is_none_or(|e| !e.fits(&picture)) {
            let encoder = registry::video_encoder(&self.target, &picture, self.frame_rate())?;
            out.set_info(encoder.track_info().clone());
            self.encoder = Some(encoder);
            key = true;
        }
        key |= out.track().keyframes().take(now());
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let Some(encoded) = encoder.encode(&mut picture, key)? else { return Ok(()) };
        let duration = self.last_pts.map_or(MediaTime::ZERO, |last| (picture.pts - last).min(MediaTime::from_secs(1)));
        self.last_pts = Some(picture.pts);
        if encoded.key {
            self.last_key = Some(picture.pts);
        }
        let loss = std::mem::take(&mut self.loss);
        let (pts, arrival) = (picture.pts, picture.arrival);
        out.push(Frame { pts, dts: pts, duration, key: encoded.key, loss, arrival, payload: encoded.payload });
        Ok(())
    }

    /// Takes what the old decoder still holds.
    fn drain(&mut self, out: &mut Output<'_>) -> Result<(), CodecError> {
        if let Some(decoder) = &mut self.decoder {
            decoder.drain();
        }
        let result = self.receive(out);
        self.decoder = None;
        result
    }
}

/// The size that is encoded where `wanted` was asked for: 4:2:0 has no odd sizes, and MPEG-1 an upper limit, under
/// which the picture keeps its shape.
fn coded_size(codec: Codec, (width, height): (u32, u32)) -> (u32, u32) {
    let max = if codec == Codec::Mpeg1 { encode_mpeg1::SIDE_MAX } else { SIDE_MAX };
    let longest = width.max(height).max(1);
    let side = |side: u32| {
        let fitted = if longest > max { (u64::from(side) * u64::from(max) / u64::from(longest)) as u32 } else { side };
        (fitted & !1).max(16)
    };
    (side(width), side(height))
}

impl Stage for VideoStage {
    fn describe(&mut self, info: &Arc<TrackInfo>, out: &mut Output<'_>) -> Result<(), CodecError> {
        let same = self.info.as_ref().is_some_and(|old| old.codec == info.codec && old.config == info.config);
        let drained = if same { Ok(()) } else { self.drain(out) };
        self.info = Some(info.clone());
        drained
    }

    fn frame(&mut self, frame: &Frame, out: &mut Output<'_>) -> Result<(), CodecError> {
        if self.decoder.is_none() {
            let Some(info) = self.info.clone().filter(|_| frame.key) else {
                out.dropped(1);
                return Ok(());
            };
            self.decoder = Some(registry::video_decoder(&info)?);
        }
        let lag = now() - frame.arrival;
        self.catching_up = if self.catching_up { lag > NEAR } else { lag > LATE };
        self.loss = self.loss.saturating_add(frame.loss);
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        decoder.hurry(self.catching_up);
        if let Err(e) = decoder.send(frame) {
            self.tolerate(e, out)?;
        }
        self.receive(out)
    }

    fn gap(&mut self, frames: u64, out: &mut Output<'_>) {
        self.loss = self.loss.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX));
        // A group follows that does not refer to what the decoder still has; its pictures are still good.
        if let Err(error) = self.drain(out) {
            tracing::debug!(%error, "pictures before a gap are lost");
        }
    }

    fn idle(&mut self, _: MediaTime, out: &mut Output<'_>) -> Result<Option<MediaTime>, CodecError> {
        // All there is has been decoded: this is as near as it gets.
        if let Some(picture) = self.held.take() {
            self.encode(picture, out)?;
        }
        Ok(None)
    }

    fn finish(&mut self, out: &mut Output<'_>) {
        let result = self.drain(out).and_then(|()| self.held.take().map_or(Ok(()), |picture| self.encode(picture, out)));
        if let Err(error) = result {
            tracing::debug!(%error, "video tail is lost");
        }
    }

    fn reset(&mut self) {
        self.decoder = None;
        self.encoder = None;
        self.held = None;
        self.last_key = None;
        self.bad = 0;
        self.catching_up = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coded_sizes_are_even_and_within_the_codec_with_the_shape_kept() {
        for (codec, wanted, size) in [
            (Codec::Mpeg1, (641, 361), (640, 360)),
            (Codec::Mpeg1, (361, 640), (360, 640)),
            (Codec::Mpeg1, (7_680, 4_320), (4_094, 2_302)),
            (Codec::H264, (7_680, 4_320), (7_680, 4_320)),
            (Codec::H264, (0, u32::MAX), (16, 8_192)),
        ] {
            assert_eq!(coded_size(codec, wanted), size, "{codec} {wanted:?}");
        }
    }
}

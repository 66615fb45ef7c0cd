//! The encoding half of a video rendition: limit the rate, scale, encode without reordering.

use std::sync::Arc;

use patchbay_bus::{EndReason, Track, TrackWriter, now};
use patchbay_media::h264::SIDE_MAX;
use patchbay_media::{Codec, Frame, MediaTime, TrackInfo, VideoTarget};

use super::decode::check_size;
use super::scale::Scaler;
use super::share::{Next, Queue, Shown};
use super::{VideoEncoder, encode_mpeg1};
use crate::error::CodecError;
use crate::pool::{Actor, Ending, Turn};
use crate::registry;
use crate::rendition::{Failures, Output, TURN_MAX};
use crate::stats::{RenditionState, Stats, thread_cpu_ns};

/// A picture this much before the last one belongs to a source clock that was set anew.
const JUMP_BACK: MediaTime = MediaTime::from_secs(2);
/// Assumed where the source does not say.
const FRAME_RATE: f64 = 30.0;

pub(crate) struct EncodeStage {
    target: VideoTarget,
    info: Option<Arc<TrackInfo>>,
    encoder: Option<Box<dyn VideoEncoder>>,
    scaler: Scaler,
    last_pts: Option<MediaTime>,
    last_key: Option<MediaTime>,
    /// Earliest time of the next picture when the frame rate is limited.
    next_due: Option<MediaTime>,
    /// Frames missing before the next one that goes out.
    loss: u32,
}

impl EncodeStage {
    /// A stage for `target`.
    pub(crate) fn new(mut target: VideoTarget) -> Result<Self, CodecError> {
        if let Some((width, height)) = target.size {
            check_size(width, height)?;
        }
        if target.codec == Codec::Mpeg1 {
            let legal = encode_mpeg1::FRAME_RATE_MAX;
            target.frame_rate_max = Some(target.frame_rate_max.map_or(legal, |max| max.min(legal)));
        }
        Ok(Self { target, info: None, encoder: None, scaler: Scaler::default(), last_pts: None, last_key: None, next_due: None, loss: 0 })
    }

    fn frame_rate(&self) -> f64 {
        let source = self.info.as_ref().and_then(|i| i.video_shape()).and_then(|v| v.frame_rate);
        let source = source.filter(|r| (1.0..=240.0).contains(r)).unwrap_or(FRAME_RATE);
        self.target.frame_rate_max.map_or(source, |max| source.min(f64::from(max.max(1))))
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
        // A picture about on time sets the clock: where every second one is due it stays every second one, however the
        // source's clock drifts.
        let due = self.next_due.filter(|&due| pts - due < interval && (pts - due).abs() > slack).unwrap_or(pts);
        self.next_due = Some(due + interval);
        false
    }

    fn encode(&mut self, shown: Shown, out: &mut Output<'_>) -> Result<(), CodecError> {
        let Shown { picture, info, loss } = shown;
        self.info = Some(info);
        self.loss = self.loss.saturating_add(loss);
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

/// One rendition on the pool: takes pictures from its queue, writes frames to its track.
pub(crate) struct EncodeWorker {
    queue: Arc<Queue>,
    source: Arc<Track>,
    /// `None` once ended.
    writer: Option<TrackWriter>,
    stage: EncodeStage,
    stats: Arc<Stats>,
    failures: Failures,
    /// After a failure, pictures before this time are dropped.
    retry_at: Option<MediaTime>,
}

impl EncodeWorker {
    pub(crate) fn new(queue: Arc<Queue>, source: Arc<Track>, writer: TrackWriter, stage: EncodeStage, stats: Arc<Stats>) -> Self {
        Self { queue, source, writer: Some(writer), stage, stats, failures: Failures::default(), retry_at: None }
    }

    /// Encodes one picture; false when that failed once too often.
    fn picture(&mut self, shown: Shown) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        if self.retry_at.is_some_and(|at| now() < at) {
            self.stats.dropped(1);
            self.stage.loss = self.stage.loss.saturating_add(shown.loss).saturating_add(1);
            return true;
        }
        let Err(error) = self.stage.encode(shown, &mut Output::new(writer, &self.stats, &self.source)) else { return true };
        tracing::warn!(track = self.source.uid(), %error, "encoding failed; rebuilding the encoder");
        self.stats.dropped(1);
        self.stage.loss = self.stage.loss.saturating_add(1);
        self.stage.encoder = None;
        self.stage.last_key = None;
        self.retry_at = self.failures.note(now());
        if self.retry_at.is_some() {
            self.stats.restarted();
        }
        self.retry_at.is_some()
    }

    fn end(&mut self, reason: EndReason, state: RenditionState) -> Turn {
        self.stats.set_state(state);
        if let Some(writer) = self.writer.take() {
            writer.end(reason);
        }
        Turn::Done
    }

    fn pictures(&mut self) -> Turn {
        let begun = now();
        loop {
            match self.queue.pop() {
                Next::Picture(shown) => {
                    if !self.picture(shown) {
                        return self.end(EndReason::Failed, RenditionState::Failed);
                    }
                }
                Next::Empty(0) => return Turn::Wait(None),
                Next::Empty(read) => self.stats.came_in(read),
                Next::End(reason, state) => return self.end(reason, state),
            }
            if now() - begun > TURN_MAX {
                return Turn::Again;
            }
        }
    }
}

impl Actor for EncodeWorker {
    fn turn(&mut self) -> Turn {
        let before = thread_cpu_ns();
        let turn = self.pictures();
        self.stats.spent(thread_cpu_ns().saturating_sub(before));
        turn
    }

    fn close(mut self: Box<Self>, ending: Ending) {
        let (reason, state) = ending.as_end();
        self.end(reason, state);
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

//! [`Viewer`]: one viewer's way through the muxes its feed leads to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use patchbay_bus::{EndReason, FeedReader, Signal, now};
use patchbay_contract::{Cause, Leg};
use patchbay_media::MediaTime;
use tokio::time::{Instant, sleep_until};

use super::mux::{Cursor, Key, Muxes};
use super::ring::Taken;

/// How long the rest of an ended stream may take to come.
const DRAIN: Duration = Duration::from_millis(500);
/// Most batches handed out at once, so that the answer to what was sent is asked for often enough.
const BATCHES_MAX: usize = 4;
/// A longer step between batches is a hole, not media.
const STEP_MAX: MediaTime = MediaTime::from_millis(200);

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Send what was put into the list.
    Send,
    /// Everything was sent.
    Ended(EndReason),
}

/// One viewer.
pub(crate) struct Viewer {
    leg: Leg,
    muxes: Arc<Muxes>,
    lag_max: Duration,
    feed: FeedReader,
    signal: Arc<Signal>,
    current: Option<Cursor>,
    /// Where the feed points now; taken over once it has a place to go on at.
    upcoming: Option<Cursor>,
    /// Decoding time of the last frame that was handed out.
    delivered: Option<MediaTime>,
    /// How much media was handed out.
    media: MediaTime,
    ended: Option<(EndReason, Instant)>,
}

impl Viewer {
    pub(crate) fn new(leg: Leg, muxes: Arc<Muxes>, lag_max: Duration) -> Self {
        let signal = Arc::new(Signal::new());
        let feed = leg.feed().watch(signal.clone());
        Self { leg, muxes, lag_max, feed, signal, current: None, upcoming: None, delivered: None, media: MediaTime::ZERO, ended: None }
    }

    pub(crate) fn leg(&self) -> &Leg {
        &self.leg
    }

    /// How much media was handed out; holes do not count.
    pub(crate) fn media(&self) -> MediaTime {
        self.media
    }

    /// Ends the session.
    pub(crate) fn end(self, cause: Cause) {
        self.leg.end(cause);
    }

    /// Waits until there is something to send and puts it into `out`. Nothing is lost when this is dropped while it waits.
    pub(crate) async fn ready(&mut self, out: &mut Vec<Bytes>) -> Ready {
        loop {
            self.follow();
            if let Some(ready) = self.gather(out) {
                return ready;
            }
            let until = self.ended.map(|(_, until)| until);
            tokio::select! {
                () = self.signal.wait() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
            }
        }
    }

    fn follow(&mut self) {
        let Some(value) = self.feed.changed() else { return };
        if let Some(reason) = value.ended {
            self.ended.get_or_insert((reason, Instant::now() + DRAIN));
        }
        let key = Key::of(self.leg.stream(), &value);
        let is = |cursor: &Option<Cursor>| cursor.as_ref().is_some_and(|c| c.mux.key == key);
        let empty = value.video.is_none() && value.audio.is_none();
        if is(&self.current) {
            self.upcoming = None;
        } else if !empty && !is(&self.upcoming) {
            let cursor = self.muxes.open(self.leg.stream(), &value, self.signal.clone());
            match self.delivered {
                None => self.current = Some(cursor),
                Some(_) => self.upcoming = Some(cursor),
            }
        }
    }

    fn gather(&mut self, out: &mut Vec<Bytes>) -> Option<Ready> {
        loop {
            self.take_over();
            let Some(current) = &mut self.current else {
                return self.ended.map(|(reason, _)| Ready::Ended(reason));
            };
            match current.take(self.lag_max) {
                Ok(taken) => self.hand_out(taken, out),
                Err(_) if !out.is_empty() => return Some(Ready::Send),
                Err(exhausted) => {
                    let (reason, until) = self.ended?;
                    return (exhausted || until <= Instant::now()).then_some(Ready::Ended(reason));
                }
            }
            if out.len() >= BATCHES_MAX {
                return Some(Ready::Send);
            }
        }
    }

    fn take_over(&mut self) {
        let (Some(upcoming), Some(delivered)) = (&mut self.upcoming, self.delivered) else { return };
        let video = |c: &Cursor| c.mux.key.video;
        let same_pictures = self.current.as_ref().is_some_and(|c| video(c).is_some() && video(c) == video(upcoming));
        if upcoming.splice(delivered, same_pictures) {
            self.current = self.upcoming.take();
        }
    }

    fn hand_out(&mut self, taken: Taken, out: &mut Vec<Bytes>) {
        let Taken { batch, skipped } = taken;
        let counters = self.leg.counters();
        counters.frame(batch.bytes.len(), (now() - batch.arrival).as_nanos());
        counters.frames.fetch_add(u64::from(batch.frames.saturating_sub(1)), Ordering::Relaxed);
        counters.skipped.fetch_add(skipped, Ordering::Relaxed);
        let step = batch.dts - self.delivered.replace(batch.dts).unwrap_or(batch.dts);
        self.media += step.max(MediaTime::ZERO).min(STEP_MAX);
        out.push(batch.bytes);
    }
}

//! [`Viewer`]: one viewer's way through the muxes its feed leads to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use patchbay_bus::{EndReason, FeedReader, FeedValue, Point, Signal, now};
use patchbay_contract::{Cause, Leg};
use patchbay_media::MediaTime;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::mux::{Cursor, Form, Key, Muxes};
use super::ring::Taken;

/// How long a stream that has just begun may take to show its second track before viewers start without it.
const SETTLE: Duration = Duration::from_millis(400);
/// A track with fewer frames than this has just begun.
const JUST_BEGUN: u64 = 15;
/// How long the rest of an ended stream may take to come.
const DRAIN: Duration = Duration::from_millis(500);
/// Most bytes handed out at once.
const READY_MAX: usize = 512 << 10;
/// Most pieces handed out at once; what one vectored write takes.
const PIECES_MAX: usize = 64;

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
    form: Form,
    lag_max: Duration,
    feed: FeedReader,
    value: FeedValue,
    signal: Arc<Signal>,
    current: Option<Cursor>,
    /// Where the feed points now; taken over once it has a place to go on at.
    upcoming: Option<Cursor>,
    /// Decoding time of the last frame that was handed out.
    delivered: Option<MediaTime>,
    settle_until: Option<Instant>,
    /// Lent to the mux while the viewer keeps up.
    socket: Option<Arc<TcpStream>>,
    ended: Option<(EndReason, Instant)>,
}

impl Viewer {
    pub(crate) fn new(leg: Leg, muxes: Arc<Muxes>, form: Form, lag_max: Duration) -> Self {
        let signal = Arc::new(Signal::new());
        let feed = leg.feed().watch(signal.clone());
        Self {
            leg,
            muxes,
            form,
            lag_max,
            feed,
            value: FeedValue::default(),
            signal,
            current: None,
            upcoming: None,
            delivered: None,
            settle_until: None,
            socket: None,
            ended: None,
        }
    }

    /// Lets the mux write to `socket` while the viewer keeps up. Nobody else may write to it then without
    /// [`Self::recall`].
    pub(crate) fn with_socket(mut self, socket: Arc<TcpStream>) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Takes the socket back from the mux. What is in `out` then must be written before anything else.
    pub(crate) fn recall(&mut self, out: &mut Vec<Bytes>) {
        let Some((delivered, rest)) = self.current.as_mut().and_then(Cursor::recall) else { return };
        self.delivered = delivered.or(self.delivered);
        out.extend(Some(rest).filter(|rest| !rest.is_empty()));
    }

    pub(crate) fn leg(&self) -> &Leg {
        &self.leg
    }

    /// Whether it sends (video, audio) now.
    pub(crate) fn kinds(&self) -> (bool, bool) {
        let key = self.current.as_ref().map(|c| &c.mux.key);
        (key.is_some_and(|k| k.video.is_some()), key.is_some_and(|k| k.audio.is_some()))
    }

    /// Goes on with the newest group, as after a pause. What is in `out` then must be written before anything else.
    pub(crate) fn rejoin(&mut self, out: &mut Vec<Bytes>) {
        self.recall(out);
        self.current.iter_mut().for_each(Cursor::rejoin);
    }

    /// Ends the session.
    pub(crate) fn end(self, cause: Cause) {
        self.leg.end(cause);
    }

    /// Waits until there is something to send and puts it into `out`. Nothing is lost when this is dropped while it waits.
    pub(crate) async fn ready(&mut self, out: &mut Vec<Bytes>) -> Ready {
        loop {
            self.follow(out);
            if self.current.as_ref().is_some_and(Cursor::is_lent) {
                self.signal.wait().await;
                continue;
            }
            self.recall(out);
            if !out.is_empty() {
                return Ready::Send;
            }
            let deadline = match self.settle_until {
                Some(until) if until > Instant::now() => Some(until),
                _ => match self.gather(out) {
                    Some(ready) => return ready,
                    None => self.ended.map(|(_, until)| until),
                },
            };
            if deadline.is_none() && self.lend() {
                continue;
            }
            tokio::select! {
                () = self.signal.wait() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
    }

    /// Lends the socket if there is one, nothing is to be sent and nothing else is up.
    fn lend(&mut self) -> bool {
        let (Some(current), Some(socket), None) = (&mut self.current, &self.socket, &self.upcoming) else { return false };
        current.lend(socket, self.leg.counters());
        current.is_lent()
    }

    /// Follows the feed. Whatever changes, the socket comes back first.
    fn follow(&mut self, out: &mut Vec<Bytes>) {
        let Some(value) = self.feed.changed() else { return };
        self.recall(out);
        if let Some(reason) = value.ended {
            self.ended.get_or_insert((reason, Instant::now() + DRAIN));
        }
        let key = Key::of(self.leg.stream(), &value, self.form);
        let is = |cursor: &Option<Cursor>| cursor.as_ref().is_some_and(|c| c.mux.key == key);
        let empty = value.video.is_none() && value.audio.is_none();
        if is(&self.current) {
            self.upcoming = None;
        } else if !empty && !is(&self.upcoming) {
            let cursor = self.muxes.open(self.leg.stream(), &value, self.form, self.signal.clone());
            match self.delivered {
                None => self.current = Some(cursor),
                Some(_) => self.upcoming = Some(cursor),
            }
        }
        self.settle_until = match self.settle_until {
            _ if self.delivered.is_some() || !lonely_and_young(&value) => None,
            None => Some(Instant::now() + SETTLE),
            until => until,
        };
        self.value = value;
    }

    fn gather(&mut self, out: &mut Vec<Bytes>) -> Option<Ready> {
        let mut bytes = 0;
        loop {
            self.take_over();
            let Some(current) = &mut self.current else {
                return self.ended.map(|(reason, _)| Ready::Ended(reason));
            };
            match current.take(self.lag_max) {
                Ok(taken) => bytes += self.hand_out(taken, out),
                Err(_) if bytes > 0 => return Some(Ready::Send),
                Err(exhausted) => {
                    let (reason, until) = self.ended?;
                    return (exhausted || until <= Instant::now()).then_some(Ready::Ended(reason));
                }
            }
            if bytes >= READY_MAX || out.len() + 2 > PIECES_MAX {
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

    fn hand_out(&mut self, taken: Taken, out: &mut Vec<Bytes>) -> usize {
        let Taken { header, batch, skipped } = taken;
        let counters = self.leg.counters();
        let size = batch.bytes.len() + header.as_ref().map_or(0, Bytes::len);
        counters.frame(size, (now() - batch.arrival).as_nanos());
        counters.frames.fetch_add(u64::from(batch.frames.saturating_sub(1)), Ordering::Relaxed);
        counters.skipped.fetch_add(skipped, Ordering::Relaxed);
        self.delivered = Some(batch.dts);
        out.extend(header);
        out.push(batch.bytes);
        size
    }
}

/// Whether the stream shows one track only and has just begun, so that the other may still come.
pub(crate) fn lonely_and_young(value: &FeedValue) -> bool {
    let young = |point: &Point| point.track.totals().0 < JUST_BEGUN;
    match (&value.video, &value.audio) {
        (Some(only), None) | (None, Some(only)) => young(only),
        _ => false,
    }
}

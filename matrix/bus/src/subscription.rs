//! [`Subscription`]: a feed's tracks merged into one sequence of events, re-pointed without the sink noticing.

use std::sync::Arc;
use std::time::Duration;

use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};

use crate::{EndReason, Feed, FeedReader, FeedValue, Item, Lag, Point, Reader, Signal, Start, clock};

/// How long audio waits for the first picture, so that both start together. Longer than the usual group at the
/// start of a stream; a source whose video never comes must not stay mute.
const VIDEO_FIRST_MAX: Duration = Duration::from_secs(3);

/// What a subscriber sees.
#[derive(Clone, Debug)]
pub enum Event {
    /// Describes the frames of this kind that follow.
    Info(Kind, Arc<TrackInfo>),
    /// A frame.
    Frame(Kind, Frame),
    /// Frames were skipped because this subscriber was slow.
    Gap(Kind, u64),
    /// The stream is over.
    End(EndReason),
}

/// One kind's place in a subscription.
struct Slot {
    kind: Kind,
    current: Option<Reader>,
    /// Where the feed points now; taken over once it has a key frame past what was delivered.
    upcoming: Option<Reader>,
    pending: Option<Item>,
    delivered: Option<MediaTime>,
}

impl Slot {
    fn new(kind: Kind) -> Self {
        Self { kind, current: None, upcoming: None, pending: None, delivered: None }
    }

    fn point_at(&mut self, point: Option<Point>, start: Start, lag: Lag, signal: &Arc<Signal>) {
        let Some(point) = point else {
            self.current = None;
            self.upcoming = None;
            self.pending = None;
            return;
        };
        let is = |reader: &Option<Reader>| reader.as_ref().is_some_and(|r| r.track().uid() == point.track.uid());
        if is(&self.upcoming) {
            self.upcoming.as_mut().into_iter().for_each(|r| r.allow_epoch(point.epoch));
        } else if is(&self.current) {
            self.upcoming = None;
            self.current.as_mut().into_iter().for_each(|r| r.allow_epoch(point.epoch));
        } else {
            let start = self.delivered.map_or(start, |t| Start::From(t + MediaTime::from_nanos(1)));
            let mut reader = point.track.read(start, lag, signal.clone());
            reader.allow_epoch(point.epoch);
            if self.kind == Kind::Video && self.delivered.is_some() {
                point.track.keyframes().request();
            }
            match self.current {
                None => self.current = Some(reader),
                Some(_) => self.upcoming = Some(reader),
            }
        }
    }

    fn fill(&mut self) {
        if self.pending.is_some() {
            return;
        }
        if let Some(upcoming) = &mut self.upcoming {
            self.delivered.into_iter().for_each(|pts| upcoming.begin_after(pts));
            if let Some(item) = upcoming.poll() {
                self.current = self.upcoming.take();
                self.pending = Some(item);
                return;
            }
        }
        self.pending = self.current.as_mut().and_then(Reader::poll);
    }

    /// Decoding time of the pending frame; anything else comes first.
    fn order(&self) -> Option<MediaTime> {
        match self.pending.as_ref()? {
            Item::Frame(frame) => Some(frame.dts),
            Item::Info(_) | Item::Gap(_) => Some(MediaTime::from_nanos(i64::MIN)),
            Item::End(_) => Some(MediaTime::from_nanos(i64::MAX)),
        }
    }

    fn take(&mut self) -> Option<Event> {
        match self.pending.take()? {
            Item::Info(info) => Some(Event::Info(self.kind, info)),
            Item::Gap(frames) => Some(Event::Gap(self.kind, frames)),
            Item::Frame(frame) => {
                self.delivered = Some(self.delivered.map_or(frame.pts, |t| t.max(frame.pts)));
                Some(Event::Frame(self.kind, frame))
            }
            Item::End(_) => {
                // A track's end is not the subscription's: the feed says when it is over, or points elsewhere.
                self.current = self.upcoming.take();
                None
            }
        }
    }
}

/// A merged, re-pointable read of a feed.
pub struct Subscription {
    feed: FeedReader,
    signal: Arc<Signal>,
    lag: Lag,
    video: Slot,
    audio: Slot,
    value: FeedValue,
    opened: MediaTime,
    /// Reads nothing; its track's frames wake this subscription while sound waits for a picture that may not come.
    alarm: Option<Reader>,
}

impl Subscription {
    /// Follows `feed`; wakes `signal` on news.
    pub fn new(feed: &Arc<Feed>, lag: Lag, signal: Arc<Signal>) -> Self {
        let feed = feed.watch(signal.clone());
        let opened = clock::now();
        Self {
            feed,
            signal,
            lag,
            video: Slot::new(Kind::Video),
            audio: Slot::new(Kind::Audio),
            value: FeedValue::default(),
            opened,
            alarm: None,
        }
    }

    /// What it reads now.
    pub fn value(&self) -> &FeedValue {
        &self.value
    }

    /// The next event, if there is one now. Events of both kinds come in decoding order as far as they are here.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            self.follow();
            self.video.fill();
            self.align_audio();
            self.audio.fill();
            let slot = match (self.video.order(), self.audio.order()) {
                (Some(v), Some(a)) if a < v => &mut self.audio,
                (Some(_), _) => &mut self.video,
                (None, Some(_)) => &mut self.audio,
                (None, None) => return self.value.ended.map(Event::End),
            };
            if let Some(event) = slot.take() {
                return Some(event);
            }
        }
    }

    /// Waits for the next event.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.poll() {
                return event;
            }
            self.signal.wait().await;
        }
    }

    fn follow(&mut self) {
        let Some(value) = self.feed.changed() else { return };
        self.video.point_at(value.video.clone(), Start::Newest, self.lag, &self.signal);
        if self.audio.current.is_some() || value.audio.is_none() {
            self.audio.point_at(value.audio.clone(), Start::Newest, self.lag, &self.signal);
        }
        self.value = value;
    }

    /// Opens the audio at the first picture's time, or alone when there is no picture to wait for.
    fn align_audio(&mut self) {
        if self.audio.current.is_some() || self.value.audio.is_none() {
            return;
        }
        let start = match (&self.video.pending, self.video.delivered) {
            (Some(Item::Frame(frame)), None) => Start::From(frame.pts),
            (_, Some(delivered)) => Start::From(delivered),
            (_, None) if self.value.video.is_none() => Start::Newest,
            (_, None) if clock::now() - self.opened > MediaTime::from(VIDEO_FIRST_MAX) => Start::Newest,
            _ => {
                let audio = self.value.audio.as_ref().filter(|_| self.alarm.is_none());
                self.alarm = audio.map(|point| point.track.read(Start::Live, Lag::Keep, self.signal.clone())).or(self.alarm.take());
                return;
            }
        };
        self.alarm = None;
        if self.value.audio.as_ref().is_some_and(|point| point.track.ended().is_none()) {
            self.audio.point_at(self.value.audio.clone(), start, self.lag, &self.signal);
        }
    }
}

//! [`Mux`]: one pair of tracks, made into a transport stream once for all its viewers. [`Muxes`]: the live ones, found by what
//! they send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::BytesMut;
use patchbay_bus::{Event, Feed, FeedValue, Lag, Point, Signal, StreamName, Subscription, TrackUid, now};
use patchbay_media::{Codec, Frame, Kind, MediaTime};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::ring::{Batch, Place, Ring, Taken};
use crate::ts::{CLOCK_HZ, Muxer, STAMP_MASK, StreamType, Unit};

/// Bytes at which waiting sound leaves whatever the clock says.
const PENDING_MAX: usize = 64 << 10;
/// Where there are no pictures, one can join this often.
const SOUND_GROUP: MediaTime = MediaTime::from_millis(500);
/// A joiner of a group that is older asks for a new one, if the source can give one.
const GROUP_AGE_MAX: MediaTime = MediaTime::from_secs(1);

/// What a mux sends: viewers with equal keys share it. Epochs belong to it, because plans hold for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    stream: StreamName,
    pub(super) video: Option<(TrackUid, u32)>,
    audio: Option<(TrackUid, u32)>,
}

impl Key {
    pub(super) fn of(stream: &StreamName, value: &FeedValue) -> Self {
        let point = |p: &Option<Point>| p.as_ref().map(|p| (p.track.uid(), p.epoch));
        Self { stream: stream.clone(), video: point(&value.video), audio: point(&value.audio) }
    }
}

#[derive(Default)]
struct State {
    ring: Ring,
    /// Nothing will follow.
    ended: bool,
    viewers: Vec<(u64, Arc<Signal>)>,
    next_viewer: u64,
}

/// One pair of tracks. Lives as long as a [`Cursor`] points into it.
pub(super) struct Mux {
    pub(super) key: Key,
    state: Mutex<State>,
    task: OnceLock<AbortHandle>,
}

impl Mux {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.viewers.iter().for_each(|(_, signal)| signal.notify());
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// All muxes of a gateway.
pub(crate) struct Muxes {
    coalesce: Duration,
    live: Mutex<HashMap<Key, Weak<Mux>>>,
}

impl Muxes {
    /// Sound waits `coalesce` at most to leave with what follows.
    pub(crate) fn new(coalesce: Duration) -> Self {
        Self { coalesce, live: Mutex::default() }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Key, Weak<Mux>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.live().values().filter(|m| m.strong_count() > 0).count()
    }

    /// A cursor into the mux of these tracks, which is started if need be. `signal` is woken on news.
    pub(super) fn open(&self, stream: &StreamName, value: &FeedValue, signal: Arc<Signal>) -> Cursor {
        let key = Key::of(stream, value);
        let mut live = self.live();
        if let Some(mux) = live.get(&key).and_then(Weak::upgrade) {
            let old = mux.state().ring.group_age(now()).is_some_and(|age| age > GROUP_AGE_MAX);
            if let Some(video) = value.video.as_ref().filter(|_| old) {
                // The gate merges the wishes of many.
                video.track.keyframes().request();
            }
            return Cursor::new(mux, signal);
        }
        // Bounded by the live ones: what is dead goes before something is added.
        live.retain(|_, mux| mux.strong_count() > 0);
        let mux = Arc::new(Mux { key: key.clone(), state: Mutex::default(), task: OnceLock::new() });
        live.insert(key, Arc::downgrade(&mux));
        drop(live);
        let feed = Arc::new(Feed::default());
        feed.set(FeedValue { ended: None, ..value.clone() });
        let task = tokio::spawn(Worker::new(&mux, self.coalesce, value).run(feed));
        // Set once, here.
        _ = mux.task.set(task.abort_handle());
        Cursor::new(mux, signal)
    }
}

/// One viewer's cursor into a mux.
pub(super) struct Cursor {
    pub(super) mux: Arc<Mux>,
    id: u64,
    place: Place,
}

impl Cursor {
    fn new(mux: Arc<Mux>, signal: Arc<Signal>) -> Self {
        let mut state = mux.state();
        let id = state.next_viewer;
        state.next_viewer += 1;
        state.viewers.push((id, signal));
        drop(state);
        Self { mux, id, place: Place::default() }
    }

    /// The next batch, if there is one; else whether the mux has ended.
    pub(super) fn take(&mut self, lag_max: Duration) -> Result<Taken, bool> {
        let state = self.mux.state();
        self.place.take(&state.ring, lag_max, now()).ok_or(state.ended)
    }

    /// Goes to where a viewer can go on that has everything up to `delivered`; `false` when there is no such place yet.
    pub(super) fn splice(&mut self, delivered: MediaTime, same_pictures: bool) -> bool {
        let state = self.mux.state();
        let at = state.ring.after(delivered, same_pictures);
        at.map(|seq| self.place.go(seq, &state.ring)).is_some()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let id = self.id;
        self.mux.state().viewers.retain(|(other, _)| *other != id);
    }
}

/// The task behind a mux.
struct Worker {
    mux: Weak<Mux>,
    coalesce: Duration,
    muxer: Muxer,
    has_video: bool,
    /// Whether the frames that come are what the viewers can decode.
    video_fits: bool,
    audio_fits: bool,
    video_begun: bool,
    tables_at: Option<MediaTime>,
    /// Serialised and not yet in the ring.
    pending: BytesMut,
    pending_key: bool,
    pending_frames: u32,
    pending_arrival: MediaTime,
    pending_dts: MediaTime,
    flush_at: Option<Instant>,
}

impl Worker {
    fn new(mux: &Arc<Mux>, coalesce: Duration, value: &FeedValue) -> Self {
        let video = value.video.as_ref().map(|_| StreamType::Mpeg1Video);
        let audio = value.audio.as_ref().map(|_| StreamType::Mpeg1Audio);
        Self {
            mux: Arc::downgrade(mux),
            coalesce,
            muxer: Muxer::new(video, audio),
            has_video: video.is_some(),
            video_fits: false,
            audio_fits: false,
            video_begun: false,
            tables_at: None,
            pending: BytesMut::new(),
            pending_key: false,
            pending_frames: 0,
            pending_arrival: MediaTime::ZERO,
            pending_dts: MediaTime::ZERO,
            flush_at: None,
        }
    }

    async fn run(mut self, feed: Arc<Feed>) {
        let signal = Arc::new(Signal::new());
        // Keep: this task does so little that it falls behind only when the whole process does.
        let mut subscription = Subscription::new(&feed, Lag::Keep, signal.clone());
        loop {
            while let Some(event) = subscription.poll() {
                self.event(event);
            }
            let ended = |p: &Option<Point>| p.as_ref().is_none_or(|p| p.track.ended().is_some());
            if ended(&subscription.value().video) && ended(&subscription.value().audio) {
                self.flush();
                if let Some(mux) = self.mux.upgrade() {
                    mux.update(|state| state.ended = true);
                }
                return;
            }
            let flush_at = self.flush_at;
            tokio::select! {
                () = signal.wait() => {}
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => self.flush(),
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            // The rule table sends nothing else to this kind of sink; if it did, it would be noise.
            Event::Info(Kind::Video, info) => self.video_fits = info.codec == Codec::Mpeg1,
            Event::Info(Kind::Audio, info) => self.audio_fits = info.codec == Codec::Mp2,
            Event::Frame(Kind::Video, frame) if self.video_fits => self.frame(Kind::Video, &frame),
            Event::Frame(Kind::Audio, frame) if self.audio_fits => self.frame(Kind::Audio, &frame),
            Event::Frame(..) | Event::Gap(..) | Event::End(_) => {}
        }
    }

    fn frame(&mut self, kind: Kind, frame: &Frame) {
        self.video_begun |= kind == Kind::Video;
        // Sound alone can be joined anywhere; while pictures are still to come, sound is all there is.
        let alone = kind == Kind::Audio && !(self.has_video && self.video_begun);
        let due = self.tables_at.is_none_or(|at| frame.dts - at >= SOUND_GROUP);
        let joinable = frame.key && (kind == Kind::Video || alone && due);
        if joinable {
            // A group begins with its key frame and nothing before it.
            self.flush();
            self.tables_at = Some(frame.dts);
            self.pending_key = true;
            self.muxer.write_tables(&mut self.pending);
        }
        if self.pending_frames == 0 {
            self.pending_arrival = frame.arrival;
            self.flush_at = Some(Instant::now() + self.coalesce);
        }
        let unit = Unit { kind, pts: ticks(frame.pts), dts: ticks(frame.dts), key: frame.key, payload: &frame.payload };
        self.muxer.write(&unit, &mut self.pending);
        self.pending_frames += 1;
        self.pending_dts = frame.dts;
        if kind == Kind::Video || self.pending.len() > PENDING_MAX {
            self.flush();
        }
    }

    /// Moves what is pending into the ring.
    fn flush(&mut self) {
        self.flush_at = None;
        if self.pending.is_empty() {
            return;
        }
        let batch = Batch {
            bytes: self.pending.split().freeze(),
            key: std::mem::take(&mut self.pending_key),
            dts: self.pending_dts,
            frames: std::mem::take(&mut self.pending_frames),
            arrival: self.pending_arrival,
            ready: now(),
        };
        if let Some(mux) = self.mux.upgrade() {
            mux.update(|state| state.ring.push(batch));
        }
    }
}

/// Bus time as a time stamp. All muxes use the same zero, so that viewers can change between them.
fn ticks(time: MediaTime) -> u64 {
    time.to_ticks(CLOCK_HZ).max(0) as u64 & STAMP_MASK
}

//! [`Track`]: one publisher's writer, any number of readers with their own cursors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};

use crate::ring::{Entry, Ring};
use crate::sync::{Mutex, lock};
use crate::{Change, KeyframeGate, Observer, Signal, StreamName};

/// A newest group that began longer ago than this is not joined when the source can begin another at once: the
/// joiner would stay that far behind.
const JOIN_AGE_MAX: MediaTime = MediaTime::from_secs(3);

/// Process-wide identity of a track.
pub type TrackUid = u64;

static NEXT_UID: AtomicU64 = AtomicU64::new(1);

/// Bounds of a track's window.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Payload bytes kept at most.
    pub bytes_max: usize,
    /// Media time kept at most; the newest group is kept whole even when it is longer.
    pub span_max: MediaTime,
}

impl Default for Limits {
    /// 16 MiB (a 10 s group at 12 Mbit/s) and 12 s.
    fn default() -> Self {
        Self { bytes_max: 16 << 20, span_max: MediaTime::from_secs(12) }
    }
}

/// Why a track or stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The publisher said goodbye.
    Finished,
    /// The publisher vanished (connection lost, timeout).
    Lost,
    /// patchbay ended it: kicked by the API, or the process is draining.
    Stopped,
    /// The encoder behind a rendition failed.
    Failed,
}

impl EndReason {
    /// Reason code used in logs and the API.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Finished => "publisher_finished",
            Self::Lost => "publisher_lost",
            Self::Stopped => "stopped",
            Self::Failed => "transcode_failed",
        }
    }
}

struct State {
    ring: Ring,
    info: Option<Arc<TrackInfo>>,
    epoch: u32,
    ended: Option<EndReason>,
    readers: Vec<(u64, Arc<Signal>)>,
    next_reader: u64,
}

/// One track of a stream, or one rendition.
pub struct Track {
    uid: TrackUid,
    kind: Kind,
    state: Mutex<State>,
    keyframes: KeyframeGate,
    frames: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
}

impl Track {
    /// Creates a track and its only writer. `info` may come later with [`TrackWriter::set_info`].
    pub fn create(kind: Kind, info: Option<TrackInfo>, limits: Limits) -> TrackWriter {
        let state = State { ring: Ring::new(limits), info: info.map(Arc::new), epoch: 0, ended: None, readers: Vec::new(), next_reader: 0 };
        let track = Self {
            uid: NEXT_UID.fetch_add(1, Ordering::Relaxed),
            kind,
            state: Mutex::new(state),
            keyframes: KeyframeGate::default(),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        TrackWriter { track: Arc::new(track), observer: None, dts_last: None }
    }

    /// Its identity; never used twice.
    pub fn uid(&self) -> TrackUid {
        self.uid
    }

    /// Video or audio.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is known of it now, and the epoch of that knowledge.
    pub fn info(&self) -> Option<(Arc<TrackInfo>, u32)> {
        let state = lock(&self.state);
        state.info.clone().map(|info| (info, state.epoch))
    }

    /// Whether it has ended.
    pub fn ended(&self) -> Option<EndReason> {
        lock(&self.state).ended
    }

    /// Where readers ask for a key frame, and the publisher takes the request.
    pub fn keyframes(&self) -> &KeyframeGate {
        &self.keyframes
    }

    /// Frames and payload bytes pushed so far, and frames known lost before the bus.
    pub fn totals(&self) -> (u64, u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// How many readers are attached.
    pub fn reader_count(&self) -> usize {
        lock(&self.state).readers.len()
    }

    fn joins_late(&self, ring: &Ring) -> bool {
        let began = ring.newest_key().and_then(|key| ring.get(key)).map(|entry| entry.frame.dts);
        let age = began.zip(ring.newest_dts()).map(|(began, newest)| newest - began);
        age.is_some_and(|age| age > JOIN_AGE_MAX) && self.keyframes.is_answered()
    }

    /// How old the newest group is, in media time; `None` before the first one.
    pub fn group_age(&self) -> Option<MediaTime> {
        let state = lock(&self.state);
        let began = state.ring.newest_key().and_then(|key| state.ring.get(key))?.frame.dts;
        Some(state.ring.newest_dts()? - began)
    }

    /// Decoding time of the newest frame; `None` before the first one.
    pub fn newest(&self) -> Option<MediaTime> {
        lock(&self.state).ring.newest_dts()
    }

    /// Attaches a reader that wakes `signal` on news.
    pub fn read(self: &Arc<Self>, start: Start, lag: Lag, signal: Arc<Signal>) -> Reader {
        let mut state = lock(&self.state);
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.push((id, signal.clone()));
        let end = state.ring.end();
        let (next, not_before) = match start {
            Start::Newest if self.joins_late(&state.ring) => (end, None),
            Start::Newest => (state.ring.newest_key().unwrap_or(end), None),
            Start::From(pts) => (state.ring.key_from(pts).unwrap_or(end), Some(pts)),
            Start::Live => (end, None),
        };
        let news = next < end || state.ended.is_some();
        drop(state);
        if news {
            signal.notify();
        } else if matches!(start, Start::Newest) {
            self.keyframes.request();
        }
        let cursor = Cursor { next, lag, info: None, need_key: true, not_before, epoch_max: u32::MAX, missed: 0 };
        Reader { track: self.clone(), id, signal, cursor }
    }
}

/// The one who fills a track. Dropping it ends the track as [`EndReason::Lost`].
pub struct TrackWriter {
    track: Arc<Track>,
    observer: Option<(StreamName, Arc<dyn Observer>)>,
    dts_last: Option<MediaTime>,
}

impl TrackWriter {
    pub(crate) fn observed(mut self, stream: StreamName, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some((stream, observer));
        self
    }

    /// The track being filled.
    pub fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Describes the frames that follow; with other traits than before this begins a new epoch. For video, call
    /// it right before the key frame that uses it.
    pub fn set_info(&mut self, info: TrackInfo) {
        {
            let mut state = lock(&self.track.state);
            let same = state.info.as_ref().is_some_and(|old| old.same_plan(&info));
            if same && state.info.as_ref().is_some_and(|old| old.config == info.config) {
                return;
            }
            if !same && state.info.is_some() {
                state.epoch += 1;
            }
            state.info = Some(Arc::new(info));
        }
        if let Some((stream, observer)) = &self.observer {
            observer.changed(stream, Change::Info);
        }
    }

    /// Appends a frame and wakes the readers. Never waits. A frame before the first `set_info` is dropped; a DTS
    /// that steps back is raised to the last one.
    pub fn push(&mut self, mut frame: Frame) {
        if let Some(last) = self.dts_last
            && frame.dts < last
        {
            frame.dts = last;
        }
        self.dts_last = Some(frame.dts);
        self.track.frames.fetch_add(1, Ordering::Relaxed);
        self.track.bytes.fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
        self.track.lost.fetch_add(u64::from(frame.loss), Ordering::Relaxed);
        if frame.key && self.track.kind == Kind::Video {
            self.track.keyframes.satisfied(frame.arrival);
        }
        let mut state = lock(&self.track.state);
        let Some(info) = state.info.clone() else { return };
        let epoch = state.epoch;
        state.ring.push(Entry { frame, info, epoch });
        for (_, signal) in &state.readers {
            signal.notify();
        }
    }

    /// Ends the track; readers see what is left and then the end.
    pub fn end(self, reason: EndReason) {
        self.end_now(reason);
    }

    fn end_now(&self, reason: EndReason) {
        let mut state = lock(&self.track.state);
        if state.ended.is_none() {
            state.ended = Some(reason);
            for (_, signal) in &state.readers {
                signal.notify();
            }
        }
    }
}

impl Drop for TrackWriter {
    fn drop(&mut self) {
        self.end_now(EndReason::Lost);
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the newest group, so that it can decode at once.
    Newest,
    /// With the first key frame at or after this presentation time.
    From(MediaTime),
    /// With the next key frame to come.
    Live,
}

/// What happens to a reader that falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// More than this behind the newest frame: skip to the newest group and report a [`Item::Gap`].
    Skip(Duration),
    /// Read everything that is still in the window.
    Keep,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// Describes the frames that follow.
    Info(Arc<TrackInfo>),
    /// A frame.
    Frame(Frame),
    /// This many frames were skipped; the next frame is a key frame.
    Gap(u64),
    /// Nothing follows.
    End(EndReason),
}

/// Where one reader stands; apart from [`Reader`] so that the track can stay locked while it moves.
struct Cursor {
    next: u64,
    lag: Lag,
    info: Option<Arc<TrackInfo>>,
    need_key: bool,
    not_before: Option<MediaTime>,
    epoch_max: u32,
    missed: u64,
}

impl Cursor {
    fn poll(&mut self, state: &State) -> Option<Item> {
        self.catch_up(&state.ring);
        loop {
            let Some(entry) = state.ring.get(self.next) else {
                return state.ended.map(Item::End);
            };
            if entry.epoch > self.epoch_max {
                return None;
            }
            let early = self.not_before.is_some_and(|t| entry.frame.pts < t);
            if self.need_key && (!entry.frame.key || early) {
                self.next += 1;
                continue;
            }
            if self.missed > 0 {
                return Some(Item::Gap(std::mem::take(&mut self.missed)));
            }
            if !self.info.as_ref().is_some_and(|known| Arc::ptr_eq(known, &entry.info)) {
                self.info = Some(entry.info.clone());
                return Some(Item::Info(entry.info.clone()));
            }
            self.need_key = false;
            self.not_before = None;
            self.next += 1;
            return Some(Item::Frame(entry.frame.clone()));
        }
    }

    /// Moves out of evicted frames, and to the newest group when it lags too far.
    fn catch_up(&mut self, ring: &Ring) {
        let target = if self.next < ring.base() {
            ring.newest_key().unwrap_or(ring.end())
        } else if let (Lag::Skip(max), Some(newest), Some(entry), Some(key)) =
            (self.lag, ring.newest_dts(), ring.get(self.next), ring.newest_key())
        {
            let late = newest - entry.frame.dts > MediaTime::from(max);
            if late && key > self.next { key } else { return }
        } else {
            return;
        };
        // Frames skipped before the first delivery are not missed by anybody.
        if !self.need_key {
            self.missed += target - self.next;
        }
        self.next = target;
        self.need_key = true;
    }
}

/// A cursor into one track.
pub struct Reader {
    track: Arc<Track>,
    id: u64,
    signal: Arc<Signal>,
    cursor: Cursor,
}

impl Reader {
    /// The track it reads.
    pub fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Holds back frames of later epochs than this until it is raised: they were not planned for.
    pub fn allow_epoch(&mut self, epoch: u32) {
        self.cursor.epoch_max = epoch;
        self.signal.notify();
    }

    /// Begins with a key frame after `pts`; without effect once a frame was delivered.
    pub(crate) fn begin_after(&mut self, pts: MediaTime) {
        if self.cursor.need_key {
            self.cursor.not_before = Some(pts + MediaTime::from_nanos(1));
        }
    }

    /// The next item, if there is one now.
    pub fn poll(&mut self) -> Option<Item> {
        self.cursor.poll(&lock(&self.track.state))
    }

    /// Waits for the next item.
    pub async fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.poll() {
                return item;
            }
            self.signal.wait().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        lock(&self.track.state).readers.retain(|(id, _)| *id != self.id);
    }
}

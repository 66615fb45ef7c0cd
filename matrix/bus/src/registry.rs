//! [`Bus`]: the live streams by name, and who publishes them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

use patchbay_media::{Kind, TrackInfo};

use crate::sync::{Mutex, lock};
use crate::{EndReason, Limits, StreamName, Track, TrackWriter};

/// Most publishers that stand by for one name.
const STANDBY_MAX: usize = 4;

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A publisher came, or one that stood by took the place of another.
    Live,
    /// A track was added.
    Track,
    /// A track's description changed.
    Info,
    /// The publisher left.
    Ended(EndReason),
}

/// Learns of changes; called on the publisher's thread, so it must not block.
pub trait Observer: Send + Sync {
    /// `change` happened to `stream`.
    fn changed(&self, stream: &StreamName, change: Change);
}

/// The name has a publisher already, and as many that stand by as it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {0} has a publisher already")]
pub struct AlreadyLive(pub StreamName);

/// What one publisher sends under a name.
pub struct Stream {
    name: StreamName,
    tracks: Mutex<Vec<Arc<Track>>>,
    live: AtomicBool,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// Whether it is what the name stands for now: not while its publisher stands by, nor once it has ended.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Its tracks so far.
    pub fn tracks(&self) -> Vec<Arc<Track>> {
        lock(&self.tracks).clone()
    }

    /// The first track of a kind.
    pub fn track(&self, kind: Kind) -> Option<Arc<Track>> {
        lock(&self.tracks).iter().find(|t| t.kind() == kind).cloned()
    }
}

struct Nobody;

impl Observer for Nobody {
    fn changed(&self, _: &StreamName, _: Change) {}
}

/// Who publishes under one name.
struct Line {
    live: Arc<Stream>,
    /// In the order they will take over.
    standby: VecDeque<Arc<Stream>>,
}

/// All live streams of the process.
#[derive(Default)]
pub struct Bus {
    lines: RwLock<HashMap<StreamName, Line>>,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl Bus {
    /// An empty bus.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Sets who learns of changes; the first caller wins.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    fn observer(&self) -> Arc<dyn Observer> {
        self.observer.get().cloned().unwrap_or_else(|| Arc::new(Nobody))
    }

    /// The live stream of that name.
    pub fn get(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).get(name).map(|line| line.live.clone())
    }

    /// All live streams, by name.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        let mut all: Vec<_> = self.lines.read().unwrap_or_else(PoisonError::into_inner).values().map(|line| line.live.clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Begins to publish under `name`.
    ///
    /// # Errors
    /// [`AlreadyLive`] while another publisher holds the name.
    pub fn publish(self: &Arc<Self>, name: StreamName) -> Result<Publisher, AlreadyLive> {
        self.enter(name, 0)
    }

    /// Begins to publish under `name`, or stands by while another publisher holds it: what it sends then waits on
    /// tracks of its own, and becomes the live stream when all those before it have left.
    ///
    /// # Errors
    /// [`AlreadyLive`] when too many stand by already.
    pub fn publish_or_stand_by(self: &Arc<Self>, name: StreamName) -> Result<Publisher, AlreadyLive> {
        self.enter(name, STANDBY_MAX)
    }

    fn enter(self: &Arc<Self>, name: StreamName, standby_max: usize) -> Result<Publisher, AlreadyLive> {
        let stream = Arc::new(Stream { name: name.clone(), tracks: Mutex::new(Vec::new()), live: AtomicBool::new(false) });
        let mut lines = self.lines_mut();
        match lines.get_mut(&name) {
            Some(line) if line.standby.len() >= standby_max => return Err(AlreadyLive(name)),
            Some(line) => line.standby.push_back(stream.clone()),
            None => {
                stream.live.store(true, Ordering::Release);
                lines.insert(name.clone(), Line { live: stream.clone(), standby: VecDeque::new() });
            }
        }
        drop(lines);
        if stream.is_live() {
            self.observer().changed(&name, Change::Live);
        }
        Ok(Publisher { bus: self.clone(), stream, reason: EndReason::Lost })
    }

    /// Takes a stream out. What that changed for the readers of its name: nothing when it stood by.
    fn leave(&self, stream: &Arc<Stream>, reason: EndReason) -> Option<Change> {
        let mut lines = self.lines_mut();
        let line = lines.get_mut(&stream.name)?;
        if !Arc::ptr_eq(&line.live, stream) {
            line.standby.retain(|other| !Arc::ptr_eq(other, stream));
            return None;
        }
        let next = line.standby.pop_front();
        // The next one first: at no time is none of them live.
        next.iter().for_each(|next| next.live.store(true, Ordering::Release));
        stream.live.store(false, Ordering::Release);
        let Some(next) = next else {
            lines.remove(&stream.name);
            return Some(Change::Ended(reason));
        };
        line.live = next;
        Some(Change::Live)
    }

    fn lines_mut(&self) -> RwLockWriteGuard<'_, HashMap<StreamName, Line>> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to add tracks to one stream. Dropping it ends the stream.
pub struct Publisher {
    bus: Arc<Bus>,
    stream: Arc<Stream>,
    reason: EndReason,
}

impl Publisher {
    /// The stream being published.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Adds a track with default limits.
    pub fn add_track(&self, info: TrackInfo) -> TrackWriter {
        let observer = self.bus.observer();
        let writer = Track::create(info.kind(), Some(info), Limits::default()).observed(self.stream.name.clone(), observer.clone());
        lock(&self.stream.tracks).push(writer.track().clone());
        observer.changed(&self.stream.name, Change::Track);
        writer
    }

    /// Says why the stream ends, and ends it.
    pub fn end(mut self, reason: EndReason) {
        self.reason = reason;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(change) = self.bus.leave(&self.stream, self.reason) {
            self.bus.observer().changed(&self.stream.name, change);
        }
    }
}

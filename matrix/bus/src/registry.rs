//! [`Bus`]: the live streams by name, and who publishes them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, RwLock};

use patchbay_media::{Kind, TrackInfo};

use crate::sync::{Mutex, lock};
use crate::{EndReason, Limits, StreamName, Track, TrackWriter};

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A publisher came.
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

/// The name has a publisher already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {0} has a publisher already")]
pub struct AlreadyLive(pub StreamName);

/// One live stream.
pub struct Stream {
    name: StreamName,
    tracks: Mutex<Vec<Arc<Track>>>,
}

impl Stream {
    /// Its name.
    pub fn name(&self) -> &StreamName {
        &self.name
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

/// All live streams of the process.
#[derive(Default)]
pub struct Bus {
    streams: RwLock<HashMap<StreamName, Arc<Stream>>>,
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
        self.streams.read().unwrap_or_else(|p| p.into_inner()).get(name).cloned()
    }

    /// All live streams, by name.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        let mut all: Vec<_> = self.streams.read().unwrap_or_else(|p| p.into_inner()).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Begins to publish under `name`.
    ///
    /// # Errors
    /// [`AlreadyLive`] while another publisher holds the name.
    pub fn publish(self: &Arc<Self>, name: StreamName) -> Result<Publisher, AlreadyLive> {
        let stream = Arc::new(Stream { name: name.clone(), tracks: Mutex::new(Vec::new()) });
        {
            let mut streams = self.streams.write().unwrap_or_else(|p| p.into_inner());
            if streams.contains_key(&name) {
                return Err(AlreadyLive(name));
            }
            streams.insert(name.clone(), stream.clone());
        }
        self.observer().changed(&name, Change::Live);
        Ok(Publisher { bus: self.clone(), stream, reason: EndReason::Lost })
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
        self.bus.streams.write().unwrap_or_else(|p| p.into_inner()).remove(&self.stream.name);
        self.bus.observer().changed(&self.stream.name, Change::Ended(self.reason));
    }
}

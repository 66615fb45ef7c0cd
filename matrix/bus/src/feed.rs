//! [`Feed`]: which tracks a subscription reads now. The switchboard sets it, the gateway's side follows it.

use std::sync::Arc;

use crate::sync::{Mutex, lock};
use crate::{EndReason, Signal, Track};

/// One track, up to the epoch that was planned for.
#[derive(Clone)]
pub struct Point {
    /// What to read.
    pub track: Arc<Track>,
    /// Frames of later epochs are held back until a new plan raises this.
    pub epoch: u32,
}

impl Point {
    /// A track that was made here for what the plan asks: whatever it turns to is planned for.
    pub fn rendition(track: Arc<Track>) -> Self {
        Self { track, epoch: u32::MAX }
    }

    /// Whether it was made here.
    pub fn is_rendition(&self) -> bool {
        self.epoch == u32::MAX
    }
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.track, &other.track) && self.epoch == other.epoch
    }
}

/// What a subscription reads.
#[derive(Clone, Default, PartialEq)]
pub struct FeedValue {
    /// Video, if any.
    pub video: Option<Point>,
    /// Audio, if any.
    pub audio: Option<Point>,
    /// Set once nothing will follow.
    pub ended: Option<EndReason>,
}

struct State {
    value: FeedValue,
    version: u64,
    readers: Vec<(u64, Arc<Signal>)>,
    next_reader: u64,
}

impl State {
    fn replace(&mut self, value: FeedValue) {
        self.value = value;
        self.version += 1;
        for (_, signal) in &self.readers {
            signal.notify();
        }
    }
}

/// A value that is replaced now and then and watched by a few.
pub struct Feed {
    state: Mutex<State>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { state: Mutex::new(State { value: FeedValue::default(), version: 1, readers: Vec::new(), next_reader: 0 }) }
    }
}

impl Feed {
    /// Replaces the value and wakes who watches.
    pub fn set(&self, value: FeedValue) {
        lock(&self.state).replace(value);
    }

    /// Replaces the value if it is another one; says whether it was.
    pub fn set_if_changed(&self, value: FeedValue) -> bool {
        let mut state = lock(&self.state);
        let changed = state.value != value;
        if changed {
            state.replace(value);
        }
        changed
    }

    /// The value now.
    pub fn get(&self) -> FeedValue {
        lock(&self.state).value.clone()
    }

    /// Watches; the first [`FeedReader::changed`] gives the value of now.
    pub fn watch(self: &Arc<Self>, signal: Arc<Signal>) -> FeedReader {
        let mut state = lock(&self.state);
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.push((id, signal.clone()));
        drop(state);
        signal.notify();
        FeedReader { feed: self.clone(), id, seen: 0 }
    }
}

/// One watcher of a [`Feed`].
pub struct FeedReader {
    feed: Arc<Feed>,
    id: u64,
    seen: u64,
}

impl FeedReader {
    /// The value, if it was replaced since the last call.
    pub fn changed(&mut self) -> Option<FeedValue> {
        let state = lock(&self.feed.state);
        if state.version == self.seen {
            return None;
        }
        self.seen = state.version;
        Some(state.value.clone())
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        lock(&self.feed.state).readers.retain(|(id, _)| *id != self.id);
    }
}

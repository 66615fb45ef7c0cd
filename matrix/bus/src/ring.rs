//! The bounded window of one track: frames by sequence number, evicted in whole groups. No locks in here.

use std::collections::VecDeque;
use std::sync::Arc;

use patchbay_media::{Frame, MediaTime, TrackInfo};

use crate::Limits;

/// One frame with what was known of its track when it was pushed.
pub(crate) struct Entry {
    pub(crate) frame: Frame,
    pub(crate) info: Arc<TrackInfo>,
    /// Counts changes of traits; plans hold for one epoch.
    pub(crate) epoch: u32,
}

pub(crate) struct Ring {
    limits: Limits,
    entries: VecDeque<Entry>,
    /// Sequence number of the oldest entry.
    base: u64,
    newest_key: Option<u64>,
    bytes: usize,
}

impl Ring {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, entries: VecDeque::new(), base: 0, newest_key: None, bytes: 0 }
    }

    /// Sequence number of the oldest frame that is still here.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Sequence number the next frame will get.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Where the newest group begins.
    pub(crate) fn newest_key(&self) -> Option<u64> {
        self.newest_key
    }

    pub(crate) fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(self.base)?).ok()?)
    }

    pub(crate) fn newest_dts(&self) -> Option<MediaTime> {
        self.entries.back().map(|e| e.frame.dts)
    }

    /// Where a reader begins that wants nothing before `pts`: the oldest key frame at or after it.
    pub(crate) fn key_from(&self, pts: MediaTime) -> Option<u64> {
        let at = self.entries.iter().position(|e| e.frame.key && e.frame.pts >= pts)?;
        Some(self.base + at as u64)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if entry.frame.key {
            self.newest_key = Some(self.end());
        }
        self.bytes += entry.frame.payload.len();
        self.entries.push_back(entry);
        self.evict();
    }

    fn over_limits(&self) -> bool {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else { return false };
        self.bytes > self.limits.bytes_max || last.frame.dts - first.frame.dts > self.limits.span_max
    }

    /// Drops whole groups from the old end. The newest group stays, unless it alone breaks the byte limit: then
    /// it loses its head, and nobody can join before the next key frame.
    fn evict(&mut self) {
        while self.over_limits() && self.newest_key.is_some_and(|key| self.base < key) {
            self.pop();
            while self.entries.front().is_some_and(|e| !e.frame.key) && self.newest_key.is_some_and(|key| self.base < key) {
                self.pop();
            }
        }
        while self.bytes > self.limits.bytes_max && self.entries.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.frame.payload.len();
            if self.newest_key == Some(self.base) {
                self.newest_key = None;
            }
            self.base += 1;
        }
    }
}

//! [`Ring`]: a bounded window of serialised batches, and [`Place`]: where one viewer stands in it. No locks in here.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use patchbay_media::MediaTime;

/// Most bytes kept: the newest group goes whole into it, or nobody can join before the next one.
const BYTES_MAX: usize = 16 << 20;
/// Older groups are kept for this long at most, for viewers that are a little behind.
const SPAN_MAX: MediaTime = MediaTime::from_secs(4);

/// What leaves in one write: one picture with the sound before it, or some sound.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    /// Metadata and sequence headers, on batches that one can join at or whose headers are new.
    pub(super) header: Option<Bytes>,
    /// Which version of the headers it is decoded with.
    pub(super) version: u64,
    /// Whether decoding can begin with it.
    pub(super) key: bool,
    /// Decoding time of its last frame.
    pub(super) dts: MediaTime,
    pub(super) frames: u32,
    /// Of its oldest frame.
    pub(super) arrival: MediaTime,
}

#[derive(Default)]
pub(super) struct Ring {
    batches: VecDeque<Batch>,
    /// Sequence number of the oldest batch.
    base: u64,
    newest_key: Option<u64>,
    bytes: usize,
}

impl Ring {
    pub(super) fn end(&self) -> u64 {
        self.base + self.batches.len() as u64
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Batch> {
        self.batches.get(usize::try_from(seq.checked_sub(self.base)?).ok()?)
    }

    pub(super) fn push(&mut self, batch: Batch) {
        if batch.key {
            self.newest_key = Some(self.end());
        }
        self.bytes += batch.bytes.len();
        self.batches.push_back(batch);
        while self.bytes > BYTES_MAX && self.batches.len() > 1 || self.older_group_is_stale() {
            self.pop();
        }
    }

    fn older_group_is_stale(&self) -> bool {
        let (Some(first), Some(last), Some(key)) = (self.batches.front(), self.batches.back(), self.newest_key) else { return false };
        self.base < key && last.dts - first.dts > SPAN_MAX
    }

    fn pop(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.bytes.len();
            if self.newest_key == Some(self.base) {
                self.newest_key = None;
            }
            self.base += 1;
        }
    }

    /// Where a viewer can go on that has everything up to `delivered`: anywhere if it saw the same pictures before, else
    /// at a key frame.
    pub(super) fn after(&self, delivered: MediaTime, same_pictures: bool) -> Option<u64> {
        let covered = same_pictures && self.batches.front().is_some_and(|b| b.dts <= delivered);
        let at = self.batches.iter().position(|b| b.dts > delivered && (b.key || covered))?;
        Some(self.base + at as u64)
    }
}

/// What a viewer is to send.
pub(super) struct Taken {
    /// To be sent first.
    pub(super) header: Option<Bytes>,
    pub(super) batch: Batch,
    /// Frames that were skipped before it.
    pub(super) skipped: u64,
}

/// A viewer's position.
#[derive(Default)]
pub(super) struct Place {
    /// `None` until it can join.
    next: Option<u64>,
    version: Option<u64>,
}

impl Place {
    /// Goes to `seq`; the headers are sent again.
    pub(super) fn go(&mut self, seq: u64) {
        *self = Self { next: Some(seq), version: None };
    }

    /// (sequence number, header version) when it has everything that is in `ring`.
    pub(super) fn caught_up(&self, ring: &Ring) -> Option<(u64, u64)> {
        self.next.filter(|next| *next == ring.end()).zip(self.version)
    }

    /// Somebody else went on from here.
    pub(super) fn went(&mut self, next: u64, version: u64) {
        *self = Self { next: Some(next), version: Some(version) };
    }

    /// Forgets where it was: goes on with the newest group.
    pub(super) fn rejoin(&mut self) {
        *self = Self::default();
    }

    /// The next batch, if there is one. `header` is the ring's newest, for those who join inside a group.
    pub(super) fn take(&mut self, ring: &Ring, lag_max: Duration, header: Option<&Bytes>) -> Option<Taken> {
        let mut skipped = 0;
        let next = match self.next {
            None => ring.newest_key?,
            Some(next) => self.catch_up(ring, next, lag_max, &mut skipped)?,
        };
        let batch = ring.get(next)?.clone();
        let header = if self.version == Some(batch.version) { None } else { batch.header.clone().or_else(|| header.cloned()) };
        *self = Self { next: Some(next + 1), version: Some(batch.version) };
        Some(Taken { header, batch, skipped })
    }

    /// `next`, or the newest group's start when `next` is gone or too far behind.
    fn catch_up(&self, ring: &Ring, next: u64, lag_max: Duration, skipped: &mut u64) -> Option<u64> {
        let gone = next < ring.base;
        let late = match (ring.get(next), ring.batches.back()) {
            (Some(batch), Some(newest)) => newest.dts - batch.dts > MediaTime::from(lag_max),
            _ => false,
        };
        let key = match ring.newest_key {
            Some(key) if gone || (late && key > next) => key,
            None if gone => return None,
            _ => return Some(next),
        };
        let lost = (next.max(ring.base)..key).filter_map(|seq| ring.get(seq)).map(|b| u64::from(b.frames)).sum::<u64>();
        // Batches that are gone held a frame each at least.
        *skipped = lost + ring.base.saturating_sub(next);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(1);

    fn batch(ms: i64, key: bool, size: usize) -> Batch {
        let (bytes, dts) = (Bytes::from(vec![0; size]), MediaTime::from_millis(ms));
        let header = key.then(|| Bytes::from_static(b"header"));
        Batch { bytes, header, version: 1, key, dts, frames: 1, arrival: dts }
    }

    /// A key frame each 500 ms, a picture each 100 ms.
    fn ring(until_ms: i64) -> Ring {
        let mut ring = Ring::default();
        (0..=until_ms / 100).for_each(|i| ring.push(batch(i * 100, i % 5 == 0, 10)));
        ring
    }

    fn ms(taken: &Option<Taken>) -> Option<i64> {
        taken.as_ref().map(|t| t.batch.dts.as_millis())
    }

    #[test]
    fn a_late_joiner_begins_with_the_newest_group_and_its_header() {
        let (ring, mut place) = (ring(1_700), Place::default());
        let first = place.take(&ring, LAG, None);
        assert_eq!((ms(&first), first.unwrap().header.is_some()), (Some(1_500), true));
        let second = place.take(&ring, LAG, None);
        assert_eq!((ms(&second), second.unwrap().header), (Some(1_600), None));
        assert_eq!((ms(&place.take(&ring, LAG, None)), ms(&place.take(&ring, LAG, None))), (Some(1_700), None));
    }

    #[test]
    fn nobody_joins_before_there_is_a_key_frame() {
        let mut ring = Ring::default();
        ring.push(batch(0, false, 10));
        assert!(Place::default().take(&ring, LAG, None).is_none());
    }

    #[test]
    fn a_viewer_that_lags_skips_to_the_newest_group_and_counts() {
        let (mut ring, mut place) = (ring(300), Place::default());
        assert_eq!(ms(&place.take(&ring, LAG, None)), Some(0));
        (4..=17).for_each(|i| ring.push(batch(i * 100, i % 5 == 0, 10)));
        let taken = place.take(&ring, LAG, None);
        assert_eq!(ms(&taken), Some(1_500));
        assert_eq!(taken.unwrap().skipped, 14);
    }

    #[test]
    fn a_viewer_whose_batches_are_gone_skips_too() {
        let (mut ring, mut place) = (ring(300), Place::default());
        assert_eq!(ms(&place.take(&ring, LAG, None)), Some(0));
        (4..=99).for_each(|i| ring.push(batch(i * 100, i % 5 == 0, 10)));
        assert!(ring.base > 40, "{}", ring.base);
        assert_eq!(ms(&place.take(&ring, Duration::from_secs(100), None)), Some(9_500));
    }

    #[test]
    fn the_window_is_bounded_in_bytes_even_inside_a_group() {
        let mut ring = Ring::default();
        ring.push(batch(0, true, 10));
        (1..40).for_each(|i| ring.push(batch(i, false, 1 << 20)));
        assert!(ring.bytes <= BYTES_MAX && ring.newest_key.is_none());
        assert!(Place::default().take(&ring, LAG, None).is_none());
    }

    #[test]
    fn switching_needs_a_key_frame_unless_the_pictures_are_the_same() {
        let ring = ring(900);
        assert_eq!(ring.after(MediaTime::from_millis(250), true), Some(3));
        assert_eq!(ring.after(MediaTime::from_millis(250), false), Some(5));
        assert_eq!(ring.after(MediaTime::from_millis(500), false), None);
        assert_eq!(ring.after(MediaTime::from_millis(-10), true), Some(0));
    }
}

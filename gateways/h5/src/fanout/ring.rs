//! [`Ring`]: a bounded window of serialised batches, and [`Place`]: where one viewer stands in it. No locks in here.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use patchbay_media::MediaTime;

/// Most bytes kept: the newest group goes whole into it, or nobody can join before the next one.
const BYTES_MAX: usize = 8 << 20;
/// Older groups are kept for this long at most, for viewers that are a little behind.
const SPAN_MAX: MediaTime = MediaTime::from_secs(2);

/// What leaves in one message: one picture with the sound before it, or some sound.
#[derive(Clone)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    /// Whether one can begin with it: it begins with tables and a key frame.
    pub(super) key: bool,
    /// Decoding time of its last frame.
    pub(super) dts: MediaTime,
    pub(super) frames: u32,
    /// Of its oldest frame.
    pub(super) arrival: MediaTime,
    /// When it was ready to be sent.
    pub(super) ready: MediaTime,
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
    fn end(&self) -> u64 {
        self.base + self.batches.len() as u64
    }

    fn get(&self, seq: u64) -> Option<&Batch> {
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

    /// How long ago the newest group began, when `now` is.
    pub(super) fn group_age(&self, now: MediaTime) -> Option<MediaTime> {
        Some(now - self.get(self.newest_key?)?.ready)
    }

    fn older_group_is_stale(&self) -> bool {
        let (Some(first), Some(last), Some(key)) = (self.batches.front(), self.batches.back(), self.newest_key) else { return false };
        self.base < key && last.dts - first.dts > SPAN_MAX
    }

    fn pop(&mut self) {
        if let Some(batch) = self.batches.pop_front() {
            self.bytes -= batch.bytes.len();
            self.newest_key = self.newest_key.filter(|key| *key != self.base);
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

    /// Frames in `from..to`; batches that are gone held one each at least.
    fn frames(&self, from: u64, to: u64) -> u64 {
        let kept = (from.max(self.base)..to).filter_map(|seq| self.get(seq)).map(|b| u64::from(b.frames)).sum::<u64>();
        kept + self.base.min(to).saturating_sub(from)
    }
}

/// What a viewer is to send.
pub(super) struct Taken {
    pub(super) batch: Batch,
    /// Frames that were skipped before it.
    pub(super) skipped: u64,
}

/// Where a viewer goes on.
#[derive(Clone, Copy, Default)]
enum At {
    /// With the newest group.
    #[default]
    Newest,
    /// With a group that begins here or later.
    KeyFrom(u64),
    /// Here.
    Next(u64),
}

/// A viewer's position.
#[derive(Default)]
pub(super) struct Place {
    at: At,
    /// Up to here it was late when it joined, and is allowed to be.
    joined_behind: u64,
}

impl Place {
    /// Goes to `seq`.
    pub(super) fn go(&mut self, seq: u64, ring: &Ring) {
        *self = Self { at: At::Next(seq), joined_behind: ring.end() };
    }

    /// The next batch, if there is one. One that has waited for longer than `lag_max` is skipped with the rest of its group.
    pub(super) fn take(&mut self, ring: &Ring, lag_max: Duration, now: MediaTime) -> Option<Taken> {
        let late = |seq: u64| ring.get(seq).is_none_or(|b| now - b.ready > lag_max.into());
        if let At::Next(seq) = self.at
            && seq < ring.end()
            && (seq < ring.base || seq >= self.joined_behind && late(seq))
        {
            self.at = At::KeyFrom(seq + 1);
        }
        let (seq, skipped) = match self.at {
            At::Newest => {
                self.joined_behind = ring.end();
                (ring.newest_key?, 0)
            }
            At::KeyFrom(from) => {
                // An old group would only be another to be late in.
                let key = ring.newest_key.filter(|key| *key >= from && !late(*key))?;
                (key, 1 + ring.frames(from, key))
            }
            At::Next(seq) => (seq, 0),
        };
        let batch = ring.get(seq)?.clone();
        self.at = At::Next(seq + 1);
        Some(Taken { batch, skipped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_millis(500);

    fn at(ms: i64) -> MediaTime {
        MediaTime::from_millis(ms)
    }

    fn batch(ms: i64, key: bool, size: usize) -> Batch {
        Batch { bytes: vec![0; size].into(), key, dts: at(ms), frames: 1, arrival: at(ms), ready: at(ms) }
    }

    /// A key frame each second, a picture each 100 ms.
    fn extend(ring: &mut Ring, from_ms: i64, until_ms: i64) {
        (from_ms / 100..=until_ms / 100).for_each(|i| ring.push(batch(i * 100, i % 10 == 0, 10)));
    }

    fn take(place: &mut Place, ring: &Ring, now_ms: i64) -> Option<(i64, u64)> {
        place.take(ring, LAG, at(now_ms)).map(|t| (t.batch.dts.as_millis(), t.skipped))
    }

    #[test]
    fn a_joiner_gets_the_newest_group_from_its_begin_however_old() {
        let (mut ring, mut place) = (Ring::default(), Place::default());
        extend(&mut ring, 0, 1_900);
        for ms in 10..20 {
            assert_eq!(take(&mut place, &ring, 1_900), Some((ms * 100, 0)));
        }
        assert_eq!(take(&mut place, &ring, 1_900), None);
        ring.push(batch(2_000, true, 10));
        assert_eq!(take(&mut place, &ring, 2_000), Some((2_000, 0)));
    }

    #[test]
    fn nobody_joins_before_there_is_a_key_frame() {
        let mut ring = Ring::default();
        ring.push(batch(100, false, 10));
        assert!(take(&mut Place::default(), &ring, 100).is_none());
    }

    #[test]
    fn a_viewer_that_lags_goes_on_with_the_newest_group_and_counts() {
        let (mut ring, mut place) = (Ring::default(), Place::default());
        extend(&mut ring, 0, 0);
        assert_eq!(take(&mut place, &ring, 0), Some((0, 0)));
        extend(&mut ring, 100, 1_200);
        // 100 to 900 are skipped.
        assert_eq!(take(&mut place, &ring, 1_200), Some((1_000, 9)));
    }

    #[test]
    fn an_old_group_is_not_worth_going_to() {
        let (mut ring, mut place) = (Ring::default(), Place::default());
        extend(&mut ring, 0, 0);
        assert_eq!(take(&mut place, &ring, 0), Some((0, 0)));
        extend(&mut ring, 100, 1_700);
        assert_eq!(take(&mut place, &ring, 1_700), None, "the group of 1000 is 700 ms old");
        extend(&mut ring, 1_800, 2_000);
        assert_eq!(take(&mut place, &ring, 2_000), Some((2_000, 19)));
    }

    #[test]
    fn a_burst_of_the_source_makes_nobody_late() {
        let (mut ring, mut place) = (Ring::default(), Place::default());
        extend(&mut ring, 0, 0);
        assert_eq!(take(&mut place, &ring, 0), Some((0, 0)));
        (1..9).for_each(|i| ring.push(Batch { ready: at(900), ..batch(i * 100, false, 10) }));
        assert_eq!(take(&mut place, &ring, 910), Some((100, 0)));
    }

    #[test]
    fn the_window_is_bounded_in_bytes_and_time() {
        let mut ring = Ring::default();
        ring.push(batch(0, true, 10));
        (1..40).for_each(|i| ring.push(batch(i, false, 1 << 20)));
        assert!(ring.bytes <= BYTES_MAX && ring.newest_key.is_none());
        let (mut ring, mut place) = (Ring::default(), Place::default());
        extend(&mut ring, 0, 0);
        assert_eq!(take(&mut place, &ring, 0), Some((0, 0)));
        extend(&mut ring, 100, 9_900);
        assert!(ring.batches.len() <= 31, "{}", ring.batches.len());
        extend(&mut ring, 10_000, 10_000);
        assert_eq!(take(&mut place, &ring, 10_000), Some((10_000, 99)), "what is gone is skipped too");
    }

    #[test]
    fn switching_needs_a_key_frame_unless_the_pictures_are_the_same() {
        let mut ring = Ring::default();
        extend(&mut ring, 0, 1_500);
        assert_eq!(ring.after(at(250), true), Some(3));
        assert_eq!(ring.after(at(250), false), Some(10));
        assert_eq!(ring.after(at(1_000), false), None);
    }
}

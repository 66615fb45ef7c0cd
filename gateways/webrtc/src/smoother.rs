//! [`Smoother`]: lets sound leave as evenly as it is to be heard.
//!
//! A transcoder cuts packets of 20 ms from sound that comes in pieces of 23, in the rhythm of a sender that batches: they come ready
//! in bursts. A browser's jitter buffer answers with a margin several times the burst, which it keeps; holding a packet
//! back here for the length of the burst is the cheaper half of that.

use std::collections::VecDeque;
use std::sync::Arc;

use patchbay_media::MediaTime;

use crate::lane::Packed;

/// Longest time a packet is held: about one burst of a usual sender.
const HOLD_MAX: MediaTime = MediaTime::from_millis(45);
/// Packets held at most; a longer burst is a source that catches up, and what is old leaves at once.
const WAITING_MAX: usize = 8;
/// The delay falls by this part of the distance with each packet that came early: a second for a third of it.
const FALL: i64 = 128;

struct Waiting {
    packed: Arc<Packed>,
    ready: MediaTime,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Smoother {
    waiting: VecDeque<Waiting>,
    /// From a packet's time to its departure: what the latest ones of late needed.
    delay: Option<MediaTime>,
}

impl Smoother {
    /// Takes a packet that is ready at `now`.
    pub(crate) fn push(&mut self, packed: Arc<Packed>, now: MediaTime) {
        let late = now - packed.pts;
        let delay = self.delay.filter(|&delay| late <= delay && delay - late <= HOLD_MAX + HOLD_MAX);
        // Later than all of late, or on another clock: this is the measure now. Else the measure slowly forgets.
        self.delay = Some(delay.map_or(late, |delay| delay - MediaTime::from_nanos((delay - late).as_nanos() / FALL)));
        self.waiting.push_back(Waiting { packed, ready: now });
    }

    /// When the next packet leaves.
    pub(crate) fn next(&self) -> Option<MediaTime> {
        let front = self.waiting.front()?;
        if self.waiting.len() > WAITING_MAX {
            return Some(front.ready);
        }
        let due = front.packed.pts + self.delay.unwrap_or_default();
        Some(due.min(front.ready + HOLD_MAX))
    }

    /// The next packet that may leave by `now`.
    pub(crate) fn take(&mut self, now: MediaTime) -> Option<Arc<Packed>> {
        let due = self.next()?;
        (due <= now).then(|| self.waiting.pop_front()).flatten().map(|w| w.packed)
    }

    /// The next packet, due or not.
    pub(crate) fn flush(&mut self) -> Option<Arc<Packed>> {
        self.waiting.pop_front().map(|w| w.packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: i64) -> MediaTime {
        MediaTime::from_millis(n)
    }

    /// Packets of 20 ms that come ready with AAC frames of 1024 samples at 44.1 kHz, read every 10 ms.
    fn departures(count: i64) -> Vec<(i64, i64)> {
        let mut smoother = Smoother::default();
        let (mut ready, mut left) = (VecDeque::new(), Vec::new());
        for n in 0..count {
            let pts = n * 20_000;
            let piece = (pts + 20_000 + 23_219) / 23_220 * 23_220;
            ready.push_back((MediaTime::from_micros((piece + 9_999) / 10_000 * 10_000 + 3_000), MediaTime::from_micros(pts)));
        }
        for tick in 0..count * 20 + 200 {
            while let Some((_, pts)) = ready.pop_front_if(|(at, _)| *at <= ms(tick)) {
                let packed = Packed { payloads: vec![], size: 0, key: true, pts, duration: ms(20), arrival: pts };
                smoother.push(Arc::new(packed), ms(tick));
            }
            while let Some(packed) = smoother.take(ms(tick)) {
                left.push((packed.pts.as_millis(), tick));
            }
        }
        left
    }

    #[test]
    fn packets_that_come_in_bursts_leave_evenly_and_not_much_later() {
        let left = departures(500);
        assert_eq!(left.len(), 500);
        let late: Vec<i64> = left.iter().skip(50).map(|(pts, at)| at - pts).collect();
        let (min, max) = (late.iter().min().unwrap(), late.iter().max().unwrap());
        assert!(max - min <= 3, "lateness from {min} to {max} ms");
        // The worst that any packet needs: its own length, the wait for the piece, the reader's rhythm.
        assert!(*max <= 20 + 24 + 10 + 4, "{max} ms");
    }

    #[test]
    fn nothing_is_held_long_and_a_jump_of_the_clock_is_followed() {
        let mut smoother = Smoother::default();
        let packed = |pts| Arc::new(Packed { payloads: vec![], size: 0, key: true, pts, duration: ms(20), arrival: pts });
        smoother.push(packed(ms(0)), ms(100));
        assert!(smoother.take(ms(100)).is_some());
        smoother.push(packed(ms(90)), ms(101));
        assert_eq!(smoother.next(), Some(ms(101) + HOLD_MAX));
        assert!(smoother.flush().is_some());
        smoother.push(packed(ms(5_000)), ms(120));
        assert!(smoother.take(ms(120)).is_some(), "another clock");
        (0..20).for_each(|n| smoother.push(packed(ms(5_020 + n * 20)), ms(121)));
        let at_once = std::iter::from_fn(|| smoother.take(ms(121))).count();
        assert!(at_once >= 20 - WAITING_MAX, "a burst is not kept: {at_once}");
    }
}

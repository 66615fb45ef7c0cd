//! [`Queue`]: a viewer's frames that wait for their turn, and what is left out when the link takes less than the stream gives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_media::MediaTime;

use crate::lane::Packed;

/// Frames that wait at most.
const FRAMES_MAX: usize = 1_024;
/// How long a picture may wait for its turn.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// What its key frame took to leave, all of a group may wait longer, up to this: a narrow link would show key frames only.
const KEY_TOOK_MAX: Duration = Duration::from_millis(750);
/// A group that is caught up with may wait longer: the link is still being measured then.
const CATCH_UP_MAX: Duration = Duration::from_millis(1_500);

/// A frame on its way out.
pub(crate) struct Queued {
    pub(crate) packed: Arc<Packed>,
    /// The first packet that has not been written.
    pub(crate) next: usize,
    /// Presentation time on the viewer's clock: the frame's own, or squeezed while catching up.
    pub(crate) pts: MediaTime,
    /// RTP timestamp, once its turn has come.
    pub(crate) time: Option<u32>,
    /// Not of a cached group.
    pub(crate) live: bool,
    since: Instant,
}

/// What was left out.
pub(crate) struct Shed {
    pub(crate) frames: usize,
    /// Nothing that is left can be decoded; a key frame has to come first.
    pub(crate) need_key: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Queue {
    frames: VecDeque<Queued>,
    /// Until when a cached group is caught up with.
    catching_up: Option<Instant>,
    /// From the arrival of the last key frame until it had left.
    key_took: Duration,
}

impl Queue {
    pub(crate) fn push(&mut self, packed: Arc<Packed>, pts: MediaTime, live: bool, now: Instant) {
        if !live {
            self.catching_up.get_or_insert(now + CATCH_UP_MAX);
        }
        self.frames.push_back(Queued { packed, next: 0, pts, time: None, live, since: now });
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Queued> {
        self.frames.front_mut()
    }

    /// Takes out the frame that has left.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Queued> {
        let front = self.frames.pop_front();
        if let Some(key) = front.as_ref().filter(|front| front.packed.key) {
            self.key_took = now.saturating_duration_since(key.since).min(KEY_TOOK_MAX);
        }
        if self.frames.is_empty() {
            self.catching_up = None;
        }
        front
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.catching_up = None;
    }

    /// Leaves out what is late: all up to the newest key frame, or all. A frame that has begun is finished, else a link
    /// that is slower than one group would never show a picture.
    pub(crate) fn shed(&mut self, now: Instant) -> Option<Shed> {
        let front = self.frames.front()?;
        let full = self.frames.len() > FRAMES_MAX;
        let late =
            now.saturating_duration_since(front.since) > WAIT_MAX + self.key_took && self.catching_up.is_none_or(|until| now > until);
        if !late && !full {
            return None;
        }
        let begun = usize::from(front.next > 0);
        let newest_key = if full { None } else { (begun..self.frames.len()).rev().find(|&i| self.frames[i].packed.key) };
        let end = newest_key.unwrap_or(self.frames.len());
        let frames = self.frames.drain(begun..end).count();
        (frames > 0).then_some(Shed { frames, need_key: newest_key.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: i64, key: bool) -> Arc<Packed> {
        let pts = MediaTime::from_millis(n);
        Arc::new(Packed { payloads: vec![Arc::from(&[0; 9][..])], size: 9, key, pts, duration: MediaTime::ZERO, arrival: pts })
    }

    fn left(queue: &mut Queue, now: Instant) -> Vec<i64> {
        std::iter::from_fn(|| queue.pop(now)).map(|q| q.pts.as_millis()).collect()
    }

    fn filled(keys: &[i64], live: bool, now: Instant) -> Queue {
        let mut queue = Queue::default();
        (0..6).for_each(|n| queue.push(frame(n, keys.contains(&n)), MediaTime::from_millis(n), live, now));
        queue
    }

    #[test]
    fn what_is_late_goes_up_to_the_newest_key_frame() {
        let now = Instant::now();
        let mut queue = filled(&[0, 4], true, now);
        assert!(queue.shed(now + WAIT_MAX).is_none(), "not late yet");
        let shed = queue.shed(now + 2 * WAIT_MAX).unwrap();
        assert_eq!((shed.frames, shed.need_key), (4, false));
        assert_eq!(left(&mut queue, now), [4, 5]);
    }

    #[test]
    fn without_a_key_frame_all_goes_but_what_has_begun() {
        let now = Instant::now();
        let mut queue = filled(&[0], true, now);
        queue.front_mut().unwrap().next = 1;
        let shed = queue.shed(now + 2 * WAIT_MAX).unwrap();
        assert_eq!((shed.frames, shed.need_key), (5, true));
        assert!(queue.shed(now + 3 * WAIT_MAX).is_none(), "the one that has begun is finished");
        assert_eq!(left(&mut queue, now), [0]);
    }

    #[test]
    fn a_cached_group_has_more_time_and_the_queue_an_end() {
        let now = Instant::now();
        let mut queue = filled(&[0], false, now);
        assert!(queue.shed(now + 2 * WAIT_MAX).is_none());
        assert!(queue.shed(now + CATCH_UP_MAX + WAIT_MAX).is_none(), "its key frame is the newest, and stays");
        queue.pop(now);
        assert_eq!(queue.shed(now + CATCH_UP_MAX + WAIT_MAX).map(|shed| shed.frames), Some(5));
        (0..=FRAMES_MAX as i64).for_each(|n| queue.push(frame(n, n == 0), MediaTime::from_millis(n), true, now));
        assert_eq!(queue.shed(now).map(|shed| (shed.frames, shed.need_key)), Some((FRAMES_MAX + 1, true)));
    }

    #[test]
    fn a_group_whose_key_frame_took_long_may_wait_as_long() {
        let now = Instant::now();
        let mut queue = filled(&[0], true, now);
        let later = now + 2 * WAIT_MAX;
        queue.pop(later);
        assert!(queue.shed(later + WAIT_MAX / 2).is_none());
        assert_eq!(queue.shed(later + 2 * WAIT_MAX).map(|shed| (shed.frames, shed.need_key)), Some((5, true)));
    }
}

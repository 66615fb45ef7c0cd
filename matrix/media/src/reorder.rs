//! [`Reorder`]: how many pictures a stream really shows out of decoding order, seen from its composition times.

use crate::MediaTime;

/// No codec reorders more (H.264 A.3.1).
const DEPTH_MAX: usize = 16;

/// Watches presentation times in decoding order.
#[derive(Default)]
pub struct Reorder {
    /// The largest presentation times of this group, in ascending order.
    later: Vec<MediaTime>,
}

impl Reorder {
    /// How many pictures that were decoded earlier are shown after this one.
    pub fn observe(&mut self, pts: MediaTime, key: bool) -> u8 {
        if key {
            self.later.clear();
        }
        let at = self.later.partition_point(|t| *t <= pts);
        let depth = self.later.len() - at;
        self.later.insert(at, pts);
        if self.later.len() > DEPTH_MAX {
            self.later.remove(0);
        }
        depth.min(DEPTH_MAX) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deepest(pts: &[i64]) -> u8 {
        let mut reorder = Reorder::default();
        pts.iter().enumerate().map(|(i, ms)| reorder.observe(MediaTime::from_millis(*ms), i == 0)).max().unwrap_or(0)
    }

    #[test]
    fn depth_counts_pictures_that_were_decoded_too_early() {
        assert_eq!(deepest(&[0, 33, 66, 100]), 0);
        assert_eq!(deepest(&[0, 100, 33, 66, 200, 133, 166]), 1);
        assert_eq!(deepest(&[0, 133, 66, 33, 100]), 2);
    }

    #[test]
    fn memory_is_bounded() {
        let mut reorder = Reorder::default();
        (0..10_000).for_each(|i| _ = reorder.observe(MediaTime::from_millis(i % 97), false));
        assert!(reorder.later.len() <= DEPTH_MAX);
    }
}

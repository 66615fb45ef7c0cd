//! [`Reorder`]: how many pictures a stream really shows out of decoding order, seen from its time stamps.

use patchbay_media::MediaTime;

/// No codec reorders more (H.264 A.3.1).
const DEPTH_MAX: usize = 16;

/// Watches presentation times in decoding order.
#[derive(Default)]
pub(super) struct Reorder {
    /// The latest presentation times since the last key frame, ascending.
    later: Vec<MediaTime>,
}

impl Reorder {
    /// How many pictures that were decoded earlier are shown after this one.
    pub(super) fn observe(&mut self, pts: MediaTime, key: bool) -> u8 {
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

//! [`Descent`]: how far below the largest layer of a simulcast a sink is served, by what its link takes.
//!
//! Gateways skip frames for a sink that cannot keep up; that is the sign, whatever the protocol. Refuses: to know bit rates,
//! which are guesses on both sides.

use patchbay_media::MediaTime;

/// Skips within this time after a change belong to what was before.
const SETTLE: MediaTime = MediaTime::from_secs(1);
/// How long a smaller layer is kept before the next larger one is tried: this at first, twice as long after each failure.
const PATIENCE_MIN: MediaTime = MediaTime::from_secs(6);
const PATIENCE_MAX: MediaTime = MediaTime::from_secs(96);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Descent {
    below: usize,
    changed_at: MediaTime,
    patience: MediaTime,
    skipped: u64,
}

impl Descent {
    /// Begins with the largest.
    pub fn new(now: MediaTime) -> Self {
        Self { below: 0, changed_at: now, patience: PATIENCE_MIN, skipped: 0 }
    }

    /// How many layers above it are left out.
    pub fn below(&self) -> usize {
        self.below
    }

    /// Looks at the frames that were skipped for the sink since it began, and at how many smaller layers there are; whether
    /// another layer is called for.
    pub fn look(&mut self, skipped: u64, smaller: usize, now: MediaTime) -> bool {
        let starved = skipped > std::mem::replace(&mut self.skipped, skipped);
        let kept = now - self.changed_at;
        if starved && kept > SETTLE && self.below < smaller {
            // A larger layer that was tried in vain.
            self.patience = if kept < self.patience { (self.patience + self.patience).min(PATIENCE_MAX) } else { PATIENCE_MIN };
            (self.below, self.changed_at) = (self.below + 1, now);
            return true;
        }
        if starved {
            self.changed_at = now;
        } else if self.below > 0 && kept > self.patience {
            (self.below, self.changed_at) = (self.below - 1, now);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> MediaTime {
        MediaTime::from_secs(seconds)
    }

    #[test]
    fn a_starved_sink_descends_and_climbs_again_with_patience() {
        let mut descent = Descent::new(at(0));
        assert!(!descent.look(0, 2, at(5)) && descent.below() == 0);
        assert!(descent.look(9, 2, at(10)) && descent.below() == 1);
        assert!(!descent.look(12, 2, at(10)), "what was skipped before the change took effect");
        assert!(!descent.look(12, 2, at(15)));
        assert!(descent.look(12, 2, at(17)) && descent.below() == 0);
        assert!(descent.look(20, 2, at(19)) && descent.below() == 1, "in vain");
        assert!(!descent.look(20, 2, at(30)), "so the next attempt comes later");
        assert!(descent.look(20, 2, at(32)) && descent.below() == 0);
    }

    #[test]
    fn there_is_nothing_below_the_smallest() {
        let mut descent = Descent::new(at(0));
        assert!(descent.look(1, 1, at(2)));
        assert!(!descent.look(2, 1, at(4)) && descent.below() == 1);
    }
}

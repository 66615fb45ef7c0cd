//! One direction of one client's path, without sockets and clocks.
//!
//! Every packet takes the same number of draws whatever the profile says, so that a seed means the same fate for the same
//! packets in the same order, and a change of one value leaves the others' decisions as they are.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::Profile;

/// What becomes of a packet; times are those of the caller's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Lost on the way.
    Lost,
    /// The queue in front of the bottleneck was full.
    Full,
    /// Arrives then; twice if `again` says so.
    Arrives {
        /// When.
        at: Duration,
        /// When its copy does.
        again: Option<Duration>,
        /// What is sent behind it arrives first.
        overtaken: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    rng: StdRng,
    /// In the middle of a burst of losses.
    losing: bool,
    /// Until when the bottleneck is busy.
    busy: Duration,
    /// When the newest packet that kept its place arrives.
    newest: Duration,
}

impl Link {
    /// A direction with chances of its own.
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), losing: false, busy: Duration::ZERO, newest: Duration::ZERO }
    }

    /// Decides about a packet of `bytes` sent at `now`.
    pub fn send(&mut self, profile: &Profile, now: Duration, bytes: usize) -> Fate {
        let [loss, jitter, reorder, duplicate] = std::array::from_fn(|_| self.rng.random::<f64>());
        self.losing = self.loses(profile, loss);
        if self.losing || profile.stall {
            return Fate::Lost;
        }
        if self.backlog(now) > profile.queue {
            return Fate::Full;
        }
        let sent = self.occupy(profile, now, bytes);
        let due = (sent + profile.delay + profile.jitter.mul_f64(jitter)).max(self.newest);
        let overtaken = reorder * 100.0 < profile.reorder;
        let at = if overtaken { due + profile.hold } else { due };
        if !overtaken {
            self.newest = due;
        }
        let again = (duplicate * 100.0 < profile.duplicate).then_some(at);
        Fate::Arrives { at, again, overtaken }
    }

    /// When `bytes` of a stream sent at `now` arrive: nothing is lost and nothing overtakes.
    pub fn stream(&mut self, profile: &Profile, now: Duration, bytes: usize) -> Duration {
        let jitter = self.rng.random::<f64>();
        let sent = self.occupy(profile, now, bytes);
        self.newest = (sent + profile.delay + profile.jitter.mul_f64(jitter)).max(self.newest);
        self.newest
    }

    /// How long a packet sent now would wait for the bottleneck.
    pub fn backlog(&self, now: Duration) -> Duration {
        self.busy.saturating_sub(now)
    }

    /// The moment the last bit has passed the bottleneck.
    fn occupy(&mut self, profile: &Profile, now: Duration, bytes: usize) -> Duration {
        let takes = match profile.rate_kbps {
            0 => Duration::ZERO,
            // bits / (kbit/s) are milliseconds
            kbps => Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(kbps) / 1e3),
        };
        self.busy = self.busy.max(now) + takes;
        self.busy
    }

    /// Gilbert's two states: in the bad one everything is lost. The chances to change follow from how much is lost in all
    /// and from the mean length of a burst.
    fn loses(&self, profile: &Profile, draw: f64) -> bool {
        let loss = profile.loss / 100.0;
        if profile.burst <= 1.0 || loss <= 0.0 || loss >= 1.0 {
            return draw < loss;
        }
        let leave = 1.0 / profile.burst;
        if self.losing { draw >= leave } else { draw < leave * loss / (1.0 - loss) }
    }
}

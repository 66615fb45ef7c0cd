//! [`Pace`]: how fast a viewer's packets may leave.
//!
//! Owns: the credit of one viewer, by the estimate of its link if its browser reports arrivals (transport-wide
//! feedback), else by its share of the worker. Refuses: to know frames; what to leave out is the sender's decision.

use std::time::{Duration, Instant};

/// Where an estimate begins: enough for a usual picture from its first frame on. One that is held back at first is out of
/// step with its sound for long after. A narrower link says so within a few hundred milliseconds.
pub(crate) const START_BPS: u64 = 10_000_000;
/// A viewer whose link nobody measures: its share of the worker.
const SHARE_BPS: u64 = 600_000_000;
/// What may leave at once, so that a usual picture stays one message to the kernel.
const BURST: Duration = Duration::from_millis(40);
/// Least and most bytes of a burst: two packets, and what one worker sends for one viewer before the next has its turn.
const BURST_BYTES: std::ops::RangeInclusive<i64> = 2_400..=76_800;
/// What has to come together before the next burst.
const PAUSE: Duration = Duration::from_millis(5);

/// A round trip this much longer than the shortest is a queue, if it stays.
const QUEUE_RTT: Duration = Duration::from_millis(100);

/// While a queue stands, one part in this many of what the link takes is sent, so that it goes.
const DRAIN: u64 = 2;

/// A link that has a queue and loses this much is full: it takes what arrives.
const FULL_LOSS: f32 = 0.1;
/// Reports in the second that a report of losses speaks of.
const REPORTS: usize = 4;

/// Each longer round trip lifts the shortest by one part in this many of what it is longer.
const RTT_MIN_WEIGHT: u32 = 256;

/// An estimate is exceeded by this factor per round trip measured.
const EXCESS_STEP: f64 = 1.25;
/// How long an estimate is kept to after a queue: this at first, then twice as long each time.
const PATIENCE_MIN: Duration = Duration::from_secs(2);
const PATIENCE_MAX: Duration = Duration::from_secs(16);

/// See the module.
///
/// A receiver that is short of CPU time reports its packets late, which looks like a narrow link. So an estimate is tried
/// to be exceeded as long as round trips show no queue; and once the link has been enough for the stream, a lower
/// estimate binds only with a queue.
pub(crate) struct Pace {
    estimate_bps: Option<u64>,
    /// What the stream takes.
    needed_bps: u64,
    /// The estimate is the limit.
    bound: bool,
    rtt_min: Duration,
    /// Bytes sent since the last report of losses, and before each of those before.
    sent: [u64; REPORTS],
    /// How many of these are over.
    reports: usize,
    /// What a full link was seen to take; an estimate that begins high comes down to it slowly.
    full_bps: Option<u64>,
    /// How far it is exceeded, and from when on that may grow.
    excess: f64,
    calm_at: Instant,
    /// How long it is kept to after a queue.
    patience: Duration,
    /// The last but one round trip was long.
    was_long: bool,
    rate_bps: u64,
    /// Bytes; below zero when the last packet was larger than what was left.
    credit: i64,
    at: Instant,
}

impl Pace {
    /// Full credit, no estimate.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            estimate_bps: None,
            needed_bps: SHARE_BPS,
            bound: true,
            rtt_min: Duration::MAX,
            sent: [0; REPORTS],
            reports: 0,
            full_bps: None,
            excess: 1.0,
            calm_at: now,
            patience: PATIENCE_MIN,
            was_long: false,
            rate_bps: SHARE_BPS,
            credit: *BURST_BYTES.end(),
            at: now,
        }
    }

    /// What the link is thought to take; `None` when nobody measures it.
    pub(crate) fn estimated(&mut self, bps: Option<u64>) {
        self.estimate_bps = bps;
        self.decide();
    }

    /// What the stream takes.
    pub(crate) fn needs(&mut self, bps: u64) {
        self.needed_bps = bps;
        self.decide();
    }

    /// A round trip of late.
    pub(crate) fn round_trip(&mut self, rtt: Duration, now: Instant) {
        // It forgets slowly, for a path that has become longer for good.
        self.rtt_min = if rtt < self.rtt_min { rtt } else { self.rtt_min + (rtt - self.rtt_min) / RTT_MIN_WEIGHT };
        let long = rtt > self.rtt_min.saturating_add(QUEUE_RTT);
        let queue = long && (self.bound || std::mem::replace(&mut self.was_long, long));
        self.was_long = long;
        if queue {
            (self.bound, self.excess) = (true, 1.0);
            // A queue shows in several round trips, and is one queue.
            if now >= self.calm_at {
                self.calm_at = now + self.patience;
                self.patience = (self.patience * 2).min(PATIENCE_MAX);
            }
        } else if self.bound && !long && now >= self.calm_at {
            self.excess *= EXCESS_STEP;
        }
        self.decide();
    }

    /// The part of the packets of the last second that did not arrive; to be called [`REPORTS`] times a second.
    pub(crate) fn lost(&mut self, lost: f32) {
        self.reports = (self.reports + 1).min(REPORTS);
        let sent = self.sent.iter().sum::<u64>() * (REPORTS / self.reports) as u64;
        self.sent.rotate_right(1);
        self.sent[0] = 0;
        if lost >= FULL_LOSS && self.bound && self.was_long {
            let taken = (sent as f64 * 8.0 * f64::from(1.0 - lost.min(1.0))) as u64;
            // Less is sent from now on, so less arrives: it goes down in steps.
            self.full_bps = Some(self.full_bps.map_or(taken, |full| taken.clamp(full / 8 * 7, full)));
            self.decide();
        }
    }

    /// The last round trip was one through a queue.
    pub(crate) fn has_queue(&self) -> bool {
        self.was_long
    }

    /// The link takes less than the stream gives, and is given no more.
    pub(crate) fn is_narrow(&self) -> bool {
        self.bound && self.estimate_bps.is_some() && self.rate_bps < self.needed_bps && self.needed_bps < SHARE_BPS
    }

    fn decide(&mut self) {
        let Some(estimate) = self.estimate_bps else {
            self.rate_bps = SHARE_BPS;
            return;
        };
        self.full_bps = self.full_bps.filter(|&full| full < estimate && self.bound);
        let allowed = (self.full_bps.unwrap_or(estimate) as f64 * self.excess) as u64;
        let enough = self.needed_bps.saturating_add(self.needed_bps / 10);
        if self.bound && allowed >= enough {
            (self.bound, self.excess) = (false, 1.0);
            if estimate >= enough {
                self.patience = PATIENCE_MIN;
            }
        }
        let rate = match (self.bound, self.was_long) {
            (true, true) => allowed / DRAIN,
            (true, false) => allowed,
            (false, _) => estimate.max(enough.saturating_mul(2)),
        };
        self.rate_bps = rate.clamp(10_000, SHARE_BPS);
        self.credit = self.credit.min(self.burst());
    }

    /// Adds what has come together since the last call.
    pub(crate) fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.credit = self.credit.saturating_add(self.bytes_in(elapsed)).min(self.burst());
    }

    /// No more than so many bytes can be taken now.
    pub(crate) fn limit(&mut self, room: usize) {
        self.credit = self.credit.min(i64::try_from(room).unwrap_or(i64::MAX));
    }

    /// Whether the next packet may leave.
    pub(crate) fn is_open(&self) -> bool {
        self.credit > 0
    }

    /// A packet of this size has left.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.sent[0] += bytes as u64;
        self.credit = self.credit.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// When it is worth coming back, once it is closed.
    pub(crate) fn opens_at(&self) -> Instant {
        let missing = self.bytes_in(PAUSE).clamp(1, self.burst()).saturating_sub(self.credit).max(0);
        let nanos = (missing as u128 * 8 * 1_000_000_000 / u128::from(self.rate_bps)).min(u128::from(u64::MAX));
        self.at + Duration::from_nanos(nanos as u64).max(Duration::from_millis(1))
    }

    fn bytes_in(&self, time: Duration) -> i64 {
        let bytes = u128::from(self.rate_bps) * time.as_nanos() / 8_000_000_000;
        i64::try_from(bytes).unwrap_or(i64::MAX)
    }

    fn burst(&self) -> i64 {
        self.bytes_in(BURST).clamp(*BURST_BYTES.start(), *BURST_BYTES.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that leave in a second when there is always something to send.
    fn sent_in_a_second(pace: &mut Pace, mut now: Instant) -> usize {
        let (end, mut sent) = (now + Duration::from_secs(1), 0);
        while now < end {
            pace.refill(now);
            while pace.is_open() {
                pace.spend(1_200);
                sent += 1_200;
            }
            let next = pace.opens_at();
            assert!(next > now, "time must go on");
            now = next;
        }
        sent
    }

    #[test]
    fn what_leaves_is_what_the_link_takes() {
        let now = Instant::now();
        for bps in [100_000, 500_000, 2_000_000, 20_000_000] {
            let mut pace = Pace::new(now);
            pace.estimated(Some(bps));
            let wanted = bps as f64 / 8.0;
            let sent = sent_in_a_second(&mut pace, now) as f64;
            // The burst it begins with, and half a packet either way.
            assert!(sent >= wanted * 0.98 - 1_200.0 && sent <= wanted * 1.05 + 3_600.0, "{sent} for {wanted}");
        }
    }

    #[test]
    fn a_usual_picture_leaves_at_once_on_a_usual_link() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.estimated(Some(3_000_000));
        (0..7).for_each(|_| {
            assert!(pace.is_open());
            pace.spend(1_160);
        });
    }

    #[test]
    fn a_viewer_that_is_not_measured_has_its_share() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.estimated(Some(100_000));
        pace.estimated(None);
        assert!(sent_in_a_second(&mut pace, now) > 60_000_000);
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_estimate_that_was_enough_binds_again_only_with_a_queue() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.needs(2_000_000);
        pace.estimated(Some(600_000));
        assert_eq!(pace.rate_bps, 600_000, "at first it is believed");
        pace.estimated(Some(3_000_000));
        pace.round_trip(40 * MS, now);
        pace.estimated(Some(500_000));
        for late in [190, 60, 200] {
            pace.round_trip(late * MS, now);
            assert!(pace.rate_bps > 2_000_000, "single long round trips are the receiver's");
        }
        pace.round_trip(150 * MS, now);
        assert_eq!(pace.rate_bps, 500_000 / DRAIN);
        pace.round_trip(40 * MS, now + PATIENCE_MIN / 2);
        assert_eq!(pace.rate_bps, 500_000, "no queue, because it is kept to");
        pace.estimated(Some(2_500_000));
        assert!(pace.rate_bps >= 2_500_000);
    }

    #[test]
    fn a_link_that_loses_behind_a_queue_takes_what_arrives() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.round_trip(20 * MS, now);
        pace.estimated(Some(START_BPS));
        pace.spend(100_000);
        pace.round_trip(220 * MS, now + 250 * MS);
        pace.lost(0.75);
        let taken = 100_000 * 8 * 4 / 4;
        assert_eq!(pace.rate_bps, taken / DRAIN, "of all that was sent within a quarter of a second");
        pace.needs(2 * taken);
        assert!(pace.is_narrow());
        pace.estimated(Some(taken / 2));
        assert_eq!(pace.rate_bps, taken / 2 / DRAIN, "the estimate has come down");
    }

    #[test]
    fn a_link_that_loses_without_a_queue_is_not_full() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.round_trip(20 * MS, now);
        pace.estimated(Some(START_BPS));
        pace.spend(100_000);
        pace.round_trip(100 * MS, now + 250 * MS);
        pace.lost(0.3);
        assert!(pace.rate_bps >= START_BPS);
    }

    #[test]
    fn an_estimate_is_exceeded_while_no_queue_shows_and_less_often_each_time() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.needs(2_000_000);
        pace.estimated(Some(400_000));
        let mut kept_to = Vec::new();
        for _ in 0..3 {
            let begin = now;
            // The link takes no more than 600 kbit/s.
            while pace.rate_bps <= 600_000 {
                now += 250 * MS;
                pace.round_trip(40 * MS, now);
            }
            kept_to.push((now - begin).as_secs());
            pace.round_trip(150 * MS, now);
            assert_eq!(pace.rate_bps, 400_000 / DRAIN);
        }
        assert_eq!(kept_to, [0, 2, 4]);
        (0..100).for_each(|n| pace.round_trip(40 * MS, now + n * 250 * MS));
        assert!(pace.rate_bps > 2_000_000, "a clean link, badly measured");
    }
}

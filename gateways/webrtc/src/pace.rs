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
/// Up to here there is none: more may be tried.
const CALM_RTT: Duration = Duration::from_millis(40);
/// What [`QUEUE_RTT`] is on a link that has been enough, of which the estimate says so still, and that loses little: jitter
/// looks like that.
const JITTER_RTT: Duration = Duration::from_millis(250);
const JITTER_LOSS: f32 = 0.04;
/// Round trips that are long for so long although little is sent are the path's own.
const QUEUE_MAX: Duration = Duration::from_secs(6);
/// Each longer round trip lifts the shortest by one part in this many of what it is longer.
const RTT_MIN_WEIGHT: u32 = 256;

/// Reports in the second that a report of losses speaks of.
const REPORTS: usize = 4;
/// Of what arrives through a queue, this much is sent from then on; the next queue is one after this time.
const BACK: f64 = 0.9;
const SETTLE: Duration = Duration::from_millis(1_250);
/// While a queue stands, one part in this many of it, so that it goes.
const DRAIN: u64 = 4;
/// Enough to find out that there is more.
const LEAST_BPS: u64 = 100_000;

/// With each report that shows no queue, this much more is tried than the link was seen to take: a queue shows late.
const STEP: f64 = 0.08;
/// And faster each time, while it is less than this part of what the stream takes, up to the last; at once where the estimate
/// has risen.
const FAR: u64 = 3;
const FASTER: f64 = 1.4;
const STRIDE: f64 = 0.5;
/// How long it is kept to after a queue: this at first, then twice as long each time.
const PATIENCE_MIN: Duration = Duration::from_millis(1_500);
const PATIENCE_MAX: Duration = Duration::from_secs(6);

/// See the module.
///
/// An estimate begins high and comes down slowly, comes down too far where little is sent because little was allowed, and is
/// low for a receiver that is short of CPU time and reports its packets late. So a queue, which round trips show, says what
/// the link takes: what arrives through it. More is tried as long as they show none; and once the link has been enough for
/// the stream, a lower estimate binds only with a queue.
pub(crate) struct Pace {
    estimate_bps: Option<u64>,
    /// What the stream takes.
    needed_bps: u64,
    /// What the link takes is the limit.
    bound: bool,
    /// What was seen to arrive through a queue, or to leave without one; counts more than the estimate.
    found_bps: Option<u64>,
    /// What came through the queue that made the link the limit, when more than that was sent.
    measured_bps: u64,
    /// The lowest estimate since the last queue; one that has risen far above it was measured.
    low_bps: u64,
    rtt_min: Duration,
    /// Round trips in a row that were long, since when, and the shortest of them.
    long: u32,
    long_since: Instant,
    long_min: Duration,
    /// The round trip when a queue was last reckoned with, while it stands.
    queue_rtt: Option<Duration>,
    /// Bytes sent since the last report, and before each of those before.
    sent: [u64; REPORTS],
    /// How many of these are over.
    reports: usize,
    /// Until then, reports speak of what was sent before the last queue was seen.
    settled_at: Instant,
    /// From when on more is tried.
    calm_at: Instant,
    /// How long it is kept to after a queue.
    patience: Duration,
    /// How much more is tried next.
    step: f64,
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
            found_bps: None,
            measured_bps: 0,
            low_bps: u64::MAX,
            rtt_min: Duration::MAX,
            long: 0,
            long_since: now,
            long_min: Duration::MAX,
            queue_rtt: None,
            sent: [0; REPORTS],
            reports: 0,
            settled_at: now,
            calm_at: now,
            patience: PATIENCE_MIN,
            step: STEP,
            rate_bps: SHARE_BPS,
            credit: *BURST_BYTES.end(),
            at: now,
        }
    }

    /// What the link is thought to take; `None` when nobody measures it.
    pub(crate) fn estimated(&mut self, bps: Option<u64>) {
        self.estimate_bps = bps;
        self.low_bps = self.low_bps.min(bps.unwrap_or(u64::MAX));
        self.decide();
    }

    /// What the stream takes.
    pub(crate) fn needs(&mut self, bps: u64) {
        self.needed_bps = bps;
        self.decide();
    }

    /// The round trip of a link without media.
    pub(crate) fn idle_round_trip(&mut self, rtt: Duration) {
        self.rtt_min = self.rtt_min.min(rtt);
    }

    /// How the link has been: a round trip of late, and the part of the packets of the last second that did not arrive. To be
    /// called [`REPORTS`] times a second.
    pub(crate) fn report(&mut self, rtt: Option<Duration>, lost: Option<f32>, now: Instant) {
        self.reports = (self.reports + 1).min(REPORTS);
        let sent = self.sent.iter().sum::<u64>() * (REPORTS / self.reports) as u64;
        self.sent.rotate_right(1);
        self.sent[0] = 0;
        let Some(rtt) = rtt else { return };
        self.round_trip(rtt, lost.unwrap_or(0.0), now);
        if self.long > u32::from(!self.bound) {
            let taken = (sent as f64 * 8.0 * f64::from(1.0 - lost.unwrap_or(0.0).clamp(0.0, 1.0))) as u64;
            self.queue(rtt, taken, now);
        } else if self.bound && rtt <= self.rtt_min + CALM_RTT && (self.has_risen() || now >= self.calm_at && self.is_used(sent)) {
            self.try_more();
        }
        self.decide();
    }

    fn round_trip(&mut self, rtt: Duration, lost: f32, now: Instant) {
        // It forgets slowly, for a path that has become longer for good.
        self.rtt_min = if rtt < self.rtt_min { rtt } else { self.rtt_min + (rtt - self.rtt_min) / RTT_MIN_WEIGHT };
        let usual = if !self.bound && lost < JITTER_LOSS && self.is_measured_enough() { JITTER_RTT } else { QUEUE_RTT };
        if rtt <= self.rtt_min.saturating_add(usual) {
            (self.long, self.queue_rtt) = (0, None);
            return;
        }
        if self.long == 0 {
            (self.long_since, self.long_min) = (now, rtt);
        }
        self.long_min = self.long_min.min(rtt);
        self.long = self.long.saturating_add(1);
        if now > self.long_since + QUEUE_MAX {
            (self.rtt_min, self.long, self.queue_rtt) = (self.long_min, 0, None);
        }
    }

    /// Whether the estimate says that the link takes the stream, more or less. Far above it, it is still where it began.
    fn is_measured_enough(&self) -> bool {
        let about = self.needed_bps / 4 * 3..=self.needed_bps.saturating_mul(4);
        self.estimate_bps.is_some_and(|estimate| about.contains(&estimate))
    }

    /// There is a queue, through which so much arrives.
    fn queue(&mut self, rtt: Duration, taken: u64, now: Instant) {
        if now < self.settled_at {
            return;
        }
        let known = if self.bound { self.found_bps.or(self.estimate_bps).unwrap_or(SHARE_BPS) } else { SHARE_BPS };
        let before = self.queue_rtt.replace(rtt);
        let takes = match before {
            None if !self.bound => {
                self.measured_bps = back(taken);
                self.measured_bps
            }
            // Where pictures have just been left out, little is sent, and so little comes.
            None => {
                if known <= self.measured_bps {
                    self.measured_bps = back(known);
                }
                back(taken.min(known)).max(self.measured_bps)
            }
            // It goes. What arrives is what was sent meanwhile, and no measure.
            Some(before) if rtt < before => known,
            // An estimate that little was sent for says little.
            Some(_) => {
                self.measured_bps = 0;
                back(known.min(self.estimate_bps.unwrap_or(known).max(known / 2)))
            }
        };
        (self.bound, self.step) = (true, STEP);
        self.low_bps = self.estimate_bps.unwrap_or(u64::MAX);
        self.found_bps = Some(takes.max(LEAST_BPS));
        self.settled_at = now + SETTLE;
        self.calm_at = now + self.patience;
        if before.is_none() {
            self.patience = (self.patience * 2).min(PATIENCE_MAX);
        }
    }

    fn has_risen(&self) -> bool {
        let before = self.low_bps.max(self.found_bps.unwrap_or(u64::MAX));
        self.estimate_bps.is_some_and(|estimate| estimate / 3 > before / 2)
    }

    /// Whether the bytes of a second are about what was allowed. Otherwise nothing was found out.
    fn is_used(&self, sent: u64) -> bool {
        sent * 8 >= self.found_bps.or(self.estimate_bps).unwrap_or(0) / 3 * 2
    }

    fn try_more(&mut self) {
        let Some(estimate) = self.estimate_bps else { return };
        let found = self.found_bps.unwrap_or(estimate);
        let step = if found < self.needed_bps / FAR { self.step } else { STEP };
        let most = if self.has_risen() { STRIDE } else { step };
        self.found_bps = Some((estimate as f64).clamp(found as f64 * (1.0 + step), found as f64 * (1.0 + most)) as u64);
        self.step = (self.step * FASTER).min(STRIDE);
    }

    /// The last round trip was one through a queue.
    pub(crate) fn has_queue(&self) -> bool {
        self.long > 0
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
        let allowed = self.found_bps.unwrap_or(estimate);
        let enough = self.needed_bps.saturating_add(self.needed_bps / 10);
        if self.bound && self.long == 0 && allowed >= enough {
            (self.bound, self.found_bps) = (false, None);
            if estimate >= enough {
                self.patience = PATIENCE_MIN;
            }
        }
        let rate = match (self.bound, self.long) {
            (true, 1..) if self.found_bps.is_some() => allowed / DRAIN,
            (true, _) => allowed,
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

/// What is sent of what arrived through a queue.
fn back(bps: u64) -> u64 {
    (bps as f64 * BACK) as u64
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

    /// A viewer of 2 Mbit/s that has just joined.
    fn joined(now: Instant) -> Pace {
        let mut pace = Pace::new(now);
        pace.idle_round_trip(20 * MS);
        pace.estimated(Some(START_BPS));
        pace.needs(2_000_000);
        pace
    }

    /// A link that takes `takes` of the `gives` that are sent whenever that is allowed; what is above waits, and what would
    /// wait longer than `queue` is lost. Returns what was allowed at the end of each second.
    fn through(pace: &mut Pace, now: &mut Instant, seconds: u32, gives: u64, takes: u64, queue: Duration) -> Vec<u64> {
        let (mut waits, mut out) = (0.0, Vec::new());
        for quarter in 1..=seconds * 4 {
            let sent = gives.min(pace.rate_bps) as f64 / 32.0;
            pace.spend(sent as usize);
            *now += 250 * MS;
            let room = takes as f64 / 32.0;
            let full = queue.as_secs_f64() * takes as f64 / 8.0;
            let over = (waits + sent - room - full).max(0.0);
            waits = (waits + sent - room).clamp(0.0, full);
            let rtt = Duration::from_secs_f64(0.02 + waits * 8.0 / takes as f64);
            pace.report(Some(rtt), Some((over / sent.max(1.0)) as f32), *now);
            if quarter % 4 == 0 {
                out.push(pace.rate_bps);
            }
        }
        out
    }

    #[test]
    fn a_narrow_link_is_used_and_not_flooded() {
        for (takes, queue) in [(250_000, 200), (500_000, 1_000), (700_000, 200), (1_500_000, 300)] {
            let mut now = Instant::now();
            let mut pace = joined(now);
            let rates = through(&mut pace, &mut now, 40, 2_000_000, takes, queue * MS);
            let late = &rates[8..];
            let mean = late.iter().sum::<u64>() / late.len() as u64;
            assert!(mean > takes / 100 * 65 && mean < takes / 100 * 115, "{takes}: {mean} of {rates:?}");
            pace.estimated(Some(takes / 3));
            let rates = through(&mut pace, &mut now, 20, 2_000_000, takes, queue * MS);
            let mean = rates.iter().sum::<u64>() / rates.len() as u64;
            assert!(mean > takes / 100 * 65, "an estimate that is low because little was sent: {mean} of {takes}");
            let rates = through(&mut pace, &mut now, 20, 2_000_000, 8_000_000, queue * MS);
            assert!(rates[19] > 2_000_000 && !pace.is_narrow(), "the link has grown: {rates:?}");
        }
    }

    #[test]
    fn a_link_that_was_enough_binds_only_with_a_queue() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.idle_round_trip(20 * MS);
        pace.estimated(Some(3_000_000));
        pace.needs(2_000_000);
        pace.estimated(Some(500_000));
        for late in [190, 60, 200, 60] {
            now += 250 * MS;
            pace.spend(62_500);
            pace.report(Some(late * MS), Some(0.3), now);
            assert!(pace.rate_bps > 2_000_000, "single long round trips are the receiver's");
        }
        for _ in 0..2 {
            now += 250 * MS;
            pace.report(Some(200 * MS), Some(0.0), now);
        }
        assert!(pace.is_narrow());
    }

    #[test]
    fn a_link_that_was_measured_to_have_grown_is_used_at_once() {
        let mut now = Instant::now();
        let mut pace = joined(now);
        through(&mut pace, &mut now, 4, 2_000_000, 500_000, 200 * MS);
        pace.estimated(Some(400_000));
        through(&mut pace, &mut now, 12, 2_000_000, 500_000, 200 * MS);
        assert!(pace.is_narrow());
        pace.estimated(Some(3_000_000));
        let rates = through(&mut pace, &mut now, 2, 2_000_000, 4_000_000, 200 * MS);
        assert!(rates[1] > 2_000_000, "{rates:?}");
    }

    #[test]
    fn a_link_that_has_grown_is_used_soon_even_if_nobody_measures_that() {
        let mut now = Instant::now();
        let mut pace = joined(now);
        through(&mut pace, &mut now, 12, 2_000_000, 150_000, 200 * MS);
        pace.estimated(Some(100_000));
        let rates = through(&mut pace, &mut now, 10, 2_000_000, 8_000_000, 200 * MS);
        assert!(rates[9] > 2_000_000, "{rates:?}");
    }

    #[test]
    fn jitter_is_no_queue_while_the_estimate_is_enough() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.idle_round_trip(2 * MS);
        pace.estimated(Some(START_BPS));
        pace.needs(2_000_000);
        pace.estimated(Some(1_700_000));
        for n in 0..160 {
            now += 250 * MS;
            pace.spend(62_500);
            pace.report(Some((70 + n * 37 % 100) * MS), Some(0.01), now);
            assert!(pace.rate_bps > 2_000_000, "{n}");
        }
        // The same with losses is a full link.
        for _ in 0..4 {
            now += 250 * MS;
            pace.report(Some(160 * MS), Some(0.1), now);
        }
        assert!(pace.is_narrow());
    }

    #[test]
    fn a_path_that_has_become_longer_is_no_queue_for_long() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.idle_round_trip(20 * MS);
        pace.estimated(Some(3_000_000));
        pace.needs(2_000_000);
        for _ in 0..100 {
            now += 250 * MS;
            pace.spend(usize::try_from(pace.rate_bps.min(2_000_000) / 32).unwrap());
            pace.report(Some(170 * MS), Some(0.2), now);
        }
        assert!(pace.rate_bps > 2_000_000 && !pace.is_narrow(), "{}", pace.rate_bps);
    }

    #[test]
    fn nothing_sent_or_reported_leaves_a_little() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.idle_round_trip(20 * MS);
        pace.estimated(Some(START_BPS));
        (0..40).for_each(|_| pace.report(None, None, now));
        pace.report(Some(900 * MS), Some(1.0), now);
        assert!(pace.rate_bps >= LEAST_BPS / DRAIN, "{}", pace.rate_bps);
    }
}

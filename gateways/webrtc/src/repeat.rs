//! [`Repeats`]: packets that are sent more than once, because the peer's link loses them: media to viewers, requests and
//! reports to publishers.
//!
//! Owns: how many copies there are, and those that wait. A copy is the same datagram again: receivers drop what they have
//! (RFC 3711 §3.3.2), so it needs no negotiation, no second encryption, and serves every codec. It comes a little later, so
//! that a burst of losses does not take both; what is lost all the same is asked for as ever (RFC 4585). Refuses: links that
//! lose because they are full.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::socket::Path;

/// Between two copies of a packet.
const SPACING: Duration = Duration::from_millis(15);
/// Loss from which packets are sent twice, and below which they are sent once again.
const TWICE_FROM: f32 = 0.015;
const ONCE_BELOW: f32 = 0.008;
/// Loss from which they are sent three times, and below which twice is enough.
const THRICE_FROM: f32 = 0.15;
const TWICE_BELOW: f32 = 0.1;
/// Each report weighs one part in this many while loss rises, and while it falls.
const RISE_WEIGHT: f32 = 2.0;
const FALL_WEIGHT: f32 = 32.0;
/// A report speaks of the last second: after a change, what came before is not judged.
const SETTLE: Duration = Duration::from_millis(1_250);
/// Copies that leave more than this part of what was lost without them are lost together: the link is full.
const USELESS: f32 = 0.8;
/// How long a link that was full gets no copies: this at first, then twice as long each time.
const PATIENCE_MIN: Duration = Duration::from_secs(8);
const PATIENCE_MAX: Duration = Duration::from_secs(128);
/// Bytes that wait at most; beyond, packets go out once.
const BYTES_MAX: usize = 512 << 10;

struct Copy {
    due: Instant,
    path: Path,
    datagram: Box<[u8]>,
}

/// See the module.
pub(crate) struct Repeats {
    /// Copies beside the first.
    extra: i32,
    /// Part of the packets of which no copy arrives.
    lost: f32,
    /// What the link lost of single packets when copies began, or more were sent.
    before: f32,
    changed_at: Instant,
    barred_until: Instant,
    patience: Duration,
    /// One per copy, each in order of time.
    waiting: [VecDeque<Copy>; 2],
    bytes: usize,
    /// Copies sent.
    pub(crate) repeated: u64,
}

impl Repeats {
    /// No copies.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            extra: 0,
            lost: 0.0,
            before: 0.0,
            changed_at: now,
            barred_until: now,
            patience: PATIENCE_MIN,
            waiting: Default::default(),
            bytes: 0,
            repeated: 0,
        }
    }

    /// How often each packet is sent.
    pub(crate) fn copies(&self) -> u32 {
        1 + self.extra.unsigned_abs()
    }

    /// The link took less than it was given: what it loses is not chance.
    pub(crate) fn full(&mut self, now: Instant) {
        if self.extra > 0 {
            self.bar(now);
        } else {
            self.barred_until = self.barred_until.max(now + PATIENCE_MIN);
        }
    }

    /// The part of the packets of the last second that did not arrive in any copy.
    pub(crate) fn report(&mut self, lost: f32, now: Instant) {
        if now < self.changed_at + SETTLE {
            return;
        }
        self.smooth(lost);
        let link = self.link();
        if self.extra > 0 && self.lost > self.before * USELESS && self.lost > TWICE_FROM {
            self.bar(now);
            return;
        }
        let mut extra = self.wanted(link);
        if self.extra == 0 && now < self.barred_until {
            extra = 0;
        }
        if extra != self.extra {
            if extra == 0 {
                self.patience = PATIENCE_MIN;
            }
            // What is smoothed lags behind while loss begins.
            let latest = lost.powf(1.0 / (self.extra as f32 + 1.0));
            self.set(extra, if extra > self.extra { link.max(latest) } else { link }, now);
        }
    }

    /// The part of the peer's packets that did not arrive here. What goes to it is taken to be lost as often; it must be so little
    /// that it fills no link.
    pub(crate) fn mirror(&mut self, lost: f32) {
        self.smooth(lost);
        self.extra = self.wanted(self.lost);
    }

    fn smooth(&mut self, lost: f32) {
        let weight = if lost > self.lost { RISE_WEIGHT } else { FALL_WEIGHT };
        self.lost += (lost.clamp(0.0, 1.0) - self.lost) / weight;
    }

    /// The further copies for a link that loses this part of single packets.
    fn wanted(&self, link: f32) -> i32 {
        match self.extra {
            0 if link >= TWICE_FROM => 1,
            1 if link >= THRICE_FROM => 2,
            1 if link < ONCE_BELOW => 0,
            2 if link < TWICE_BELOW => 1,
            same => same,
        }
    }

    /// What the link loses of single packets: copies are lost independently.
    fn link(&self) -> f32 {
        self.lost.powf(1.0 / (self.extra as f32 + 1.0))
    }

    fn bar(&mut self, now: Instant) {
        self.barred_until = now + self.patience;
        self.patience = (self.patience * 2).min(PATIENCE_MAX);
        self.set(0, self.before, now);
    }

    fn set(&mut self, extra: i32, link: f32, now: Instant) {
        (self.extra, self.before, self.changed_at) = (extra, link, now);
        self.lost = link.powi(extra + 1);
    }

    /// A packet has been sent.
    pub(crate) fn sent(&mut self, path: Path, datagram: &[u8], now: Instant) {
        let mut due = now;
        for waiting in self.waiting.iter_mut().take(self.extra.unsigned_abs() as usize) {
            if self.bytes + datagram.len() > BYTES_MAX {
                break;
            }
            due += SPACING;
            self.bytes += datagram.len();
            waiting.push_back(Copy { due, path, datagram: datagram.into() });
        }
    }

    /// When the next copy is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| waiting.front().map(|copy| copy.due)).min()
    }

    /// Hands out what is due.
    pub(crate) fn due(&mut self, now: Instant, mut send: impl FnMut(Path, &[u8])) {
        for waiting in &mut self.waiting {
            while waiting.front().is_some_and(|copy| copy.due <= now)
                && let Some(copy) = waiting.pop_front()
            {
                self.bytes -= copy.datagram.len();
                self.repeated += 1;
                send(copy.path, &copy.datagram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Path = Path {
        remote: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9)),
        local: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    /// Reports of a link for some seconds; `lost` says what is lost of packets that are sent so often.
    fn reports(repeats: &mut Repeats, now: &mut Instant, seconds: u32, lost: impl Fn(u32) -> f32) {
        for _ in 0..seconds * 4 {
            *now += Duration::from_millis(250);
            repeats.report(lost(repeats.copies()), *now);
        }
    }

    #[test]
    fn as_many_copies_as_the_loss_asks_for() {
        let mut now = Instant::now();
        let mut repeats = Repeats::new(now);
        for (loss, copies) in [(0.0, 1), (0.005, 1), (0.05, 2), (0.3, 3), (0.05, 2), (0.0, 1)] {
            reports(&mut repeats, &mut now, 120, |copies| f32::powi(loss, copies as i32));
            assert_eq!(repeats.copies(), copies, "{loss}");
        }
    }

    #[test]
    fn a_full_link_gets_none_and_is_left_alone_longer_each_time() {
        let mut now = Instant::now();
        let mut tries = Vec::new();
        for takes in [0.9, 0.6, 0.4, 0.2] {
            tries.clear();
            let mut repeats = Repeats::new(now);
            for second in 0..60 {
                let before = repeats.copies();
                reports(&mut repeats, &mut now, 1, |copies| (1.0 - takes / copies as f32).powi(copies as i32));
                if before == 1 && repeats.copies() > 1 {
                    tries.push(second);
                }
            }
            assert!((2..=4).contains(&tries.len()), "{takes}: {tries:?}");
            repeats.full(now);
            assert_eq!(repeats.copies(), 1);
        }
    }

    #[test]
    fn requests_are_copied_while_what_they_ask_for_is_lost() {
        let mut repeats = Repeats::new(Instant::now());
        for (lost, copies) in [(0.0, 1), (0.05, 2), (0.3, 3), (0.05, 2), (0.0, 1)] {
            (0..400).for_each(|_| repeats.mirror(lost));
            assert_eq!(repeats.copies(), copies, "{lost}");
        }
    }

    #[test]
    fn copies_leave_in_time_and_are_bounded() {
        let now = Instant::now();
        let mut repeats = Repeats::new(now);
        repeats.set(2, 0.3, now);
        repeats.sent(PATH, &[1; 100], now);
        assert_eq!(repeats.next(), Some(now + SPACING));
        let mut left = 0;
        repeats.due(now + SPACING, |_, datagram| left += datagram.len());
        assert_eq!((left, repeats.next()), (100, Some(now + 2 * SPACING)));
        repeats.due(now + 2 * SPACING, |_, datagram| left += datagram.len());
        assert_eq!((left, repeats.next(), repeats.bytes), (200, None, 0));
        (0..1_000).for_each(|_| repeats.sent(PATH, &[1; 1_000], now));
        assert!(repeats.bytes <= BYTES_MAX);
    }
}

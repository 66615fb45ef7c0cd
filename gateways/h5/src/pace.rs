//! [`Pace`]: how much of what was sent has not arrived, told by a viewer's answers to pings.
//!
//! Sockets and proxies on the way hold megabytes, which is many seconds of these small pictures; they take it all, and a write
//! that succeeds says nothing. A ping behind the data is answered once the data has arrived. So pings go with the data, and
//! nothing more is sent while more media than the window is on its way. The round trip, which is on its way whatever we do, is
//! measured by a ping before the first data. Refuses: sockets and clocks.

use std::collections::VecDeque;
use std::time::Duration;

use patchbay_media::MediaTime;

/// Longest round trip that is believed; more is a queue.
const ROUND_TRIP_MAX: MediaTime = MediaTime::from_secs(1);
/// What is assumed before the first answer.
const ROUND_TRIP_FIRST: MediaTime = MediaTime::from_millis(300);

struct Ping {
    number: u64,
    at: MediaTime,
    /// Media sent before it.
    sent: MediaTime,
}

pub(crate) struct Pace {
    window: MediaTime,
    /// A ping goes after this much media.
    step: MediaTime,
    sent: MediaTime,
    arrived: MediaTime,
    /// Without answer, oldest first; bounded because what goes between two of them counts against the window.
    pings: VecDeque<Ping>,
    number: u64,
    /// `sent` at the last ping.
    pinged: MediaTime,
    round_trip: Option<MediaTime>,
}

impl Pace {
    /// `window`: how much media may be on its way beyond the round trip.
    pub(crate) fn new(window: Duration) -> Self {
        // An answer wakes the session, so there are as few as keep the window open: the third is for the way back.
        let (window, step) = (MediaTime::from(window), MediaTime::from(window * 2 / 3));
        let (sent, arrived, pinged) = Default::default();
        Self { window, step, sent, arrived, pings: VecDeque::new(), number: 0, pinged, round_trip: None }
    }

    /// How much media was sent in all.
    pub(crate) fn sent(&mut self, total: MediaTime) {
        self.sent = total;
    }

    /// What to send in a ping now, if one is due: the first before any data, the others behind them.
    pub(crate) fn ping(&mut self, now: MediaTime) -> Option<[u8; 8]> {
        if self.number > 0 && self.sent - self.pinged < self.step {
            return None;
        }
        self.number += 1;
        self.pinged = self.sent;
        self.pings.push_back(Ping { number: self.number, at: now, sent: self.sent });
        Some(self.number.to_be_bytes())
    }

    /// An answer came; says how long it took.
    pub(crate) fn pong(&mut self, payload: &[u8], now: MediaTime) -> Option<MediaTime> {
        let number = u64::from_be_bytes(payload.try_into().ok()?);
        let at = self.pings.iter().position(|ping| ping.number == number)?;
        // Answers may be left out, but not come out of order (RFC 6455 §5.5.3).
        let ping = self.pings.drain(..=at).next_back()?;
        let took = now - ping.at;
        self.arrived = ping.sent;
        self.round_trip = Some(self.round_trip.map_or(took, |known| known.min(took)).min(ROUND_TRIP_MAX));
        Some(took)
    }

    /// Whether to wait for an answer before more is sent.
    pub(crate) fn stalled(&self) -> bool {
        self.sent - self.arrived > self.window + self.round_trip.unwrap_or(ROUND_TRIP_FIRST)
    }

    /// Since when an answer has been due.
    pub(crate) fn waiting_since(&self) -> Option<MediaTime> {
        self.pings.front().map(|ping| ping.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: i64) -> MediaTime {
        MediaTime::from_millis(ms)
    }

    #[test]
    fn no_more_than_the_window_and_the_round_trip_is_on_its_way() {
        let mut pace = Pace::new(Duration::from_millis(200));
        let first = pace.ping(ms(0)).unwrap();
        assert_eq!(pace.pong(&first, ms(50)), Some(ms(50)));
        let mut pings = Vec::new();
        for sent in (40..=240).step_by(40) {
            pace.sent(ms(sent));
            pings.extend(pace.ping(ms(sent)));
            assert!(!pace.stalled(), "{sent}");
        }
        assert_eq!(pings.len(), 1, "after 160 ms");
        pace.sent(ms(280));
        assert!(pace.stalled());
        assert_eq!(pace.waiting_since(), Some(ms(160)));
        assert_eq!(pace.pong(&pings[0], ms(700)), Some(ms(540)));
        assert!(!pace.stalled(), "120 ms are on their way, and late answers do not widen the window");
        pace.sent(ms(420));
        assert!(pace.stalled());
    }

    #[test]
    fn one_answer_stands_for_those_before_it_and_others_count_for_nothing() {
        let mut pace = Pace::new(Duration::from_millis(200));
        pace.ping(ms(0));
        pace.sent(ms(1_000));
        let second = pace.ping(ms(0)).unwrap();
        assert_eq!((pace.pong(b"", ms(10)), pace.pong(&[9; 8], ms(10))), (None, None));
        assert!(pace.stalled());
        assert_eq!(pace.pong(&second, ms(10)), Some(ms(10)));
        assert!(!pace.stalled() && pace.waiting_since().is_none());
        assert_eq!(pace.pong(&second, ms(20)), None);
    }
}

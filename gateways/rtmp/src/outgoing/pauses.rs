//! [`Pauses`]: how long to wait after a failure.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Board;

/// A connection that lasted this long was a good one: the next failure begins with the first pause again.
pub(crate) const GOOD: Duration = Duration::from_secs(10);

/// Growing pauses.
pub(crate) struct Pauses {
    bounds: RangeInclusive<Duration>,
    doublings: u32,
}

impl Pauses {
    /// Within these.
    pub(crate) fn new(bounds: RangeInclusive<Duration>) -> Self {
        Self { bounds, doublings: 0 }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.doublings = 0;
    }

    fn longest(&self) -> Duration {
        self.bounds.start().saturating_mul(1 << self.doublings.min(5)).min(*self.bounds.end())
    }

    /// The next pause, anything up to a bound that doubles each time: those that failed together do not return together.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = self.longest();
        self.doublings = self.doublings.saturating_add(1);
        rand::random_range(*self.bounds.start() / 2..=longest)
    }

    /// The next pause after a no, which asking often makes no yes.
    pub(crate) fn next_after_no(&mut self) -> Duration {
        self.doublings = self.doublings.saturating_add(2);
        let longest = self.longest();
        rand::random_range(longest / 2..=longest)
    }
}

/// Waits, unless it is stopped.
pub(crate) async fn rest(stop: &CancellationToken, pause: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(pause) => {}
    }
}

/// The same, but a server that is down ends the pause by being back: the connection that shows it.
pub(crate) async fn rest_while_down(board: &Board, stop: &CancellationToken, pause: Duration) -> Option<TcpStream> {
    let on_backup = board.read().on_backup;
    let (host, port) = board.to.of(on_backup).host();
    tokio::select! {
        () = rest(stop, pause) => None,
        Ok(stream) = board.to.policy.connect_when_up(host, port) => Some(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);

    #[test]
    fn pauses_grow_within_their_bounds() {
        let mut pauses = Pauses::new(BOUNDS);
        let all: Vec<Duration> = (0..12).map(|_| pauses.next()).collect();
        assert!(all.iter().all(|p| (*BOUNDS.start() / 2..=*BOUNDS.end()).contains(p)), "{all:?}");
        assert!(all[0] <= *BOUNDS.start() && pauses.longest() == *BOUNDS.end(), "{all:?}");
    }

    #[test]
    fn a_no_is_asked_again_slowly() {
        let mut pauses = Pauses::new(BOUNDS);
        let all: Vec<Duration> = (0..6).map(|_| pauses.next_after_no()).collect();
        assert!(all[0] >= Duration::from_secs(2) && all[5] >= Duration::from_secs(15) && all.iter().all(|p| BOUNDS.contains(p)), "{all:?}");
    }
}

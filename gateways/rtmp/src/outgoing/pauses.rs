//! [`after`]: what follows when a connection has failed; [`Pauses`]: how long to wait then.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Board, Failure, State, Target};

/// A connection over which the stream ran this long was a good one: the next failure begins with the first pause again.
pub(super) const GOOD: Duration = Duration::from_secs(10);

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

/// What the next connection begins with.
#[derive(Default)]
pub(crate) struct Next {
    /// The connection that showed that a server is back.
    pub(crate) dialled: Option<TcpStream>,
    /// Where a server has sent us: for the next connection, and no other.
    pub(crate) announced: Option<Target>,
}

/// A connection has failed: says so, waits as long as that asks for, and returns what the next one begins with.
pub(crate) async fn after(failure: Failure, board: &Board, pauses: &mut Pauses, stop: &CancellationToken) -> Next {
    let good = board.was_good(&failure);
    if good {
        pauses.reset();
    }
    let wished = is_wish(&failure, board, good);
    let (state, pause) = match &failure {
        _ if wished => (State::Connecting, Duration::ZERO),
        Failure::Refused(_) => (State::Rejected, pauses.next_after_no()),
        _ => (State::Backoff, pauses.next()),
    };
    board.set(state, &failure);
    if !wished {
        board.failed();
    }
    let mut next = Next::default();
    if failure.is_down() {
        next.dialled = rest_while_down(board, stop, pause).await;
    } else {
        rest(stop, pause).await;
    }
    if let Failure::Reconnect(to) = failure {
        next.announced = to;
    }
    next
}

/// Whether a connection ended by the server's wish and by no fault, so that the next one needs no pause. It does where wishes
/// follow each other: two servers may send us to and fro.
fn is_wish(failure: &Failure, board: &Board, lasted: bool) -> bool {
    matches!(failure, Failure::Reconnect(to) if lasted || to.is_some() && board.read().announced.is_none())
}

/// Waits, unless it is stopped.
pub(crate) async fn rest(stop: &CancellationToken, pause: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(pause) => {}
    }
}

/// The same, but a server that is down ends the pause by being back: the connection that shows it. One that we were sent
/// to is not waited for, and the one that sent us there may well be up.
async fn rest_while_down(board: &Board, stop: &CancellationToken, pause: Duration) -> Option<TcpStream> {
    let target = board.configured();
    let (host, port) = target.host();
    if board.read().announced.is_some() {
        rest(stop, pause).await;
        return None;
    }
    tokio::select! {
        () = rest(stop, pause) => None,
        Ok(stream) = board.to.policy(target).connect_when_up(host, port) => Some(stream),
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

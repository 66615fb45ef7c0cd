//! The life of a push: wait for the stream, connect, send, and come back after failures with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use patchbay_bus::{Feed, Signal};
use patchbay_contract::{Caller, Cause, Hub, PlayRequest};
use patchbay_rules::EndpointKind;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sender::{Failure, Sender, Source};
use super::{Board, Destination, State};
use crate::fanout::lonely_and_young;

/// First pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next failure begins with the first pause again.
const GOOD: Duration = Duration::from_secs(10);
/// How long a stream that has just begun may take to show its second track.
const SETTLE: Duration = Duration::from_millis(400);
/// How long the server may take to read the farewell.
const GOODBYE: Duration = Duration::from_secs(1);

/// Growing pauses.
struct Pauses {
    failures: u32,
}

impl Pauses {
    /// The next pause: doubled each time, and spread so that pushes that failed together do not return together.
    fn next(&mut self) -> Duration {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(5)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(rand::random_range(0.75..1.0)).max(PAUSE_MIN)
    }
}

pub(super) async fn run(hub: Arc<dyn Hub>, kind: EndpointKind, to: Destination, board: Board, stop: CancellationToken) {
    let mut pauses = Pauses { failures: 0 };
    // Every wait below ends with `stop`, so that a live push can say goodbye first.
    while !stop.is_cancelled() {
        one_leg(&hub, kind, &to, &board, &stop, &mut pauses).await;
    }
}

/// Waits, unless the push is stopped.
async fn rest(stop: &CancellationToken, pause: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(pause) => {}
    }
}

/// Holds one leg for as long as it lasts.
async fn one_leg(hub: &Arc<dyn Hub>, kind: EndpointKind, to: &Destination, board: &Board, stop: &CancellationToken, pauses: &mut Pauses) {
    let caller = Caller { protocol: "push", agent: Some(board.target.to_string()), operator: true, ..Caller::default() };
    let request = PlayRequest { stream: board.stream.clone(), sink: kind.default_sink(), caller, wait: true };
    let leg = match hub.play(request).await {
        Ok(leg) => leg,
        Err(refusal) => {
            board.set(State::Backoff, refusal);
            return rest(stop, pauses.next()).await;
        }
    };
    let cancelled = leg.cancelled().clone();
    let source = Source { feed: leg.feed().clone(), counters: leg.counters().clone() };
    let cause = tokio::select! {
        () = cancelled.cancelled() => {
            board.set(State::Backoff, "the session was ended here");
            Cause::here("kicked")
        }
        cause = push_while_live(&source, to, board, stop, pauses) => cause,
    };
    let kicked = cause.code == "kicked";
    leg.end(cause);
    if kicked {
        rest(stop, pauses.next()).await;
    }
}

/// Connects as often as it takes, until the stream ends.
async fn push_while_live(source: &Source, to: &Destination, board: &Board, stop: &CancellationToken, pauses: &mut Pauses) -> Cause {
    loop {
        if stop.is_cancelled() {
            return Cause::here("stopped");
        }
        if let Some(reason) = source.feed.get().ended {
            return Cause::here(reason.code());
        }
        if !is_live(&source.feed) {
            board.set(State::Waiting, "");
            tokio::select! {
                () = stop.cancelled() => {}
                () = wait_live(&source.feed) => {}
            }
            continue;
        }
        board.set(State::Connecting, "");
        let begun = Instant::now();
        let failure = match connect_and_send(source, to, board, stop).await {
            Ok(reason) => {
                pauses.failures = 0;
                return Cause::here(reason);
            }
            Err(failure) => failure,
        };
        if begun.elapsed() > GOOD {
            pauses.failures = 0;
        }
        let state = if matches!(failure, Failure::Refused(_)) { State::Rejected } else { State::Backoff };
        board.set(state, &failure);
        rest(stop, pauses.next()).await;
    }
}

async fn connect_and_send(source: &Source, to: &Destination, board: &Board, stop: &CancellationToken) -> Result<&'static str, Failure> {
    let mut sender = tokio::select! {
        () = stop.cancelled() => return Ok("stopped"),
        sender = Sender::connect(to) => sender?,
    };
    board.set(State::Live, "");
    let result = tokio::select! {
        () = stop.cancelled() => Ok("stopped"),
        result = sender.send(source) => result,
    };
    if result.is_ok() {
        _ = tokio::time::timeout(GOODBYE, sender.finish()).await;
    }
    result
}

fn is_live(feed: &Feed) -> bool {
    let value = feed.get();
    value.video.is_some() || value.audio.is_some()
}

/// Until there is a track, and a little longer for the second.
async fn wait_live(feed: &Arc<Feed>) {
    let signal = Arc::new(Signal::new());
    let mut reader = feed.watch(signal.clone());
    let mut settled = None;
    loop {
        if let Some(value) = reader.changed() {
            if value.ended.is_some() || value.video.is_some() && value.audio.is_some() {
                return;
            }
            let one = value.video.is_some() || value.audio.is_some();
            if one && !lonely_and_young(&value) {
                return;
            }
            if one {
                settled.get_or_insert_with(|| Instant::now() + SETTLE);
            }
        }
        tokio::select! {
            () = signal.wait() => {}
            () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_one_to_thirty_seconds() {
        let mut pauses = Pauses { failures: 0 };
        let all: Vec<Duration> = (0..12).map(|_| pauses.next()).collect();
        assert!(all.iter().all(|p| (PAUSE_MIN..=PAUSE_MAX).contains(p)), "{all:?}");
        assert!(all[0] < Duration::from_secs(2) && all[11] > Duration::from_secs(20), "{all:?}");
    }
}

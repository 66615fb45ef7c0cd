//! The life of a pull: connect, receive, and come back after failures with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use patchbay_contract::Hub;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::receiver;
use crate::outgoing::{Board, Failure, GOOD, Pauses, Peer, State, is_wish, rest, rest_while_down};
use crate::proto::client::Mode;

pub(super) async fn run(hub: Arc<dyn Hub>, board: Board, stop: CancellationToken) {
    let mut pauses = Pauses::new(board.to.pauses.clone());
    let (mut dialled, mut announced) = (None, None);
    while !stop.is_cancelled() {
        let target = board.head_for(announced.take());
        board.set(State::Connecting, "");
        let connecting = Peer::connect(&board.to, &target, Mode::Play, dialled.take(), |_| {});
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connecting => connected,
        };
        let begun = Instant::now();
        let result = match connected {
            Ok(peer) => receiver::receive(peer, &hub, &board, &stop).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else { return };
        if begun.elapsed() > GOOD {
            pauses.reset();
            board.edit(|status| status.failures = 0);
        }
        let wished = is_wish(&failure, &board, begun);
        let (state, pause) = match &failure {
            _ if wished => (State::Connecting, Duration::ZERO),
            Failure::Refused(_) => (State::Rejected, pauses.next_after_no()),
            _ => (State::Backoff, pauses.next()),
        };
        board.set(state, &failure);
        if !wished {
            board.failed();
        }
        if failure.is_down() {
            dialled = rest_while_down(&board, &stop, pause).await;
        } else {
            rest(&stop, pause).await;
        }
        if let Failure::Reconnect(to) = failure {
            announced = to;
        }
    }
}

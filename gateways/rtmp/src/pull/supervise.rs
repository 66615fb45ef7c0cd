//! The life of a pull: connect, receive, and come back after failures with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use patchbay_contract::Hub;
use tokio_util::sync::CancellationToken;

use super::receiver;
use crate::outgoing::{Board, Failure, Pauses, Peer, State, is_wish, rest, rest_while_down};
use crate::proto::client::Mode;

pub(super) async fn run(hub: Arc<dyn Hub>, board: Board, stop: CancellationToken) {
    let mut pauses = Pauses::new(board.to.pauses.clone());
    let (mut dialled, mut announced) = (None, None);
    while !stop.is_cancelled() {
        let target = board.head_for(announced.take());
        board.connecting();
        let connecting = Peer::connect(&board.to, &target, Mode::Play, dialled.take(), |_| {});
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connecting => connected,
        };
        let result = match connected {
            Ok(peer) => receiver::receive(peer, &hub, &board, &stop).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else { return };
        let good = board.was_good(&failure);
        if good {
            pauses.reset();
        }
        let wished = is_wish(&failure, &board, good);
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

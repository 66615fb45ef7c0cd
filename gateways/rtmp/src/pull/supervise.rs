//! The life of a pull: connect, receive, and come back after failures with growing pauses.

use std::sync::Arc;

use patchbay_contract::Hub;
use tokio_util::sync::CancellationToken;

use super::receiver;
use crate::outgoing::{Board, Next, Pauses, Peer, after};
use crate::proto::client::Mode;

pub(super) async fn run(hub: Arc<dyn Hub>, board: Board, stop: CancellationToken) {
    let mut pauses = Pauses::new(board.to.pauses.clone());
    let mut next = Next::default();
    while !stop.is_cancelled() {
        let target = board.head_for(next.announced.take());
        board.connecting();
        let connecting = Peer::connect(&board.to, &target, Mode::Play, next.dialled.take(), |_| {});
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connecting => connected,
        };
        let result = match connected {
            Ok(peer) => receiver::receive(peer, &hub, &board, &stop).await,
            Err(failure) => Err(failure),
        };
        let Err(failure) = result else { return };
        next = after(failure, &board, &mut pauses, &stop).await;
    }
}

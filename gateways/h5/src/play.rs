//! One viewer: binary WebSocket messages of whole transport packets, until it leaves, falls silent or is asked to go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use patchbay_bus::now;
use patchbay_contract::{Cause, Leg};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use crate::fanout::{Ready, Viewer};
use crate::gateway::Shared;
use crate::pace::Pace;

/// How long a viewer may take to read the close frame.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Serves one viewer; `_permit` is its place among the sessions.
pub(crate) async fn serve(shared: Arc<Shared>, leg: Leg, mut socket: WebSocket, _permit: OwnedSemaphorePermit) {
    let cancelled = leg.cancelled().clone();
    let mut session = Session {
        viewer: Viewer::new(leg, shared.muxes.clone(), shared.config.lag_max()),
        pace: Pace::new(shared.config.in_flight_max()),
        slow_cut: shared.config.slow_cut(),
    };
    let cause = tokio::select! {
        () = cancelled.cancelled() => Cause::here("kicked"),
        () = shared.shutdown.cancelled() => Cause::here("draining"),
        cause = session.run(&mut socket) => cause,
    };
    // The close frame is a courtesy to a viewer that may not read.
    _ = timeout(GOODBYE_MAX, socket.send(Message::Close(None))).await;
    session.viewer.end(cause);
}

struct Session {
    viewer: Viewer,
    pace: Pace,
    slow_cut: Duration,
}

impl Session {
    async fn run(&mut self, socket: &mut WebSocket) -> Cause {
        let mut pieces = Vec::new();
        loop {
            match timeout(self.slow_cut, self.send(socket, &mut pieces)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Cause::peer("connection_lost").with(error),
                Err(_) => return Cause::here("too_slow"),
            }
            match self.next(socket, &mut pieces).await {
                Ok(()) => {}
                Err(cause) => return cause,
            }
        }
    }

    /// Waits until there is something to send and the viewer can take it; or until it is over.
    async fn next(&mut self, socket: &mut WebSocket, pieces: &mut Vec<Bytes>) -> Result<(), Cause> {
        loop {
            let waited = self.pace.waiting_since().map(|since| (now() - since).to_duration());
            let patience = self.slow_cut.saturating_sub(waited.unwrap_or_default());
            let stalled = self.pace.stalled();
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(message)) => self.heard(&message),
                    Some(Err(error)) => return Err(Cause::peer("connection_lost").with(error)),
                    None => return Err(Cause::peer("closed")),
                },
                ready = self.viewer.ready(pieces), if !stalled => return match ready {
                    Ready::Send => Ok(()),
                    Ready::Ended(reason) => Err(Cause::here(reason.code())),
                },
                () = sleep(patience), if waited.is_some() => return Err(Cause::here("too_slow")),
            }
        }
    }

    /// Pings and close frames are answered below us; of all a viewer says only the answers to our pings matter.
    fn heard(&mut self, message: &Message) {
        if let Message::Pong(payload) = message
            && let Some(took) = self.pace.pong(payload, now())
        {
            self.viewer.leg().counters().rtt_us.store((took.as_nanos() / 1_000).max(0) as u64, Ordering::Relaxed);
        }
    }

    /// Sends `pieces` and, when it is due, a ping behind them; the first time there are none, and the ping goes alone.
    async fn send(&mut self, socket: &mut WebSocket, pieces: &mut Vec<Bytes>) -> Result<(), axum::Error> {
        for piece in pieces.drain(..) {
            socket.feed(Message::Binary(piece)).await?;
        }
        self.pace.sent(self.viewer.media());
        if let Some(ping) = self.pace.ping(now()) {
            socket.feed(Message::Ping(Bytes::copy_from_slice(&ping))).await?;
        }
        socket.flush().await
    }
}

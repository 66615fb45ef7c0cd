//! One publisher: a transport stream in a request body or in WebSocket messages, until it ends, falls silent or is asked to go.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use patchbay_bus::{EndReason, now};
use patchbay_contract::{Cause, Code, Publication, Refusal};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::gateway::Shared;
use crate::ingest::{Ingest, NotTs};

/// How long a publisher may take to read the close frame.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Why nothing follows.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("the publisher closed")]
    Closed,
    #[error("the connection was lost: {0}")]
    Lost(axum::Error),
    #[error("the publisher fell silent")]
    Silent,
    #[error(transparent)]
    NotTs(#[from] NotTs),
    #[error("the session was ended here")]
    Kicked,
    #[error("the server is about to stop")]
    Draining,
}

impl Over {
    fn reason(&self) -> (EndReason, Cause) {
        match self {
            Self::Closed => (EndReason::Finished, Cause::peer("closed")),
            Self::Lost(error) => (EndReason::Lost, Cause::peer("connection_lost").with(error)),
            Self::Silent => (EndReason::Lost, Cause::peer("timeout").with(self)),
            Self::NotTs(error) => (EndReason::Lost, Cause::peer("protocol_error").with(error)),
            Self::Kicked => (EndReason::Stopped, Cause::here("kicked")),
            Self::Draining => (EndReason::Stopped, Cause::here("draining")),
        }
    }
}

/// Serves a request body; what is said is for the answer. `_permit` is its place among the sessions.
pub(crate) async fn serve_body(
    shared: Arc<Shared>,
    publication: Publication,
    body: Body,
    _permit: OwnedSemaphorePermit,
) -> Result<(), Refusal> {
    let bytes = body.into_data_stream().map_err(Over::Lost);
    match receive(&shared, publication, bytes).await {
        Over::Closed | Over::Lost(_) => Ok(()),
        over @ Over::NotTs(_) => Err(Refusal::new(Code::Unsupported, over.to_string())),
        over @ (Over::Kicked | Over::Draining) => Err(Refusal::new(Code::Draining, over.to_string())),
        over @ Over::Silent => Err(Refusal::new(Code::BadRequest, over.to_string())),
    }
}

/// Serves a WebSocket; whatever its messages are called, they are a transport stream.
pub(crate) async fn serve_socket(shared: Arc<Shared>, publication: Publication, mut socket: WebSocket, _permit: OwnedSemaphorePermit) {
    let bytes = socket.by_ref().filter_map(async |message| match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(Over::Lost(error))),
    });
    receive(&shared, publication, std::pin::pin!(bytes)).await;
    // The close frame is a courtesy to a publisher that may not read.
    _ = timeout(GOODBYE_MAX, socket.send(Message::Close(None))).await;
}

/// Reads until something is over.
async fn receive(shared: &Shared, publication: Publication, mut bytes: impl Stream<Item = Result<Bytes, Over>> + Unpin) -> Over {
    let cancelled = publication.cancelled().clone();
    let mut ingest = Ingest::new(publication);
    let idle = shared.config.idle_timeout();
    let over = loop {
        let read = tokio::select! {
            () = cancelled.cancelled() => Err(Over::Kicked),
            () = shared.shutdown.cancelled() => Err(Over::Draining),
            read = timeout(idle, bytes.next()) => read.map_or(Err(Over::Silent), |read| read.unwrap_or(Err(Over::Closed))),
        };
        match read.and_then(|bytes| Ok(ingest.push(&bytes, now())?)) {
            Ok(()) => {}
            Err(over) => break over,
        }
    };
    let (reason, cause) = over.reason();
    ingest.end(reason, cause);
    over
}

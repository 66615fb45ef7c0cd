//! One connection to a server that we play from: its stream becomes a publication here.

use std::sync::Arc;
use std::time::Duration;

use patchbay_bus::{EndReason, Stream, now};
use patchbay_contract::{Caller, Cause, Hub, PublishRequest};
use patchbay_rules::EndpointKind;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::ingest::Ingest;
use crate::outgoing::{Board, Failure, Peer, State};
use crate::proto::client::ClientEvent;

/// How long a server that has said yes may send nothing of the stream.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a stream that has begun may take to show its second track.
const SETTLE: Duration = Duration::from_millis(400);

/// The publication, once the server has sent something.
struct Arriving {
    ingest: Ingest,
    stream: Arc<Stream>,
    cancelled: CancellationToken,
    /// Until when it counts as not begun yet; `None` once it has.
    settles: Option<Instant>,
}

/// Receives until the connection fails, or until it is stopped.
pub(super) async fn receive(mut peer: Peer, hub: &Arc<dyn Hub>, board: &Board, stop: &CancellationToken) -> Result<(), Failure> {
    board.set(State::Connecting, "connected; the server has sent nothing of the stream yet");
    let mut arriving = None;
    let result = tokio::select! {
        () = stop.cancelled() => Ok(()),
        Err(failure) = take(&mut peer, &mut arriving, hub, board) => Err(failure),
    };
    if let Some(Arriving { ingest, .. }) = arriving {
        let (reason, cause) = match &result {
            Ok(()) => (EndReason::Stopped, Cause::here("stopped")),
            Err(Failure::Over) => (EndReason::Finished, Cause::peer("closed")),
            Err(Failure::Kicked) => (EndReason::Stopped, Cause::here("kicked")),
            Err(failure) => (EndReason::Lost, Cause::peer("connection_lost").with(failure)),
        };
        ingest.end(reason, cause);
    }
    if result.is_ok() {
        peer.session.finish();
        // A farewell; who does not read it notices the end of the connection.
        _ = peer.write().await;
    }
    result
}

/// Never ends well.
async fn take(peer: &mut Peer, arriving: &mut Option<Arriving>, hub: &Arc<dyn Hub>, board: &Board) -> Result<(), Failure> {
    let mut until = Instant::now() + IDLE_MAX;
    loop {
        // Whole messages that were read together arrived together.
        let arrival = now();
        while let Some(event) = peer.poll()? {
            if is_of_stream(&event) {
                until = Instant::now() + IDLE_MAX;
                if arriving.is_none() {
                    *arriving = Some(begin(hub, board).await?);
                }
            }
            match (event, arriving.as_mut()) {
                (ClientEvent::Video { timestamp, payload }, Some(to)) => to.ingest.video(timestamp, payload, arrival),
                (ClientEvent::Audio { timestamp, payload }, Some(to)) => to.ingest.audio(timestamp, payload, arrival),
                (ClientEvent::Data { data, .. }, Some(to)) => to.ingest.data(&data),
                (ClientEvent::Ended, _) => return Err(Failure::Over),
                _ => {}
            }
        }
        peer.write().await?;
        let more = async { timeout_at(until, peer.socket.readable()).await.map_err(|_| Failure::Idle(IDLE_MAX))?.map_err(Failure::from) };
        match arriving {
            None => more.await?,
            Some(Arriving { stream, cancelled, settles, .. }) => tokio::select! {
                () = cancelled.cancelled() => return Err(Failure::Kicked),
                () = settled(stream, *settles) => {
                    *settles = None;
                    board.connected();
                    continue;
                }
                more = more => more?,
            },
        }
        peer.read()?;
    }
}

/// Some servers say other things of a stream that they do not have.
fn is_of_stream(event: &ClientEvent) -> bool {
    match event {
        ClientEvent::Video { .. } | ClientEvent::Audio { .. } => true,
        ClientEvent::Data { data, .. } => data.name == "onMetaData",
        _ => false,
    }
}

async fn begin(hub: &Arc<dyn Hub>, board: &Board) -> Result<Arriving, Failure> {
    let kind = hub.kind_of(&board.stream, EndpointKind::Rtmp);
    let caller = Caller { protocol: "pull", agent: Some(board.to.primary.to_string()), operator: true, yields: true, ..Caller::default() };
    let request = PublishRequest { stream: board.stream.clone(), kind, caller };
    let publication = hub.publish(request).await.map_err(Failure::Unwanted)?;
    let (stream, cancelled) = (publication.publisher().stream().clone(), publication.cancelled().clone());
    Ok(Arriving { ingest: Ingest::new(publication), stream, cancelled, settles: Some(Instant::now() + SETTLE) })
}

/// Once there is something to play: both tracks, or one and no second within a while.
async fn settled(stream: &Stream, settles: Option<Instant>) {
    let described = stream.tracks().iter().filter(|track| track.info().is_some()).count();
    match settles {
        Some(_) if described >= 2 => {}
        Some(until) if described == 1 => sleep_until(until).await,
        _ => std::future::pending().await,
    }
}

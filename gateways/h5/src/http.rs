//! The routes: `GET /h5/{stream}` as a WebSocket to watch, the same with `publish=1` to publish, and `POST /h5/{stream}` to
//! publish by a body without end. The stream's name may end in `.jsmpeg` or `.ts`.
//!
//! A name that is not live is refused to viewers unless `wait=1` is in the query.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Code, Credentials, PlayRequest, Publication, PublishRequest, Refusal};
use patchbay_rules::EndpointKind;
use tokio::sync::OwnedSemaphorePermit;

use crate::gateway::Shared;
use crate::{naming, play, publish};

/// Longest message and frame taken from a viewer, bytes; it has nothing to say.
const VIEWER_MESSAGE_MAX: usize = 1 << 10;
/// The same for a publisher.
const PUBLISHER_MESSAGE_MAX: usize = 256 << 10;
const PUBLISHER_FRAME_MAX: usize = 64 << 10;

pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new().route("/h5/{*stream}", get(by_socket).post(by_body)).with_state(shared)
}

async fn by_socket(State(shared): State<Arc<Shared>>, Path(stream): Path<String>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(&mut parts, &shared).await else {
        return refused(Refusal::new(Code::BadRequest, "open this address as a WebSocket, with jsmpeg for example, or POST to it"));
    };
    let upgrade = match naming::sub_protocol(&parts.headers) {
        Some(name) => upgrade.protocols([name]),
        None => upgrade,
    };
    let query = parts.uri.query().unwrap_or_default();
    let opened = match naming::flag(query, "publish") {
        true => publish_by_socket(shared, &stream, &parts, upgrade).await,
        false => play_by_socket(shared, &stream, &parts, upgrade).await,
    };
    opened.unwrap_or_else(refused)
}

async fn play_by_socket(shared: Arc<Shared>, stream: &str, parts: &Parts, upgrade: WebSocketUpgrade) -> Result<Response, Refusal> {
    let permit = shared.admit()?;
    let (stream, sink) = (naming::stream_name(stream)?, EndpointKind::H5.default_sink());
    let wait = naming::flag(parts.uri.query().unwrap_or_default(), "wait");
    let leg = shared.hub.play(PlayRequest { stream, sink, caller: caller(parts), wait }).await?;
    // The read buffer is filled with zeros before every read, also one that finds nothing: 128 KiB if nothing is said.
    let upgrade = upgrade.max_message_size(VIEWER_MESSAGE_MAX).max_frame_size(VIEWER_MESSAGE_MAX).read_buffer_size(VIEWER_MESSAGE_MAX);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = shared.tasks.clone();
        tasks.track_future(play::serve(shared, leg, socket, permit))
    }))
}

async fn publish_by_socket(shared: Arc<Shared>, stream: &str, parts: &Parts, upgrade: WebSocketUpgrade) -> Result<Response, Refusal> {
    let (publication, permit) = publish(&shared, naming::stream_name(stream)?, parts).await?;
    let upgrade = upgrade.max_message_size(PUBLISHER_MESSAGE_MAX).max_frame_size(PUBLISHER_FRAME_MAX);
    Ok(upgrade.on_upgrade(move |socket| {
        let tasks = shared.tasks.clone();
        tasks.track_future(publish::serve_socket(shared, publication, socket, permit))
    }))
}

async fn by_body(State(shared): State<Arc<Shared>>, Path(stream): Path<String>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let publication = async { publish(&shared, naming::stream_name(&stream)?, &parts).await };
    let (publication, permit) = match publication.await {
        Ok(publication) => publication,
        Err(refusal) => return refused(refusal),
    };
    // A task of its own, so that the session ends in order when the connection does not.
    let session = shared.tasks.spawn(publish::serve_body(shared.clone(), publication, body, permit));
    match session.await {
        Ok(Ok(())) => StatusCode::OK.into_response(),
        Ok(Err(refusal)) => refused(refusal),
        Err(_) => refused(Refusal::new(Code::Internal, "the session failed")),
    }
}

async fn publish(shared: &Shared, stream: StreamName, parts: &Parts) -> Result<(Publication, OwnedSemaphorePermit), Refusal> {
    let permit = shared.admit()?;
    let publication = shared.hub.publish(PublishRequest { stream, kind: EndpointKind::H5, caller: caller(parts) }).await?;
    Ok((publication, permit))
}

fn caller(parts: &Parts) -> Caller {
    Caller {
        protocol: "h5",
        peer: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0),
        agent: naming::agent(&parts.headers),
        credentials: Credentials::of_http(&parts.uri, &parts.headers),
        ..Caller::default()
    }
}

/// Pages from anywhere may read why.
fn refused(refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

//! HTTP-FLV and WebSocket-FLV: `GET /flv/{stream}[.flv]`.
//!
//! The same URL upgraded to a WebSocket gives the same bytes in binary messages. A name that is not live is refused
//! unless `wait=1` is in the query; `kind=` there says what the player is, `codecs=` what it takes
//! beside H.264 and AAC. Refuses: seeking, and range requests.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, FromRequestParts, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use patchbay_contract::{Caller, Cause, Credentials, Leg, PlayRequest, Refusal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::accept;
use crate::fanout::{Form, Ready, Viewer};
use crate::flv::mux::file_header;
use crate::gateway::Shared;
use crate::naming;

/// Longest message taken from a WebSocket viewer, bytes; it has nothing to say.
const MESSAGE_MAX: usize = 1 << 10;
/// How long a WebSocket viewer may take to read the close frame.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new().route("/flv/{*stream}", get(by_name)).with_state(shared)
}

async fn by_name(State(shared): State<Arc<Shared>>, Path(stream): Path<String>, request: Request) -> Response {
    let stream = stream.strip_suffix(".flv").unwrap_or(&stream);
    answer(shared, stream, request).await
}

async fn answer(shared: Arc<Shared>, name: &str, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &shared).await.ok();
    let query = parts.uri.query().unwrap_or_default();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    let caller = Caller {
        protocol: if upgrade.is_some() { "ws-flv" } else { "http-flv" },
        peer,
        agent: agent(&parts.headers),
        credentials: Credentials::of_http(&parts.uri, &parts.headers),
        ..Caller::default()
    };
    let leg = match play(&shared, name, query, caller).await {
        Ok(leg) => leg,
        Err(refusal) => return open_to_all(refusal.into_response()),
    };
    let viewer = Viewer::new(leg, shared.muxes.clone(), Form::Flv, shared.config.lag_max());
    match upgrade {
        Some(upgrade) => {
            // The read buffer is filled with zeros before every read, also one that finds nothing.
            let upgrade = upgrade.max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX).read_buffer_size(MESSAGE_MAX);
            upgrade.on_upgrade(move |socket| serve_socket(shared, viewer, socket))
        }
        None => {
            let mut response = Response::new(body(&shared, viewer));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("video/x-flv"));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            open_to_all(response)
        }
    }
}

async fn play(shared: &Shared, name: &str, query: &str, caller: Caller) -> Result<Leg, Refusal> {
    let stream = naming::stream_name("", name)?;
    let mut sink = shared.kind_of(&stream, &[query])?.default_sink();
    sink.take_also(accept::named(&[query])?);
    let wait = url::form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "wait" && value == "1");
    shared.hub.play(PlayRequest { stream, sink, caller, wait }).await
}

fn agent(headers: &HeaderMap) -> Option<String> {
    naming::agent(headers.get(header::USER_AGENT)?.to_str().ok()?)
}

/// Players on any page may read it.
fn open_to_all(mut response: Response) -> Response {
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// The body of an HTTP-FLV answer. A task fills it, so that a viewer that does not read is noticed: its connection is
/// then nobody's but the HTTP server's.
fn body(shared: &Arc<Shared>, viewer: Viewer) -> Body {
    // One write is under way and one waits; a viewer that lags skips in the ring, not here.
    let (sender, receiver) = mpsc::channel::<Vec<Bytes>>(1);
    tokio::spawn(fill(shared.clone(), viewer, sender));
    let pieces = stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|pieces| (pieces, receiver)) });
    Body::from_stream(pieces.flat_map(|pieces| stream::iter(pieces.into_iter().map(Ok::<_, Infallible>))))
}

async fn fill(shared: Arc<Shared>, viewer: Viewer, sender: mpsc::Sender<Vec<Bytes>>) {
    let cancelled = viewer.leg().cancelled().clone();
    let mut file = File { viewer, begun: false };
    let send_all = async {
        loop {
            let pieces = match file.next().await {
                Ok(pieces) => pieces,
                Err(over) => return over,
            };
            match timeout(shared.config.slow_cut(), sender.send(pieces)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Cause::peer("closed"),
                Err(_) => return Cause::here("too_slow"),
            }
        }
    };
    let cause = tokio::select! {
        () = cancelled.cancelled() => Cause::here("kicked"),
        () = sender.closed() => Cause::peer("closed"),
        cause = send_all => cause,
    };
    file.viewer.end(cause);
}

async fn serve_socket(shared: Arc<Shared>, viewer: Viewer, socket: WebSocket) {
    let cancelled = viewer.leg().cancelled().clone();
    let mut file = File { viewer, begun: false };
    let (mut sink, mut source) = socket.split();
    let gone = async {
        // Pings are answered below us; anything else a viewer says is ignored.
        while let Some(Ok(_)) = source.next().await {}
    };
    let send_all = async {
        loop {
            let pieces = match file.next().await {
                Ok(pieces) => pieces,
                Err(over) => return over,
            };
            let send = async {
                for piece in pieces {
                    sink.feed(Message::Binary(piece)).await?;
                }
                sink.flush().await
            };
            match timeout(shared.config.slow_cut(), send).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Cause::peer("connection_lost").with(error),
                Err(_) => return Cause::here("too_slow"),
            }
        }
    };
    let cause = tokio::select! {
        () = cancelled.cancelled() => Cause::here("kicked"),
        () = gone => Cause::peer("closed"),
        cause = send_all => cause,
    };
    // The close frame is a courtesy to a viewer that may not read.
    _ = timeout(GOODBYE_MAX, sink.send(Message::Close(None))).await;
    file.viewer.end(cause);
}

/// A viewer's bytes with the file header before them.
struct File {
    viewer: Viewer,
    begun: bool,
}

impl File {
    /// What to send next, or why nothing follows.
    async fn next(&mut self) -> Result<Vec<Bytes>, Cause> {
        let mut pieces = Vec::new();
        if let Ready::Ended(reason) = self.viewer.ready(&mut pieces).await {
            return Err(Cause::here(reason.code()));
        }
        if !std::mem::replace(&mut self.begun, true) {
            let (video, audio) = self.viewer.kinds();
            pieces.insert(0, Bytes::copy_from_slice(&file_header(audio, video)));
        }
        Ok(pieces)
    }
}

//! WHIP (RFC 9725) and WHEP over HTTP: offers in, answers and session URLs out.
//!
//! Owns: routes, content types, CORS, session URLs. Refuses: media; a session leaves here with its worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Router, middleware};
use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Cause, Code, Credentials, PlayRequest, PublishRequest, Refusal};
use patchbay_media::Codec;
use patchbay_rules::{AudioAccept, EndpointKind, Sink, VideoAccept};
use serde::Deserialize;
use tokio::sync::oneshot;
use tower_http::cors::{Any, CorsLayer};

use crate::Gateway;
use crate::directory::{Admission, Card, SessionKey};
use crate::peer::Peer;
use crate::sdp::{Fragment, Offer, Role};
use crate::session::{Grant, Opening};
use crate::worker::Command;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// Largest offer; browsers send about 8 KiB.
const BODY_MAX: usize = 64 << 10;
/// Longest User-Agent that is kept.
const AGENT_MAX: usize = 256;
/// How long a DELETE waits for the worker.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// Tells the peer its number in the ledger, so that a page can show the verdict of its own pair.
const SESSION: header::HeaderName = header::HeaderName::from_static("patchbay-session");
/// One entity tag for every session: ICE restarts, which would change it, are not supported.
const ETAG: &str = "\"0\"";

type App = Arc<Gateway>;

pub(crate) fn routes(gateway: App) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::POST, Method::GET, Method::PATCH, Method::DELETE, Method::OPTIONS])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH])
        .expose_headers([header::LOCATION, header::ETAG, header::LINK, SESSION])
        .max_age(Duration::from_secs(3_600));
    Router::new()
        .route("/whip/{*stream}", get(nothing).post(whip))
        .route("/whep/{*stream}", get(nothing).post(whep))
        .route("/webrtc/sessions/{id}", any(session))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(cors)
        .layer(middleware::map_response(accept_post))
        .with_state(gateway)
}

/// CORS answers OPTIONS; what may be posted is said on every answer, so there too.
async fn accept_post(mut response: Response) -> Response {
    response.headers_mut().insert("accept-post", HeaderValue::from_static(SDP));
    response
}

/// GET on an endpoint: there is one, with no content (RFC 9725 §4.1).
async fn nothing() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// What every request carries besides its body.
struct Request {
    peer: Option<SocketAddr>,
    headers: HeaderMap,
    credentials: Credentials,
    wait: bool,
}

#[derive(Deserialize)]
struct Parameters {
    wait: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Request {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<Parameters>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|e| Refusal::new(Code::BadRequest, format!("the query does not parse: {e}")))?;
        Ok(Self {
            peer: parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|c| c.0),
            headers: parts.headers.clone(),
            credentials: Credentials::of_http(&parts.uri, &parts.headers),
            wait: query.wait.is_some_and(|w| w == "1" || w == "true"),
        })
    }
}

impl Request {
    fn caller(&self, protocol: &'static str) -> Caller {
        let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        let agent = agent.map(|a| a.chars().take(AGENT_MAX).collect());
        Caller { protocol, peer: self.peer, agent, credentials: self.credentials.clone(), operator: false }
    }

    fn expect_type(&self, wanted: &str) -> Result<(), Refusal> {
        let given = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let plain = given.split(';').next().unwrap_or_default().trim();
        if plain.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        let given: String = given.chars().take(80).collect();
        Err(Refusal::new(Code::Unsupported, format!("Content-Type is {given:?}; send {wanted}")))
    }
}

async fn whip(State(app): State<App>, Path(stream): Path<String>, request: Request, body: Bytes) -> Result<Response, Refusal> {
    publish(app, stream.parse()?, request, body).await
}

async fn whep(State(app): State<App>, Path(stream): Path<String>, request: Request, body: Bytes) -> Result<Response, Refusal> {
    play(app, stream.parse()?, request, body).await
}

fn read_offer(request: &Request, body: &[u8], role: Role) -> Result<Offer, Refusal> {
    request.expect_type(SDP)?;
    let text = std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadRequest, "the offer is not UTF-8"))?;
    Offer::read(text, role)
}

async fn publish(app: App, stream: StreamName, request: Request, body: Bytes) -> Result<Response, Refusal> {
    let offer = read_offer(&request, &body, Role::Publish)?;
    let admission = app.admit()?;
    let kind = app.hub.kind_of(&stream, EndpointKind::Webrtc);
    let grant = app.hub.publish(PublishRequest { stream, kind, caller: request.caller("whip") }).await?;
    open(&app, (Role::Publish, &offer), Grant::Publish(grant), admission, &request)
}

async fn play(app: App, stream: StreamName, request: Request, body: Bytes) -> Result<Response, Refusal> {
    let offer = read_offer(&request, &body, Role::Play)?;
    let admission = app.admit()?;
    let kind = app.hub.kind_of(&stream, EndpointKind::Webrtc);
    let sink = sink(kind, &offer, app.config.h264_strict_profile);
    let leg = app.hub.play(PlayRequest { stream, sink, caller: request.caller("whep"), wait: request.wait }).await?;
    open(&app, (Role::Play, &offer), Grant::Play(leg), admission, &request)
}

/// What the viewer takes, by its own offer.
fn sink(kind: EndpointKind, offer: &Offer, strict: bool) -> Sink {
    let profiles = if strict { offer.h264.iter().map(|p| p.idc).collect() } else { vec![66, 77, 100] };
    let video = VideoAccept { h264_profiles: Some(profiles), ..VideoAccept::h264_realtime() };
    let audio = AudioAccept { codec: Codec::Opus, sample_rates: None, channels_max: Some(2) };
    Sink {
        kind,
        video: if offer.h264.is_empty() { Vec::new() } else { vec![video] },
        audio: if offer.opus { vec![audio] } else { Vec::new() },
        is_rigid: false,
        passes_only: false,
    }
}

/// Answers an offer the hub has granted, and hands the session to a worker.
fn open(app: &App, (role, offer): (Role, &Offer), grant: Grant, admission: Admission, request: &Request) -> Result<Response, Refusal> {
    let (peer, answer, ufrag) = match Peer::answer(&app.identity, offer, role, Instant::now()) {
        Ok(answered) => answered,
        Err(refusal) => {
            grant.end(Cause::here(refusal.code.as_str()).with(&refusal.message));
            return Err(refusal);
        }
    };
    let (key, worker, number) = (SessionKey::random(), app.pick_worker(), grant.number());
    let card = Card { worker, ufrag, remote_ufrag: offer.ufrag.clone(), token: request.credentials.token().map(str::to_owned) };
    app.shared.directory.insert(key, card);
    let command = Command::Open(Box::new(Opening { key, peer, grant, admission }));
    if let Err(refused) = app.shared.mailboxes[worker].try_send(command) {
        app.shared.directory.remove(key);
        if let Command::Open(opening) = refused.into_inner() {
            opening.grant.end(Cause::here("too_many").with("the worker's mailbox is full or closed"));
        }
        return Err(Refusal::new(Code::TooMany, "the media worker has no room for a new session now; try again in a moment"));
    }
    let headers = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, format!("/webrtc/sessions/{key}")),
        (header::ETAG, ETAG.to_owned()),
        (SESSION, number.to_string()),
        (header::HeaderName::from_static("accept-patch"), FRAGMENT.to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, answer).into_response())
}

async fn session(
    State(app): State<App>,
    Path(id): Path<String>,
    method: Method,
    request: Request,
    body: Bytes,
) -> Result<Response, Refusal> {
    let gone = || Refusal::new(Code::SessionNotFound, "no such session; it may have ended");
    let key = SessionKey::parse(&id).ok_or_else(gone)?;
    let card = app.shared.directory.get(key).ok_or_else(gone)?;
    // The URL itself is a secret of 128 bits; a token, when given, must be the creator's.
    if request.credentials.token().is_some() && request.credentials.token() != card.token.as_deref() {
        return Err(Refusal::new(Code::Unauthorized, "this session was created with another token"));
    }
    match method {
        Method::DELETE => {
            let (done, wait) = oneshot::channel();
            let close = Command::Close(key, Cause::peer("deleted"), done);
            let busy = |_| Refusal::new(Code::TooMany, "the media worker is busy; try again in a moment");
            app.shared.mailboxes[card.worker].try_send(close).map_err(|e| busy(e.to_string()))?;
            // If the worker is slow the session still ends; the answer only comes earlier.
            let _ = tokio::time::timeout(CLOSE_WAIT, wait).await;
            Ok(StatusCode::OK.into_response())
        }
        Method::PATCH => patch(&card, &request, &body),
        Method::GET | Method::HEAD => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD, PATCH, DELETE, OPTIONS")]).into_response()),
    }
}

/// Trickled candidates are accepted and not needed: an ICE-lite agent learns addresses from the peer's checks.
fn patch(card: &Card, request: &Request, body: &[u8]) -> Result<Response, Refusal> {
    request.expect_type(FRAGMENT)?;
    let text = std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadRequest, "the fragment is not UTF-8"))?;
    let fragment = Fragment::read(text)?;
    let condition = request.headers.get(header::IF_MATCH).and_then(|v| v.to_str().ok());
    if condition.is_some_and(|c| c != "*" && c != ETAG) {
        return Ok(StatusCode::PRECONDITION_FAILED.into_response());
    }
    if fragment.ufrag.is_some_and(|ufrag| ufrag != card.remote_ufrag) {
        return Err(Refusal::new(Code::Unprocessable, "ICE restart is not supported; create a new session"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

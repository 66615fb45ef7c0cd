//! WHIP (RFC 9725) and WHEP over HTTP: offers in, answers and session URLs out.
//!
//! Owns: routes, content types, CORS, session URLs. Refuses: media; a session leaves here with its worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Router, middleware};
use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Cause, Code, Credentials, PlayRequest, PublishRequest, Refusal};
use patchbay_media::Codec;
use patchbay_rules::{AudioAccept, EndpointKind, Sink, VideoAccept};
use serde::Deserialize;
use tower_http::cors::{Any, CorsLayer};

use crate::directory::{Admission, Card, SessionKey};
use crate::peer::Peer;
use crate::sdp::{Offer, Role};
use crate::session::{Grant, Opening};
use crate::worker::Command;
use crate::{Gateway, resource};

pub(crate) const SDP: &str = "application/sdp";
pub(crate) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// Largest offer; browsers send about 8 KiB.
const BODY_MAX: usize = 64 << 10;
/// Longest User-Agent that is kept.
const AGENT_MAX: usize = 256;
/// Tells the peer its number in the ledger, so that a page can show the verdict of its own pair.
const SESSION: header::HeaderName = header::HeaderName::from_static("patchbay-session");

pub(crate) type App = Arc<Gateway>;

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
        .route("/webrtc/sessions/{id}", any(resource::session))
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
pub(crate) struct Request {
    peer: Option<SocketAddr>,
    pub(crate) headers: HeaderMap,
    pub(crate) credentials: Credentials,
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
        Caller { protocol, peer: self.peer, agent, credentials: self.credentials.clone(), ..Caller::default() }
    }

    pub(crate) fn expect_type(&self, wanted: &str) -> Result<(), Refusal> {
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
    match play(app, stream.parse()?, request, body).await {
        // Not live is a conflict with the stream's state, to be tried again (WHEP draft §4.2).
        Err(refusal) if refusal.code == Code::StreamNotFound => Ok(refusal.into_response_as(StatusCode::CONFLICT)),
        answered => answered,
    }
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
fn open(app: &App, (role, offer): (Role, &Offer), grant: Grant, mut admission: Admission, request: &Request) -> Result<Response, Refusal> {
    let (peer, answer, ufrag) = match Peer::answer(&app.identity, offer, role, Instant::now()) {
        Ok(answered) => answered,
        Err(refusal) => {
            grant.end(Cause::here(refusal.code.as_str()).with(&refusal.message));
            return Err(refusal);
        }
    };
    admission.answered(request.peer.map(|peer| peer.ip()));
    let (key, worker, number) = (SessionKey::random(), app.pick_worker(), grant.number());
    let token = request.credentials.token().map(str::to_owned);
    let card = Card { worker, ufrag, remote_ufrag: offer.ufrag.clone(), restarts: 0, token };
    let etag = resource::etag(&card);
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
        (header::ETAG, etag),
        (SESSION, number.to_string()),
        (header::HeaderName::from_static("accept-patch"), FRAGMENT.to_owned()),
    ];
    let links = AppendHeaders(app.config.ice_servers.iter().flat_map(|server| server.links(number)).map(|link| (header::LINK, link)));
    Ok((StatusCode::CREATED, headers, links, answer).into_response())
}

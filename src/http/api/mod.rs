//! `/v1`: what is live and what was decided, as JSON; described by its own OpenAPI document.

mod pushes;
mod reads;
mod rules;

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use patchbay_contract::{Code, Refusal};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::State;

/// What a client must know to make URLs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Info {
    /// Version of patchbay.
    pub version: &'static str,
    /// TCP port of RTMP.
    pub rtmp_port: u16,
    /// TCP port of HTTP.
    pub http_port: u16,
    /// UDP port of WebRTC media.
    pub webrtc_port: u16,
    /// Whether the built-in test picture runs.
    pub demo: bool,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "patchbay", description = "What is live in this hub, what was decided for every source/sink pair, and why."),
    paths(
        reads::info,
        reads::streams,
        reads::stream,
        reads::sessions,
        reads::end_session,
        reads::pairs,
        reads::pair,
        pushes::list,
        pushes::create,
        pushes::remove,
        rules::list,
        rules::replace,
        rules::plan,
        rules::load,
        rules::reload
    )
)]
struct Document;

pub fn routes(state: &State) -> Router<State> {
    let guarded = Router::new().merge(reads::routes()).merge(pushes::routes()).merge(rules::routes());
    let guarded = guarded.layer(middleware::from_fn_with_state(state.clone(), authorise));
    Router::new().route("/v1/openapi.json", get(|| async { Json(Document::openapi()) })).merge(guarded)
}

/// With `api.token` set, every call needs it as a Bearer token; without one, only this machine is answered (and in the
/// demo whoever reaches it).
async fn authorise(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let Some(token) = &state.api_token else {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        return match state.info.demo || peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback()) {
            true => next.run(request).await,
            false => Refusal::new(Code::Unauthorized, "without api.token the API answers only callers on its own machine").into_response(),
        };
    };
    let given = request.headers().get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    if given.is_some_and(|given| crate::secrets::equal(given, token)) {
        return next.run(request).await;
    }
    Refusal::new(Code::Unauthorized, "the API needs `Authorization: Bearer <api.token>`").into_response()
}

/// An error body (RFC 9457).
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "documents the body that Refusal renders")]
pub struct Problem {
    /// What it means in general.
    title: String,
    /// HTTP status.
    status: u16,
    /// Reason code, shared with log lines and protocol replies.
    code: String,
    /// What failed here, and what to do.
    detail: String,
}

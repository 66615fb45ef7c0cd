//! `/v1`: what is live and what was decided, as JSON; described by its own OpenAPI document.

mod pulls;
mod pushes;
mod reads;
mod rules;
mod tokens;

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State as Extract};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use patchbay_contract::{Code, Credentials, Refusal};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::State;
use crate::auth::Right;

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
        reads::refusals,
        reads::pairs,
        reads::pair,
        pulls::list,
        pushes::list,
        pushes::create,
        pushes::remove,
        rules::list,
        rules::replace,
        rules::plan,
        rules::load,
        rules::reload,
        tokens::revoke
    )
)]
struct Document;

pub fn routes(state: &State) -> Router<State> {
    let guarded =
        Router::new().merge(reads::routes()).merge(pushes::routes()).merge(pulls::routes()).merge(rules::routes()).merge(tokens::routes());
    let guarded = guarded.layer(middleware::from_fn_with_state(state.clone(), authorise));
    Router::new().route("/v1/openapi.json", get(|| async { Json(Document::openapi()) })).merge(guarded)
}

/// Every call needs `api.token` or a JSON Web Token with the right to it, as a Bearer token. Without `api.token`, callers on
/// this machine (and in the demo whoever reaches it) need none.
async fn authorise(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    match check(&state, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(state: &State, request: &Request) -> Result<(), Refusal> {
    let brought = Credentials::of_http(&Uri::default(), request.headers());
    if let (Some(wanted), Some(given)) = (&state.api_token, brought.token())
        && crate::secrets::equal(given, wanted)
    {
        return Ok(());
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical());
    // Nobody knows who an unspecified one is: a stranger's page, perhaps.
    let is_here = peer.is_some_and(|ip| ip.is_loopback() || state.info.demo && !ip.is_unspecified());
    if state.api_token.is_none() && is_here {
        return Ok(());
    }
    let right = if request.method().is_safe() { Right::Read } else { Right::Control };
    match brought.token() {
        Some(given) => state.gate.admit_to_api(given, right),
        None if state.api_token.is_some() => Err(Refusal::new(Code::Unauthorized, "the API needs `Authorization: Bearer <api.token>`")),
        None => Err(Refusal::new(Code::Unauthorized, "without api.token the API answers only callers on its own machine")),
    }
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

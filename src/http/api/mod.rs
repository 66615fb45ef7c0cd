//! `/v1`: what is live and what was decided, as JSON; described by its own OpenAPI document.

mod pushes;
mod reads;

use axum::extract::{Request, State as Extract};
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
        pushes::remove
    )
)]
struct Document;

/// The OpenAPI document as JSON.
pub fn openapi() -> String {
    Document::openapi().to_pretty_json().unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
}

pub fn routes(state: &State) -> Router<State> {
    let guarded = Router::new().merge(reads::routes()).merge(pushes::routes());
    let guarded = guarded.layer(middleware::from_fn_with_state(state.clone(), authorise));
    Router::new().route("/v1/openapi.json", get(|| async { Json(Document::openapi()) })).merge(guarded)
}

/// With `api.token` set, every call needs it as a Bearer token.
async fn authorise(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let Some(token) = &state.api_token else { return next.run(request).await };
    let given = request.headers().get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    if given.is_some_and(|given| constant_time_equal(given.as_bytes(), token.as_bytes())) {
        return next.run(request).await;
    }
    Refusal::new(Code::Unauthorized, "the API needs `Authorization: Bearer <api.token>`").into_response()
}

/// Compares without telling by its duration where the difference is.
fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
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

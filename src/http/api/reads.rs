//! Streams, sessions and pairs.

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use patchbay_contract::{Code, Refusal, SessionId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Info, Problem};
use crate::http::State;
use crate::hub::RefusalCount;
use crate::hub::view::{PairView, SessionView, StreamView};

pub fn routes() -> Router<State> {
    Router::new()
        .route("/v1/info", get(info))
        .route("/v1/streams", get(streams))
        .route("/v1/streams/{*name}", get(stream))
        .route("/v1/sessions", get(sessions))
        .route("/v1/sessions/{id}", axum::routing::delete(end_session))
        .route("/v1/refusals", get(refusals))
        .route("/v1/pairs", get(pairs))
        .route("/v1/pairs/{id}", get(pair))
}

/// Live streams.
#[derive(Serialize, ToSchema)]
pub struct Streams {
    streams: Vec<StreamView>,
}

/// Live sessions.
#[derive(Serialize, ToSchema)]
pub struct Sessions {
    sessions: Vec<SessionView>,
}

/// Peers refused since the start.
#[derive(Serialize, ToSchema)]
pub struct Refusals {
    refusals: Vec<RefusalCount>,
}

/// The decision ledger.
#[derive(Serialize, ToSchema)]
pub struct Pairs {
    pairs: Vec<PairView>,
}

/// Version and ports.
#[utoipa::path(get, path = "/v1/info", responses((status = 200, body = Info)))]
pub async fn info(Extract(state): Extract<State>) -> Json<Info> {
    Json(state.info)
}

/// Every live stream.
#[utoipa::path(get, path = "/v1/streams", responses((status = 200, body = Streams)))]
pub async fn streams(Extract(state): Extract<State>) -> Json<Streams> {
    Json(Streams { streams: state.hub.streams() })
}

/// One live stream.
#[utoipa::path(get, path = "/v1/streams/{name}", params(("name" = String, Path, description = "stream name, may contain slashes")),
    responses((status = 200, body = StreamView), (status = 404, body = Problem)))]
pub async fn stream(Extract(state): Extract<State>, Path(name): Path<String>) -> Result<Json<StreamView>, Refusal> {
    let found = state.hub.streams().into_iter().find(|s| s.name == name);
    found.map(Json).ok_or_else(|| Refusal::new(Code::StreamNotFound, format!("nobody publishes {name:?} now")))
}

/// Every publisher and player.
#[utoipa::path(get, path = "/v1/sessions", responses((status = 200, body = Sessions)))]
pub async fn sessions(Extract(state): Extract<State>) -> Json<Sessions> {
    Json(Sessions { sessions: state.hub.sessions() })
}

/// Ends a session.
#[utoipa::path(delete, path = "/v1/sessions/{id}", params(("id" = u64, Path, description = "number of the session")),
    responses((status = 204), (status = 404, body = Problem)))]
pub async fn end_session(Extract(state): Extract<State>, Path(id): Path<SessionId>) -> Result<StatusCode, Refusal> {
    match state.hub.kick(id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(no_session(id)),
    }
}

/// How many peers were refused since the start, and why.
#[utoipa::path(get, path = "/v1/refusals", responses((status = 200, body = Refusals)))]
pub async fn refusals(Extract(state): Extract<State>) -> Json<Refusals> {
    Json(Refusals { refusals: state.hub.refusals() })
}

/// The decision ledger: every live source/sink pair.
#[utoipa::path(get, path = "/v1/pairs", responses((status = 200, body = Pairs)))]
pub async fn pairs(Extract(state): Extract<State>) -> Json<Pairs> {
    Json(Pairs { pairs: state.hub.pairs() })
}

/// One row of the ledger.
#[utoipa::path(get, path = "/v1/pairs/{id}", params(("id" = u64, Path, description = "session of the sink")),
    responses((status = 200, body = PairView), (status = 404, body = Problem)))]
pub async fn pair(Extract(state): Extract<State>, Path(id): Path<SessionId>) -> Result<Json<PairView>, Refusal> {
    state.hub.pair(id).map(Json).ok_or_else(|| no_session(id))
}

fn no_session(id: SessionId) -> Refusal {
    Refusal::new(Code::SessionNotFound, format!("there is no session {id}; it may have ended"))
}

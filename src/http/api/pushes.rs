//! Pushes: streams sent on to other RTMP servers.

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use patchbay_contract::{Code, Refusal};
use patchbay_rules::EndpointKind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use crate::http::State;
use crate::pushes::PushView;

pub fn routes() -> Router<State> {
    Router::new().route("/v1/pushes", get(list).post(create)).route("/v1/pushes/{name}", axum::routing::delete(remove))
}

/// Configured and requested pushes.
#[derive(Serialize, ToSchema)]
pub struct PushList {
    pushes: Vec<PushView>,
}

/// A push to start.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPush {
    /// Name of the push, unique.
    name: String,
    /// Stream to send.
    stream: String,
    /// Where to, e.g. `rtmp://host/app/key`. The last part is never shown again.
    url: String,
}

/// Every push and its state.
#[utoipa::path(get, path = "/v1/pushes", responses((status = 200, body = PushList)))]
pub async fn list(Extract(state): Extract<State>) -> Json<PushList> {
    Json(PushList { pushes: state.pushes.list() })
}

/// Starts a push.
#[utoipa::path(post, path = "/v1/pushes", request_body = NewPush,
    responses((status = 201, body = PushView), (status = 400, body = Problem), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub async fn create(Extract(state): Extract<State>, Json(new): Json<NewPush>) -> Result<(StatusCode, Json<PushView>), Refusal> {
    let view = state.pushes.start_requested(&new.name, &new.stream, &new.url, EndpointKind::Cdn).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

/// Stops a push.
#[utoipa::path(delete, path = "/v1/pushes/{name}", params(("name" = String, Path, description = "name of the push")),
    responses((status = 204), (status = 404, body = Problem)))]
pub async fn remove(Extract(state): Extract<State>, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    match state.pushes.stop(&name) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::new(Code::SessionNotFound, format!("there is no push {name:?}"))),
    }
}

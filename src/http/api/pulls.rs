//! Pulls: streams fetched from other RTMP servers while somebody plays them.

use axum::extract::State as Extract;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::State;
use crate::pulls::PullView;

pub fn routes() -> Router<State> {
    Router::new().route("/v1/pulls", get(list))
}

/// What is pulled and what could be.
#[derive(Serialize, ToSchema)]
pub struct PullList {
    pulls: Vec<PullView>,
}

/// Every pull and its state.
#[utoipa::path(get, path = "/v1/pulls", responses((status = 200, body = PullList)))]
pub async fn list(Extract(state): Extract<State>) -> Json<PullList> {
    Json(PullList { pulls: state.pulls.list() })
}

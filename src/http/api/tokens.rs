//! Tokens: revoking one before it expires.

use axum::extract::State as Extract;
use axum::routing::post;
use axum::{Json, Router};
use patchbay_contract::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use crate::http::State;

/// Longest token number, bytes; no longer one is taken from a token either.
const ID_MAX: usize = 256;

pub fn routes() -> Router<State> {
    Router::new().route("/v1/tokens/revoke", post(revoke))
}

/// A token that is to be refused from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Its number, as in its claim `jti`.
    jti: String,
    /// When it expires (Unix time, as in its claim `exp`): it is forgotten then. Without it, it is kept until the next start.
    exp: Option<u64>,
}

/// What a revocation did.
#[derive(Serialize, ToSchema)]
pub struct Revoked {
    /// Live sessions that began with the token and were ended.
    ended: usize,
}

/// Refuses a JSON Web Token from now on, and ends the sessions that began with it. The list lasts until the next start; the
/// configuration's `auth.jwt.revoked` stays.
#[utoipa::path(post, path = "/v1/tokens/revoke", request_body = Revocation,
    responses((status = 200, body = Revoked), (status = 400, body = Problem), (status = 503, body = Problem)))]
pub async fn revoke(Extract(state): Extract<State>, Json(what): Json<Revocation>) -> Result<Json<Revoked>, Refusal> {
    if what.jti.is_empty() || what.jti.len() > ID_MAX {
        return Err(Refusal::new(Code::BadRequest, "jti has 1 to 256 bytes"));
    }
    state.gate.revoke(&what.jti, what.exp)?;
    let ended = state.hub.end_token(&what.jti);
    tracing::info!(jti = what.jti, ended, "token revoked");
    Ok(Json(Revoked { ended }))
}

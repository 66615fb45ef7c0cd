//! What is in force: the rule table, what others would change, and the change; the configuration read again.

use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::routing::{get, post};
use axum::{Json, Router};
use patchbay_contract::{Code, Refusal};
use patchbay_rules::{Rule, RuleTable};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use crate::http::State;
use crate::hub::{LoadView, RulesPlan};
use crate::reload::Outcome;

/// As many as a configuration may have.
const RULES_MAX: usize = 1_000;

pub fn routes() -> Router<State> {
    Router::new()
        .route("/v1/rules", get(list).put(replace))
        .route("/v1/rules/plan", post(plan))
        .route("/v1/load", get(load))
        .route("/v1/reload", post(reload))
}

/// The user's rules, in their order; the default matrix comes after them.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleList {
    /// As under `[[rules]]` in the configuration.
    #[schema(value_type = Vec<Object>)]
    rules: Vec<Rule>,
}

/// The rules in force.
#[utoipa::path(get, path = "/v1/rules", responses((status = 200, body = RuleList)))]
pub async fn list(Extract(state): Extract<State>) -> Json<RuleList> {
    Json(RuleList { rules: state.hub.rules_now() })
}

/// Says what other rules would change on the live pairs: which pairs get something else, which encoders start and
/// stop, and what that costs. Changes nothing.
#[utoipa::path(post, path = "/v1/rules/plan", request_body = RuleList,
    responses((status = 200, body = RulesPlan), (status = 400, body = Problem)))]
pub async fn plan(Extract(state): Extract<State>, body: Bytes) -> Result<Json<RulesPlan>, Refusal> {
    Ok(Json(state.hub.plan_rules(&table(&body)?)))
}

/// Puts other rules in force, all or none, until the configuration is read again. Pairs whose verdict stays are not
/// touched; the others go over at a group boundary. Answers what it changed.
#[utoipa::path(put, path = "/v1/rules", request_body = RuleList,
    responses((status = 200, body = RulesPlan), (status = 400, body = Problem)))]
pub async fn replace(Extract(state): Extract<State>, body: Bytes) -> Result<Json<RulesPlan>, Refusal> {
    let table = table(&body)?;
    let changes = state.hub.plan_rules(&table);
    state.hub.set_rules(table);
    Ok(Json(changes))
}

/// Reads the configuration again, as SIGHUP does: all of it is taken, or nothing when anything is wrong. Live sessions
/// are not touched.
#[utoipa::path(post, path = "/v1/reload", responses((status = 200, body = Outcome), (status = 422, body = Problem)))]
pub async fn reload(Extract(state): Extract<State>) -> Result<Json<Outcome>, Refusal> {
    state.reload.now().await.map(Json).map_err(|problems| Refusal::new(Code::Unprocessable, problems.to_string()))
}

/// What transcoding takes of its budget, and how far it has stepped down.
#[utoipa::path(get, path = "/v1/load", responses((status = 200, body = LoadView)))]
pub async fn load(Extract(state): Extract<State>) -> Json<LoadView> {
    Json(state.hub.load())
}

fn table(body: &[u8]) -> Result<RuleTable, Refusal> {
    let refuse = |why: String| Refusal::new(Code::BadRequest, why);
    let mut json = serde_json::Deserializer::from_slice(body);
    let list: RuleList = serde_path_to_error::deserialize(&mut json)
        .map_err(|e| refuse(format!("{}: {}; send {{\"rules\": [...]}} with rules as in the configuration", e.path(), e.inner())))?;
    json.end().map_err(|e| refuse(format!("after the rules: {e}")))?;
    match list.rules.len() {
        n if n > RULES_MAX => Err(refuse(format!("{n} rules, and {RULES_MAX} are possible"))),
        _ => Ok(RuleTable::new(list.rules)),
    }
}

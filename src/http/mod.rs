//! The one HTTP listener: API, metrics, health, pages, and the routes the gateways mount.

mod aliases;
mod api;
mod bodies;
mod metrics;
mod pages;
mod proxies;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::middleware;
use axum::response::Response;
use metrics_exporter_prometheus::PrometheusHandle;
use patchbay_contract::{Code, Refusal};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::auth::Gate;
use crate::config;
use crate::hub::Switchboard;
use crate::pulls::Pulls;
use crate::pushes::Pushes;
use crate::reload::Reload;

pub use api::Info;
use proxies::Proxies;
pub use serve::serve;

/// What the handlers need.
#[derive(Clone)]
pub struct State {
    pub hub: Arc<Switchboard>,
    pub pushes: Arc<Pushes>,
    pub pulls: Arc<Pulls>,
    pub reload: Arc<Reload>,
    pub info: Info,
    pub gate: Arc<Gate>,
    pub api_token: Option<Arc<str>>,
    pub draining: CancellationToken,
    pub recorder: PrometheusHandle,
}

/// Puts the surface together.
pub fn router(state: State, config: &config::Http, gateways: impl IntoIterator<Item = Router>) -> Router {
    let api = match state.api_token {
        Some(_) => api::routes(&state).layer(cors(&config.cors_origins)),
        // Callers on this machine are trusted then, and a page of a stranger in a browser here must not be one.
        None => api::routes(&state),
    };
    let own = Router::new().merge(api).merge(metrics::routes()).merge(pages::routes()).with_state(state);
    let nothing = || async { Refusal::new(Code::StreamNotFound, "there is nothing at this address") };
    let all = gateways.into_iter().fold(own, Router::merge).fallback(nothing);
    // A layer of `all` would run behind its routing; aliases must be resolved before.
    let proxies = Proxies::new(&config.trusted_proxies);
    Router::new()
        .fallback_service(all)
        .layer(middleware::from_fn(bodies::wait))
        .layer(middleware::from_fn(aliases::apply))
        .layer(middleware::from_fn_with_state(proxies, proxies::apply))
        .layer(middleware::map_response(never_guessed))
}

/// Nothing that is answered here is of another type than it says.
async fn never_guessed(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `origins`: web origins other than our own whose pages may use the API with its token.
fn cors(origins: &[String]) -> CorsLayer {
    let allowed = match origins.iter().any(|o| o == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|o| o.parse().ok())),
    };
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    CorsLayer::new().allow_origin(allowed).allow_methods(methods).allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
}

//! The one HTTP listener: API, metrics, health, pages, and the routes the gateways mount.

mod api;
mod metrics;
mod pages;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::hub::Switchboard;
use crate::pushes::Pushes;

pub use api::{Info, openapi};

/// What the handlers need.
#[derive(Clone)]
pub struct State {
    pub hub: Arc<Switchboard>,
    pub pushes: Arc<Pushes>,
    pub info: Info,
    pub api_token: Option<Arc<str>>,
    pub draining: CancellationToken,
}

/// Puts the surface together.
pub fn router(state: State, gateways: impl IntoIterator<Item = Router>) -> Router {
    let own = Router::new().merge(api::routes(&state)).merge(metrics::routes()).merge(pages::routes()).with_state(state);
    gateways.into_iter().fold(own, Router::merge)
}

/// Serves until `shutdown`; open requests are given a moment, then dropped.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let deadline = async {
        shutdown.cancelled().await;
        // Media responses (HTTP-FLV) end with their sessions; whoever else lingers is cut.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    };
    tokio::select! {
        result = serving => result,
        () = deadline => Ok(()),
    }
}

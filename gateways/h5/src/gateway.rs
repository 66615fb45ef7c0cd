//! [`Gateway`]: what the hub sees. It has no listener of its own; its sessions come in by its routes.

use std::sync::Arc;
use std::time::Duration;

use patchbay_contract::{Code, GatewayFuture, Hub, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::fanout::Muxes;
use crate::http;

/// How long sessions may take to say goodbye once asked to.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) muxes: Arc<Muxes>,
    /// Asks every session to end.
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    sessions: Arc<Semaphore>,
}

impl Shared {
    /// A place for one more session, for as long as it is held.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if self.shutdown.is_cancelled() {
            return Err(Refusal::new(Code::Draining, "the server is about to stop"));
        }
        let limit = self.config.sessions_max;
        self.sessions.clone().try_acquire_owned().map_err(|_| Refusal::new(Code::TooMany, format!("h5.sessions_max ({limit}) is reached")))
    }
}

/// The H5 gateway.
pub struct Gateway {
    shared: Arc<Shared>,
}

impl Gateway {
    /// Ready to have its routes mounted.
    pub fn new(config: Config, hub: Arc<dyn Hub>) -> Arc<Self> {
        let muxes = Arc::new(Muxes::new(config.coalesce()));
        let sessions = Arc::new(Semaphore::new(config.sessions_max as usize));
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        Arc::new(Self { shared: Arc::new(Shared { config, hub, muxes, shutdown, tasks, sessions }) })
    }
}

impl patchbay_contract::Gateway for Gateway {
    fn name(&self) -> &'static str {
        "h5"
    }

    fn routes(self: Arc<Self>) -> axum::Router {
        http::routes(self.shared.clone())
    }

    fn run(self: Arc<Self>, shutdown: CancellationToken) -> GatewayFuture {
        let shared = self.shared.clone();
        Box::pin(async move {
            shutdown.cancelled().await;
            shared.shutdown.cancel();
            shared.tasks.close();
            // Whoever is not gone by then holds nothing but a socket.
            _ = timeout(GOODBYE_MAX, shared.tasks.wait()).await;
            Ok(())
        })
    }
}

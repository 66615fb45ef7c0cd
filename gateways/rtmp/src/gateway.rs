//! [`Gateway`]: binds the ports, accepts connections within bounds, and is what the hub sees.
//!
//! Owns every connection task: `run` returns when they are gone. Refuses: what happens on a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use patchbay_bus::StreamName;
use patchbay_contract::{GatewayFuture, HalfOpen, Hub, Refusal};
use patchbay_inbound::{Accepted, BindError, Ports};
use patchbay_rules::EndpointKind;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fanout::Muxes;
use crate::{connection, http_flv, naming};

/// How long connections may take to say goodbye once asked to.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) muxes: Arc<Muxes>,
    pub(crate) half_open: Arc<HalfOpen>,
}

impl Shared {
    /// What a peer is: what it says itself in one of `queries`, else what the route of the name says.
    pub(crate) fn kind_of(&self, stream: &StreamName, queries: &[&str]) -> Result<EndpointKind, Refusal> {
        Ok(naming::kind(queries)?.unwrap_or_else(|| self.hub.kind_of(stream, EndpointKind::Rtmp)))
    }
}

/// The RTMP and HTTP-FLV gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    /// Taken by `run`.
    ports: Mutex<Option<Ports>>,
}

impl Gateway {
    /// Binds the ports. Connections are served once [`patchbay_contract::Gateway::run`] is polled.
    ///
    /// # Errors
    /// When one cannot be had, or there is no certificate.
    pub async fn bind(config: Config, hub: Arc<dyn Hub>) -> Result<Arc<Self>, BindError> {
        let ports = Ports::bind(config.ports()).await?;
        let (address, tls_address) = (ports.address().unwrap_or(config.listen), ports.tls_address());
        let muxes = Arc::new(Muxes::new(config.coalesce()));
        let half_open = HalfOpen::new(config.half_open_max as usize);
        let shared = Arc::new(Shared { config, hub, muxes, half_open });
        Ok(Arc::new(Self { shared, address, tls_address, ports: Mutex::new(Some(ports)) }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for TLS, if it does.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_address
    }
}

impl patchbay_contract::Gateway for Gateway {
    fn name(&self) -> &'static str {
        "rtmp"
    }

    fn routes(self: Arc<Self>) -> axum::Router {
        http_flv::routes(self.shared.clone())
    }

    fn run(self: Arc<Self>, shutdown: CancellationToken) -> GatewayFuture {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = self.shared.clone();
        Box::pin(async move {
            let ports = ports.ok_or_else(|| io::Error::other("the rtmp gateway runs already"))?;
            ports.follow(shutdown.clone());
            accept(&ports, &shared, shutdown).await;
            Ok(())
        })
    }
}

async fn accept(ports: &Ports, shared: &Arc<Shared>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = ports.accept() => admit(accepted, shared, &mut connections, &shutdown),
        }
    }
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if timeout(GOODBYE_MAX, all_gone).await.is_err() {
        connections.shutdown().await;
    }
}

fn admit((stream, peer, tls): Accepted, shared: &Arc<Shared>, connections: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let open = connections.len();
    if open >= shared.config.connections_max as usize {
        // Closed without a word: answering would cost what the limit saves.
        tracing::warn!(%peer, open, "connection refused: rtmp.connections_max is reached");
        metrics::counter!("patchbay_rtmp_connections_refused_total").increment(1);
        return;
    }
    let address = match shared.hub.connect(peer) {
        Ok(address) => address,
        Err(refusal) => {
            tracing::debug!(%peer, %refusal, "connection refused");
            metrics::counter!("patchbay_rtmp_connections_refused_total").increment(1);
            return;
        }
    };
    let place = shared.half_open.enter(Some(peer.ip()), address);
    connections.spawn(connection::serve(shared.clone(), stream, tls, peer, place, shutdown.clone()));
}

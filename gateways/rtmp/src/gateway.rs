//! [`Gateway`]: binds the port, accepts connections within bounds, and is what the hub sees.
//!
//! Owns every connection task: `run` returns when they are gone. Refuses: what happens on a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use patchbay_bus::StreamName;
use patchbay_contract::{GatewayFuture, Hub, Refusal};
use patchbay_rules::EndpointKind;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fanout::Muxes;
use crate::{connection, http_flv, naming, socket};

/// How long connections may take to say goodbye once asked to.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// How long to wait when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) muxes: Arc<Muxes>,
    /// Connections that neither publish nor play yet.
    pub(crate) half_open: Arc<Semaphore>,
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
    /// Taken by `run`.
    listener: Mutex<Option<TcpListener>>,
}

impl Gateway {
    /// Binds the port. Connections are served once [`patchbay_contract::Gateway::run`] is polled.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn bind(config: Config, hub: Arc<dyn Hub>) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let muxes = Arc::new(Muxes::new(config.coalesce()));
        let half_open = Arc::new(Semaphore::new(config.half_open_max as usize));
        let shared = Arc::new(Shared { config, hub, muxes, half_open });
        Ok(Arc::new(Self { shared, address, listener: Mutex::new(Some(listener)) }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
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
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = self.shared.clone();
        Box::pin(async move {
            let listener = listener.ok_or_else(|| io::Error::other("the rtmp gateway runs already"))?;
            accept(&listener, &shared, shutdown).await;
            Ok(())
        })
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>, shutdown: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(stream, peer, shared, &mut connections, &shutdown),
                Err(error) => {
                    // Of one connection, or out of descriptors: neither is a reason to stop listening.
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if timeout(GOODBYE_MAX, all_gone).await.is_err() {
        connections.shutdown().await;
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>, connections: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let open = connections.len();
    let limit = shared.config.connections_max as usize;
    let permit = shared.half_open.clone().try_acquire_owned();
    let (Ok(permit), true) = (permit, open < limit) else {
        // Closed without a word: answering would cost what the limit saves.
        tracing::warn!(%peer, open, "connection refused: rtmp.connections_max or rtmp.half_open_max is reached");
        metrics::counter!("patchbay_rtmp_connections_refused_total").increment(1);
        return;
    };
    socket::prepare(&stream);
    connections.spawn(connection::serve(shared.clone(), stream, peer, permit, shutdown.clone()));
}

//! [`Gateway`]: binds the ports, accepts connections within bounds, and is what the hub sees.
//!
//! Owns every connection task: `run` returns when they are gone. Refuses: what happens on a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use patchbay_bus::StreamName;
use patchbay_contract::{GatewayFuture, HalfOpen, Hub, Refusal};
use patchbay_rules::EndpointKind;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fanout::Muxes;
use crate::tls::Certificate;
use crate::{connection, http_flv, naming};

/// Connections that may wait for their accept; the kernel caps it at its own limit. A peer beyond has to try again a second
/// later, and the 128 or so of a plain bind are there within milliseconds when many come at once.
const BACKLOG: i32 = 4_096;
/// How long connections may take to say goodbye once asked to.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// How long to wait when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A port cannot be had.
    #[error("{key}: cannot listen on {address}: {source}; is another program using the port?")]
    Port {
        /// Configuration key of the port.
        key: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate for the port of RTMPS.
    #[error("rtmp.tls_cert_file, rtmp.tls_key_file: {0}")]
    Certificate(io::Error),
}

/// The ports.
struct Ports {
    plain: TcpListener,
    tls: Option<(TcpListener, Arc<Certificate>)>,
}

/// A connection that was accepted, and what to do TLS with.
type Accepted = (TcpStream, SocketAddr, Option<Arc<ServerConfig>>);

impl Ports {
    async fn bind(config: &Config) -> Result<Self, BindError> {
        let tls = match (config.tls_listen, &config.tls_cert_file, &config.tls_key_file) {
            (None, ..) => None,
            (Some(address), Some(chain), Some(key)) => {
                let certificate = Certificate::load(chain.clone(), key.clone()).await.map_err(BindError::Certificate)?;
                Some((listen("rtmp.tls_listen", address).await?, certificate))
            }
            (Some(_), ..) => return Err(BindError::Certificate(io::Error::other("rtmp.tls_listen needs both"))),
        };
        Ok(Self { plain: listen("rtmp.listen", config.listen).await?, tls })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        let secure = async {
            match &self.tls {
                Some((listener, certificate)) => {
                    let (stream, peer) = listener.accept().await?;
                    Ok((stream, peer, Some(certificate.current())))
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            plain = self.plain.accept() => plain.map(|(stream, peer)| (stream, peer, None)),
            secure = secure => secure,
        }
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let failed = |source| BindError::Port { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    // Linux takes a second listen() as a change of the length.
    SockRef::from(&listener).listen(BACKLOG).map_err(failed)?;
    Ok(listener)
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
        let ports = Ports::bind(&config).await?;
        let address = ports.plain.local_addr().unwrap_or(config.listen);
        let tls_address = ports.tls.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
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
            if let Some((_, certificate)) = &ports.tls {
                let (certificate, shutdown) = (certificate.clone(), shutdown.clone());
                tokio::spawn(async move { shutdown.run_until_cancelled(certificate.follow()).await });
            }
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
            accepted = ports.accept() => match accepted {
                Ok(accepted) => admit(accepted, shared, &mut connections, &shutdown),
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

//! [`Gateway`]: binds the port, starts the workers, and is what the hub sees.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use patchbay_contract::{GatewayFuture, Hub, Refusal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::directory::{Admission, Directory};
use crate::ice_servers::IceServer;
use crate::identity::{self, Identity};
use crate::session::Patience;
use crate::socket::Bound;
use crate::tcp::Listener;
use crate::worker::{self, Mailbox, Shared};
use crate::{interfaces, signalling};

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The UDP port is not to be had.
    #[error("cannot bind UDP {address} (webrtc.listen): {source}")]
    Port {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The TCP port is not to be had.
    #[error("cannot bind TCP {address} (webrtc.tcp_listen; webrtc.tcp = false does without): {source}")]
    TcpPort {
        /// What was tried.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The machine's addresses cannot be read.
    #[error("cannot list this machine's addresses; set webrtc.public_addresses: {0}")]
    Interfaces(std::io::Error),
    /// No address to announce.
    #[error("no address to announce for {0}; set webrtc.public_addresses")]
    NoAddress(SocketAddr),
    /// No certificate could be made.
    #[error("the crypto library cannot make an ECDSA P-256 certificate")]
    Certificate,
}

struct Idle {
    sockets: Vec<Bound>,
    listener: Option<Listener>,
    mailboxes: Vec<Mailbox>,
}

/// The WebRTC gateway.
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) shared: Arc<Shared>,
    address: SocketAddr,
    next_worker: AtomicUsize,
    /// Taken by `run`.
    idle: Mutex<Option<Idle>>,
}

impl Gateway {
    /// Binds the port. Sessions are served once [`patchbay_contract::Gateway::run`] is polled.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(mut config: Config, hub: Arc<dyn Hub>) -> Result<Arc<Self>, BindError> {
        let count = config.worker_count();
        let port_error = |source| BindError::Port { address: config.listen, source };
        let sockets = Bound::bind_all(config.listen, count).map_err(port_error)?;
        let address = sockets.first().map_or(Ok(config.listen), Bound::local_addr).map_err(port_error)?;
        let udp_candidates = candidates(&config, address)?;
        if config.stun {
            config.ice_servers.push(IceServer::stun(&udp_candidates));
        }
        let listener = config.tcp_address().map(listener).transpose()?;
        let tcp_candidates = match &listener {
            Some((_, address)) => candidates(&config, *address)?,
            None => Vec::new(),
        };
        let certificate = identity::certificate().ok_or(BindError::Certificate)?;
        let (mailboxes, arrivals, receivers) = worker::mailboxes(count);
        let shared = Arc::new(Shared {
            directory: Directory::new(config.half_open_max),
            mailboxes,
            arrivals,
            stun: config.stun,
            patience: Patience { connect: config.connect_timeout(), idle: config.idle_timeout() },
            remb_bps: u64::from(config.remb_max_kbps.max(100)) * 1_000,
        });
        Ok(Arc::new(Self {
            hub,
            identity: Arc::new(Identity { certificate, candidates: udp_candidates, tcp_candidates }),
            shared,
            address,
            next_worker: AtomicUsize::new(0),
            idle: Mutex::new(Some(Idle { sockets, listener: listener.map(|(listener, _)| listener), mailboxes: receivers })),
            config,
        }))
    }

    /// The UDP address it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Counts a new session in, or refuses it.
    pub(crate) fn admit(&self) -> Result<Admission, Refusal> {
        self.shared.directory.admit(self.config.sessions_max)
    }

    /// The worker of the next session.
    pub(crate) fn pick_worker(&self) -> usize {
        self.next_worker.fetch_add(1, Ordering::Relaxed) % self.shared.mailboxes.len().max(1)
    }
}

fn listener(address: SocketAddr) -> Result<(Listener, SocketAddr), BindError> {
    let listener = Listener::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    listener.map(|(bound, listener)| (listener, bound)).map_err(|source| BindError::TcpPort { address, source })
}

/// What to announce: what the configuration says, or the addresses `bound` covers. Loopback only when there is
/// nothing else: a browser would try it in vain.
fn candidates(config: &Config, bound: SocketAddr) -> Result<Vec<SocketAddr>, BindError> {
    let port = bound.port();
    let ips = if !config.public_addresses.is_empty() {
        config.public_addresses.clone()
    } else if !bound.ip().is_unspecified() {
        vec![bound.ip()]
    } else {
        let mut all = interfaces::addresses().map_err(BindError::Interfaces)?;
        all.retain(|ip| ip.is_ipv4() == bound.is_ipv4());
        if all.iter().any(|ip| !ip.is_loopback()) {
            all.retain(|ip| !ip.is_loopback());
        }
        all
    };
    if ips.is_empty() {
        return Err(BindError::NoAddress(bound));
    }
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

impl patchbay_contract::Gateway for Gateway {
    fn name(&self) -> &'static str {
        "webrtc"
    }

    fn routes(self: Arc<Self>) -> axum::Router {
        signalling::routes(self)
    }

    fn run(self: Arc<Self>, shutdown: CancellationToken) -> GatewayFuture {
        Box::pin(async move {
            let idle = self.idle.lock().unwrap_or_else(|p| p.into_inner()).take();
            let Some(idle) = idle else { return Err(std::io::Error::other("the WebRTC gateway runs already")) };
            let mut ends = Vec::new();
            for (index, (socket, mailbox)) in idle.sockets.into_iter().zip(idle.mailboxes).enumerate() {
                let (shared, shutdown) = (self.shared.clone(), shutdown.clone());
                let (done, end) = tokio::sync::oneshot::channel();
                std::thread::Builder::new().name(format!("webrtc-{index}")).spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
                    let result = runtime.and_then(|rt| rt.block_on(worker::run(index, shared, socket, mailbox, shutdown)));
                    // Nobody waits any more if the gateway's future was dropped.
                    let _ = done.send(result);
                })?;
                ends.push(end);
            }
            let workers = async {
                for end in ends {
                    end.await.unwrap_or_else(|_| Err(std::io::Error::other("a WebRTC worker panicked")))?;
                }
                Ok(())
            };
            let listening = async {
                match idle.listener {
                    Some(listener) => listener.run(self.shared.clone(), self.config.half_open_max, shutdown.clone()).await,
                    None => Ok(()),
                }
            };
            tokio::try_join!(workers, listening).map(|((), ())| ())
        })
    }
}

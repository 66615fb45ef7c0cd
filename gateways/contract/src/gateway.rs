//! [`Gateway`]: what the hub asks of a protocol.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// Transport of a claimed port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// As users know it: `tcp` or `udp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port a gateway wants; compared with all others before anything binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who wants it (configuration key).
    pub owner: &'static str,
    /// TCP or UDP.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
}

impl Claim {
    /// Whether both cannot be had: same transport and port, and the same or a wildcard address.
    pub fn conflicts(&self, other: &Self) -> bool {
        let (a, b) = (self.address, other.address);
        let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        self.transport == other.transport && a.port() != 0 && a.port() == b.port() && overlap
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?} {})", self.owner, self.transport, self.address)
    }
}

/// The run of a gateway; ends after the token was cancelled and its sessions are gone.
pub type GatewayFuture = Pin<Box<dyn Future<Output = Result<(), std::io::Error>> + Send>>;

/// One protocol.
pub trait Gateway: Send + Sync + 'static {
    /// Name in logs and documents.
    fn name(&self) -> &'static str;

    /// HTTP routes to mount on the shared listener.
    fn routes(self: Arc<Self>) -> axum::Router;

    /// Serves its own listeners until `shutdown` is cancelled, then drains.
    fn run(self: Arc<Self>, shutdown: CancellationToken) -> GatewayFuture;
}

//! [`Config`]: the `[webrtc]` section.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::ice_servers::IceServer;

/// WebRTC publishing (WHIP) and playing (WHEP).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The one UDP address of all media.
    pub listen: SocketAddr,
    /// Also take media over TCP (ICE-TCP, RFC 6544), from clients whose UDP does not get through.
    pub tcp: bool,
    /// The TCP address of that media; the same as `listen` when left out. Port 443 gets through most firewalls.
    #[schemars(extend("format" = "socket-address"), example = "0.0.0.0:4443")]
    pub tcp_listen: Option<SocketAddr>,
    /// IP addresses announced to peers as host candidates. Empty: the addresses of this machine that `listen` covers.
    /// Behind one-to-one NAT, give the public address here.
    pub public_addresses: Vec<IpAddr>,
    /// Media threads; 0 means one per core.
    pub workers: usize,
    /// Most sessions at a time; further requests are refused with 503.
    pub sessions_max: usize,
    /// Most sessions that have been answered but have not connected yet; one more costs the oldest of the address that has
    /// the most of them its place. As many TCP connections may be without a valid ICE check.
    pub half_open_max: usize,
    /// Seconds a session may take from its answer to a finished DTLS handshake.
    pub connect_timeout_s: u64,
    /// Seconds without a valid ICE check after which a peer is gone (browsers check every 2.5 to 5 seconds).
    pub idle_timeout_s: u64,
    /// `true`: H.264 is passed to a viewer only in a profile its offer names. `false`: Baseline, Main and High are
    /// passed to every viewer that offers H.264 at all, because every browser's decoder takes them.
    pub h264_strict_profile: bool,
    /// Highest bit rate asked of publishers without transport-wide congestion control, kbit/s.
    pub remb_max_kbps: u32,
    /// The media port answers STUN requests of anybody (RFC 8489), and clients are told of it as one of `ice_servers`.
    pub stun: bool,
    /// STUN and TURN servers that clients are told of.
    pub ice_servers: Vec<IceServer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8_000),
            tcp: true,
            tcp_listen: None,
            public_addresses: Vec::new(),
            workers: 0,
            sessions_max: 4_096,
            half_open_max: 512,
            connect_timeout_s: 15,
            idle_timeout_s: 20,
            h264_strict_profile: false,
            remb_max_kbps: 6_000,
            stun: false,
            ice_servers: Vec::new(),
        }
    }
}

impl Config {
    /// Where TCP is listened on, if it is.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.then(|| self.tcp_listen.unwrap_or(self.listen))
    }

    /// Media threads to start.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(64),
            n => n.min(64),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_s.clamp(1, 300))
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s.clamp(5, 300))
    }
}

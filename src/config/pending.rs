//! Stand-ins for the configuration of gateways until their crates bring it.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// RTMP publishing, playing and pushing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rtmp {
    /// TCP address to listen on.
    pub listen: SocketAddr,
    /// Chunk size announced to peers, bytes.
    #[schemars(range(min = 128, max = 1_000_000))]
    pub chunk_size: u32,
    /// Connections open at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_max: u32,
    /// How long a publisher may stay silent, seconds.
    #[schemars(range(min = 1, max = 600))]
    pub publish_timeout_s: u32,
}

impl Default for Rtmp {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::UNSPECIFIED, 1935).into(), chunk_size: 60_000, connections_max: 2_000, publish_timeout_s: 10 }
    }
}

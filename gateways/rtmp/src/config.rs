//! [`Config`]: the `[rtmp]` section.
//!
//! Owns the keys and their bounds. Refuses: to know what is done with them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use patchbay_inbound::{Listen, Tls};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::proto::url::RtmpUrl;

/// RTMP publishing, playing and pushing; HTTP-FLV and WebSocket-FLV.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP address of the RTMP server.
    #[schemars(extend("format" = "socket-address"))]
    pub listen: SocketAddr,
    /// TCP address for RTMP over TLS (rtmps), such as `0.0.0.0:1936`; without one there is none. Needs `tls_cert_file` and
    /// `tls_key_file`.
    #[schemars(extend("format" = "socket-address"), example = "0.0.0.0:1936")]
    pub tls_listen: Option<SocketAddr>,
    /// Certificate of the server and those between it and a root, PEM. Read again when it changes, as is the key.
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of that certificate, PEM.
    pub tls_key_file: Option<PathBuf>,
    /// Chunk size announced to peers, bytes. Below 4096 every picture costs many headers.
    #[schemars(range(min = 128, max = 1_000_000))]
    pub chunk_size: u32,
    /// Most RTMP connections at a time; further ones are closed at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_max: u32,
    /// Most RTMP connections that neither publish nor play yet; one more closes the oldest of them.
    #[schemars(range(min = 1, max = 100_000))]
    pub half_open_max: u32,
    /// How long a connection may take from its accept to an accepted publish or play, seconds.
    #[schemars(range(min = 1, max = 300))]
    pub handshake_timeout_s: u32,
    /// How long a publisher may stay silent, seconds.
    #[schemars(range(min = 1, max = 600))]
    pub idle_timeout_s: u32,
    /// How long sound may wait to leave in one write with what follows, milliseconds. A picture leaves at once.
    #[schemars(range(min = 0, max = 500))]
    pub coalesce_ms: u32,
    /// A viewer that is further behind than this goes on with the newest group of pictures, milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub lag_max_ms: u32,
    /// A viewer that takes no byte for this long is disconnected, seconds.
    #[schemars(range(min = 1, max = 600))]
    pub slow_cut_s: u32,
    /// Where publishers and players are sent when the process is about to stop, `rtmp://HOST[:PORT]` or the same with
    /// `rtmps://`; their application and stream stay the same. Asked are those who announce that they obey (enhanced RTMP,
    /// `capsEx` 1); without this key they are asked to connect to the address they know.
    #[schemars(example = "rtmp://other.example.org")]
    pub reconnect_url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 1935).into(),
            tls_listen: None,
            tls_cert_file: None,
            tls_key_file: None,
            chunk_size: 60_000,
            connections_max: 8_192,
            half_open_max: 512,
            handshake_timeout_s: 5,
            idle_timeout_s: 15,
            coalesce_ms: 20,
            lag_max_ms: 3_000,
            slow_cut_s: 10,
            reconnect_url: None,
        }
    }
}

impl Config {
    /// Its ports.
    pub fn ports(&self) -> Listen<'_> {
        let tls = |address| Tls { address, chain: self.tls_cert_file.as_deref(), key: self.tls_key_file.as_deref(), protocols: &[] };
        Listen { section: "rtmp", plain: self.listen, tls: self.tls_listen.map(tls) }
    }

    /// What is wrong with `reconnect_url`.
    pub fn bad_reconnect_url(&self) -> Option<String> {
        let text = self.reconnect_url.as_deref()?;
        let server = text.split_once("://").map(|(_, server)| server).filter(|server| !server.contains(['/', '?', '#']));
        let expected = "expected rtmp://HOST[:PORT] or rtmps://HOST[:PORT]";
        if server.is_none() {
            return Some(format!("{expected} and nothing behind it"));
        }
        RtmpUrl::parse(&format!("{text}/app/stream")).err().map(|why| format!("{expected}: {why}"))
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(self.handshake_timeout_s.into())
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s.into())
    }

    pub(crate) fn coalesce(&self) -> Duration {
        Duration::from_millis(self.coalesce_ms.into())
    }

    pub(crate) fn lag_max(&self) -> Duration {
        Duration::from_millis(self.lag_max_ms.into())
    }

    pub(crate) fn slow_cut(&self) -> Duration {
        Duration::from_secs(self.slow_cut_s.into())
    }
}

//! The sections of the configuration that belong to `patchbay` itself. Doc comments are what
//! `docs/configuration.md` says of each key.
//!
//! Refuses: the keys of gateways, which own theirs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use patchbay_inbound::{Listen, Tls};
use patchbay_media::Codec;
use patchbay_rules::{Abilities, CodecSet, Step};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{Network, Secret};

/// The HTTP listener: WHIP, WHEP, HTTP-FLV, WebSocket-FLV, API, metrics and pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Http {
    /// TCP address to listen on. `127.0.0.1:8080` keeps other machines out.
    pub listen: SocketAddr,
    /// TCP address for the same over TLS (https, wss), such as `0.0.0.0:8443`; without one there is none. Needs `tls_cert_file`
    /// and `tls_key_file`.
    #[schemars(extend("format" = "socket-address"), example = "0.0.0.0:8443")]
    pub tls_listen: Option<SocketAddr>,
    /// Certificate of the server and those between it and a root, PEM. Read again when it changes, as is the key.
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of that certificate, PEM.
    pub tls_key_file: Option<PathBuf>,
    /// Web origins whose pages may use the API from a browser when `api.token` is set, such as
    /// `https://app.example.org`. `*` allows every origin; an empty list allows none but the pages served here. Without a
    /// token no other origin may. WHIP, WHEP and FLV may be used from every origin; routes have keys.
    #[schemars(length(max = 64))]
    pub cors_origins: Vec<String>,
    /// Reverse proxies whose `X-Forwarded-For` is believed, by address or network such as `10.0.0.0/8`. A proxy must send it:
    /// without it everybody behind the proxy counts as the proxy, and behind one on this machine as a caller on this machine.
    #[schemars(length(max = 64))]
    pub trusted_proxies: Vec<Network>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            tls_listen: None,
            tls_cert_file: None,
            tls_key_file: None,
            cors_origins: vec!["*".into()],
            trusted_proxies: vec![Network::from(Ipv4Addr::LOCALHOST), Network::from(Ipv6Addr::LOCALHOST)],
        }
    }
}

impl Http {
    /// Its ports.
    pub fn ports(&self) -> Listen<'_> {
        let (chain, key) = (self.tls_cert_file.as_deref(), self.tls_key_file.as_deref());
        let tls = self.tls_listen.map(|address| Tls { address, chain, key, protocols: &[b"http/1.1"] });
        Listen { section: "http", plain: self.listen, tls }
    }
}

/// The HTTP API under `/v1`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Api {
    /// Bearer token every API call must carry. Without one the API answers only callers on its own machine (and in the
    /// demo whoever reaches it), and holders of a JSON Web Token with the right to it.
    pub token: Option<Secret>,
}

/// Decoding and encoding. What is encoded, and at which bit rate, is said by `[[rules]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Transcode {
    /// Threads for codec work; 0 takes one per CPU core.
    #[schemars(range(max = 256))]
    pub threads: u16,
    /// Transcodes that may run at once; a sink that needs one more goes without that track until one
    /// is free, and the ledger says so.
    #[schemars(range(max = 10_000))]
    pub jobs_max: u32,
    /// How long a transcode keeps running after its last reader left, milliseconds.
    #[schemars(range(max = 600_000))]
    pub linger_ms: u32,
    /// CPU cores that transcoding may take together, such as `1.5`; 0 takes four fifths of the machine's. What passes
    /// through takes none of it and is never degraded. A transcode that does not fit makes all of them step down
    /// `ladder`; where that is not enough it is refused, and the ledger says so.
    #[schemars(range(min = 0, max = 1_024))]
    pub cpu_budget: f64,
    /// How video transcodes step down, in this order, while the budget is spent: `fps` halves the frame rate, `size`
    /// both sides (not for a jsmpeg viewer that has begun: it cannot follow), `audio_only` leaves the pictures out (only when what runs takes more than the budget). They step up
    /// again by themselves. An empty list refuses at once.
    #[schemars(length(max = 8))]
    pub ladder: Vec<Step>,
    /// How far codec threads stand back for everything else (nice value), so that an encoder does not delay what
    /// passes through.
    #[schemars(range(max = 19))]
    pub nice: u8,
    /// Codecs that are never encoded, whatever this build could do: a pair that would need one goes without that track,
    /// and the ledger says so.
    #[schemars(schema_with = "codecs")]
    pub disable_encoders: Vec<Codec>,
    /// Codecs that are never decoded. Passing them through is no decoding.
    #[schemars(schema_with = "codecs")]
    pub disable_decoders: Vec<Codec>,
}

fn codecs(_: &mut SchemaGenerator) -> Schema {
    let names = Codec::ALL.map(Codec::name);
    json_schema!({ "type": "array", "items": { "type": "string", "enum": names } })
}

impl Default for Transcode {
    fn default() -> Self {
        Self {
            threads: 0,
            jobs_max: 500,
            linger_ms: 700,
            cpu_budget: 0.0,
            ladder: vec![Step::Fps, Step::Size, Step::AudioOnly],
            nice: 5,
            disable_encoders: Vec::new(),
            disable_decoders: Vec::new(),
        }
    }
}

impl Transcode {
    /// Cores that transcoding may take.
    pub fn cores(&self) -> f64 {
        let machine = std::thread::available_parallelism().map_or(1, |n| n.get());
        if self.cpu_budget > 0.0 { self.cpu_budget } else { machine as f64 * 0.8 }
    }

    /// What this build can transcode, less what is disabled.
    pub fn abilities(&self) -> Abilities {
        let (decode, encode) = patchbay_transcode::abilities();
        let (decode, encode): (CodecSet, CodecSet) = (decode.into_iter().collect(), encode.into_iter().collect());
        Abilities {
            decode: decode.without(self.disable_decoders.iter().copied()),
            encode: encode.without(self.disable_encoders.iter().copied()),
        }
    }
}

/// Bounds on the whole process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Streams that may be live at once; a publisher beyond is refused with `too_many`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub streams_max: u32,
    /// Publishers and viewers of all protocols together; one beyond is refused with `too_many`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sessions_max: u32,
    /// Publishers and viewers of one address together (of one /64 network for IPv6); one beyond is refused with
    /// `address_limit`. 0 is no limit. Callers on this machine are not counted.
    #[schemars(range(max = 1_000_000))]
    pub per_address_sessions_max: u32,
    /// RTMP connections of one address that neither publish nor play yet; one beyond is closed. 0 is no limit.
    #[schemars(range(max = 1_000_000))]
    pub per_address_half_open_max: u32,
    /// New sessions of one address per second, also those that are refused; five seconds' worth may come at once. 0 is no
    /// limit.
    #[schemars(range(max = 1_000_000))]
    pub per_address_new_per_s: u32,
    /// How long viewers are kept when a publisher vanishes without goodbye, so that it may come back, seconds.
    #[schemars(range(max = 600))]
    pub publisher_grace_s: u32,
    /// How long a stop waits for sessions to end before it breaks them off, seconds.
    #[schemars(range(max = 600))]
    pub drain_s: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams_max: 2_000,
            sessions_max: 10_000,
            per_address_sessions_max: 256,
            per_address_half_open_max: 32,
            per_address_new_per_s: 20,
            publisher_grace_s: 15,
            drain_s: 5,
        }
    }
}

/// Log lines, on standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Log {
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or directives for parts of the program such as
    /// `info,patchbay_rtmp=debug`.
    #[schemars(length(min = 1, max = 1_000))]
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

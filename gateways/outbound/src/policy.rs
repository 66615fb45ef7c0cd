//! [`Policy`]: which hosts may be dialled. What a name resolves to is checked, every address of it, and the connection
//! is made to an address that was checked: a name that changes its mind in between gains nothing.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::address;

/// How long a name may take to resolve.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// How long all addresses of a host together may take to be dialled.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// How long one address may take while there is another to try.
const ADDRESS_MAX: Duration = Duration::from_secs(2);
/// How often a host that is down is tried, at the longest; half of it at the shortest.
const KNOCK_EVERY: Duration = Duration::from_secs(1);
/// Addresses of one name that are looked at; a name with more is refused.
const ADDRESSES_MAX: usize = 32;

/// Connections that patchbay opens at others' request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Addresses (`10.1.2.3`), networks (`10.0.0.0/8`) and host names that may be dialled although they do not belong to
    /// the public Internet. Without an entry, a URL that came by API may not lead to a loopback, private, link-local or
    /// otherwise special address. URLs in this file are the operator's word and are not asked.
    #[schemars(length(max = 256))]
    pub allow: Vec<Exception>,
}

/// An entry of `outbound.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exception {
    /// These addresses.
    Net(IpNet),
    /// Whatever this name resolves to; lower case.
    Host(String),
}

/// Why an entry is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, a network such as 10.0.0.0/8, or a host name")]
pub struct BadException;

impl FromStr for Exception {
    type Err = BadException;

    fn from_str(text: &str) -> Result<Self, BadException> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Net(ip.into()));
        }
        let name = text.len() <= 253 && text.split('.').all(|label| !label.is_empty() && label.len() <= 63);
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        // A last part of digits is a mistyped address, never a name.
        let digits = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        if name && plain && !digits { Ok(Self::Host(text.to_ascii_lowercase())) } else { Err(BadException) }
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => net.fmt(f),
            Self::Host(name) => name.fmt(f),
        }
    }
}

impl Serialize for Exception {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Exception {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Exception {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Exception".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// Why nobody was reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{host} does not resolve: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// It may not be dialled.
    #[error("{host} is at {address}, which is {what}; name it in outbound.allow to permit it")]
    Refused {
        /// The name.
        host: String,
        /// Its address.
        address: IpAddr,
        /// What is special about that.
        what: &'static str,
    },
    /// No address of it answered.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// The name.
        host: String,
        /// Why, of the address that was tried last.
        source: io::Error,
    },
}

/// Which hosts may be dialled.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `None`: all.
    allow: Option<Arc<[Exception]>>,
}

impl Policy {
    /// Every host: for addresses that the operator wrote.
    pub const ALL: Self = Self { allow: None };

    /// Hosts of the public Internet, and what the configuration permits: for addresses that came from elsewhere.
    pub fn checked(config: &Config) -> Self {
        Self { allow: Some(config.allow.clone().into()) }
    }

    /// The same for hosts that somebody else names: the operator's word speaks for the hosts that he wrote only.
    #[must_use]
    pub fn for_others(&self) -> Self {
        Self { allow: Some(self.allow.clone().unwrap_or_default()) }
    }

    fn refuses(&self, host: &str, address: IpAddr) -> Option<&'static str> {
        let allow = self.allow.as_ref()?;
        let what = address::special(address)?;
        let seen = address.to_canonical();
        let name = host.trim_end_matches('.');
        let permitted = allow.iter().any(|exception| match exception {
            Exception::Net(net) => net.contains(&seen) || net.contains(&address),
            Exception::Host(host) => host.eq_ignore_ascii_case(name),
        });
        (!permitted).then_some(what)
    }

    /// The addresses of a host, all of which may be dialled.
    ///
    /// # Errors
    /// When it has none, or one that may not.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        let failed = |source| DialError::Resolve { host: host.to_owned(), source };
        // The lookup itself runs on a thread for blocking work.
        let found = timeout(RESOLVE_MAX, lookup_host((host, port))).await;
        let found = found.map_err(|_| failed(io::ErrorKind::TimedOut.into()))?.map_err(failed)?;
        let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX + 1).collect();
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(failed(io::Error::other(format!("{} addresses, 1 to {ADDRESSES_MAX} expected", addresses.len()))));
        }
        match addresses.iter().find_map(|a| self.refuses(host, a.ip()).map(|what| (a.ip(), what))) {
            Some((address, what)) => Err(DialError::Refused { host: host.to_owned(), address, what }),
            None => Ok(addresses),
        }
    }

    /// A connection to a host, at one of the addresses that were checked.
    ///
    /// # Errors
    /// When it may not be dialled, or does not answer.
    pub async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let addresses = self.resolve(host, port).await?;
        let until = Instant::now() + DIAL_MAX;
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for (i, address) in addresses.iter().enumerate() {
            let only = i + 1 == addresses.len();
            let limit = if only { until } else { until.min(Instant::now() + ADDRESS_MAX) };
            match timeout_at(limit, dial(*address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(DialError::Connect { host: host.to_owned(), source: last })
    }

    /// A connection to a host that is down, as soon as one of its addresses takes it. While it is down it gets a packet
    /// or two a second. Ends only with a connection, or when the host may not be dialled at all.
    ///
    /// # Errors
    /// See [`Self::resolve`].
    pub async fn connect_when_up(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let addresses = self.resolve(host, port).await?;
        loop {
            // Spread, so that those who lost the same host do not come back to it at once.
            let next = Instant::now() + rand::random_range(KNOCK_EVERY / 2..=KNOCK_EVERY);
            let mut knocks = JoinSet::new();
            for address in &addresses {
                knocks.spawn(timeout(KNOCK_EVERY, dial(*address)));
            }
            while let Some(knock) = knocks.join_next().await {
                if let Ok(Ok(Ok(stream))) = knock {
                    return Ok(stream);
                }
            }
            sleep_until(next).await;
        }
    }
}

/// A connection to an address, and to somebody else: on this machine a port that is dialled again and again while nobody
/// listens may be met by its own dial.
async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    if stream.local_addr()? == address { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(stream) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        Policy::checked(&Config { allow: allow.iter().map(|text| text.parse().unwrap()).collect() })
    }

    #[test]
    fn exceptions_are_addresses_networks_and_names() {
        for good in ["10.0.0.0/8", "10.1.2.3", "fd00::/8", "::1", "cdn.internal", "cdn_1", "A-b.example"] {
            let parsed: Exception = good.parse().unwrap();
            assert_eq!(parsed.to_string().parse::<Exception>(), Ok(parsed), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0", "a b", "http://x", "a..b", "1", "[::1]"] {
            assert_eq!(bad.parse::<Exception>(), Err(BadException), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn every_spelling_of_this_machine_is_refused() {
        for host in ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            match policy(&[]).connect(host, 1935).await {
                Err(DialError::Refused { .. } | DialError::Resolve { .. }) => {}
                other => panic!("{host}: {other:?}"),
            }
        }
        let refused = policy(&[]).connect("127.1", 1935).await.unwrap_err().to_string();
        assert_eq!(refused, "127.1 is at 127.0.0.1, which is loopback; name it in outbound.allow to permit it");
    }

    #[tokio::test]
    async fn what_is_permitted_is_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        policy(&["127.0.0.0/8"]).connect("::ffff:127.0.0.1", port).await.unwrap();
        policy(&["127.0.0.1"]).connect("127.0.0.1", port).await.unwrap();
        policy(&["LOCALHOST"]).resolve("localhost", port).await.unwrap();
        Policy::ALL.connect("127.0.0.1", port).await.unwrap();
        assert!(policy(&["10.0.0.0/8", "elsewhere"]).connect("127.0.0.1", port).await.is_err());
    }

    #[tokio::test]
    async fn a_host_that_was_down_is_met_within_a_second() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let waiting = tokio::spawn(async move { Policy::ALL.connect_when_up("127.0.0.1", address.port()).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!waiting.is_finished());
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        timeout(Duration::from_secs(3), listener.accept()).await.expect("it knocks").unwrap();
        waiting.await.unwrap().unwrap();
        assert!(matches!(policy(&[]).connect_when_up("127.0.0.1", address.port()).await, Err(DialError::Refused { .. })));
    }

    #[tokio::test]
    async fn nobody_listening_is_told_apart() {
        let error = Policy::ALL.connect("127.0.0.1", 1).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { .. }), "{error}");
    }
}

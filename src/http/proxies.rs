//! [`Proxies`]: who really asks, when a reverse proxy asks for them.
//!
//! A page of a stranger in a browser on this machine is not of this machine either.
//!
//! Everything behind this sees that address: caps, logs, and what callers on this machine alone may do. Refuses: to believe
//! anybody but the proxies that are configured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::Response;
use url::{Host, Url};

use crate::config::Network;

/// Written by proxies, each adding whom it saw at the end.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What else tells that somebody stands behind a proxy, if not who.
const TRACES: [HeaderName; 3] = [header::FORWARDED, header::VIA, HeaderName::from_static("x-real-ip")];
/// Somebody else, and nobody knows who.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The proxies that are believed.
#[derive(Clone)]
pub struct Proxies(Arc<[Network]>);

impl Proxies {
    pub fn new(trusted: &[Network]) -> Self {
        Self(trusted.into())
    }

    fn trust(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }

    /// Who asks: `peer`, or, if that is a proxy, the last one named in front of it that is none.
    fn source(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if !self.trust(peer.ip()) {
            return peer;
        }
        let lines: Vec<&str> = headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
        if lines.is_empty() {
            return if TRACES.iter().any(|name| headers.contains_key(name)) { UNKNOWN } else { peer };
        }
        let mut nearest = UNKNOWN;
        for hop in lines.iter().flat_map(|line| line.split(',')).rev() {
            let Some(address) = address(hop.trim()) else { return UNKNOWN };
            nearest = address;
            if !self.trust(address.ip()) {
                break;
            }
        }
        nearest
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    let plain = text.trim_start_matches('[').trim_end_matches(']');
    text.parse().ok().or_else(|| plain.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 0)))
}

/// Whether a page may be asking that does not come from this machine. Browsers name its origin on every WebSocket and on every
/// request that changes something, and the host they were led to on all. A name is not believed, because a stranger's may
/// lead here (DNS rebinding); other clients may call this machine as they like.
fn is_page_from_elsewhere(headers: &HeaderMap) -> bool {
    let is_elsewhere = |url: Option<Url>| match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name != "localhost",
        Some(Host::Ipv4(ip)) => !ip.is_loopback(),
        Some(Host::Ipv6(ip)) => !ip.is_loopback(),
        None => true,
    };
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().ok().and_then(|text| Url::parse(text).ok()));
    let is_browser = headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
    let host = headers
        .get(header::HOST)
        .filter(|_| is_browser)
        .map(|host| host.to_str().ok().and_then(|text| Url::parse(&format!("http://{text}")).ok()));
    [origin, host].into_iter().flatten().any(is_elsewhere)
}

/// Puts the address in the place of the connection's.
pub async fn apply(State(proxies): State<Proxies>, mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() {
        let mut source = proxies.source(peer, request.headers());
        if source.ip().to_canonical().is_loopback() && is_page_from_elsewhere(request.headers()) {
            source = UNKNOWN;
        }
        request.extensions_mut().insert(ConnectInfo(source));
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        let proxies = Proxies::new(&["127.0.0.1", "::1", "10.0.0.0/8"].map(|n| n.parse().unwrap()));
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
        let source = proxies.source(SocketAddr::new(peer.parse().unwrap(), 9), &headers);
        assert_eq!(source.ip(), expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
    }

    #[test]
    fn only_proxies_are_believed_and_only_as_far_as_they_saw() {
        let xff = "x-forwarded-for";
        check("198.51.100.1", &[(xff, "127.0.0.1")], "198.51.100.1");
        check("127.0.0.1", &[], "127.0.0.1");
        check("127.0.0.1", &[(xff, "203.0.113.9")], "203.0.113.9");
        // What the client wrote itself stands before what the proxy added.
        check("127.0.0.1", &[(xff, "127.0.0.1, 203.0.113.9")], "203.0.113.9");
        check("127.0.0.1", &[(xff, "192.0.2.1, 203.0.113.9, 10.2.3.4")], "203.0.113.9");
        check("10.1.1.1", &[(xff, "203.0.113.9"), (xff, "10.9.9.9")], "203.0.113.9");
        check("::ffff:127.0.0.1", &[(xff, "[2001:db8::7]:443")], "2001:db8::7");
        check("::1", &[(xff, "2001:db8::7")], "2001:db8::7");
        check("127.0.0.1", &[(xff, "127.0.0.1")], "127.0.0.1");
    }

    #[test]
    fn a_page_is_of_this_machine_by_its_address_only() {
        let from = |origin: &str| is_page_from_elsewhere(&[(header::ORIGIN, origin.parse().unwrap())].into_iter().collect());
        assert!(!is_page_from_elsewhere(&HeaderMap::new()));
        for here in ["http://127.0.0.1:8080", "http://localhost", "https://[::1]:8443", "http://127.9.9.9"] {
            assert!(!from(here), "{here}");
        }
        for elsewhere in ["null", "", "https://example.org", "http://localhost.example.org", "http://192.0.2.1:8080", "file://"] {
            assert!(from(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_browser_that_a_strange_name_led_here_is_a_strangers() {
        let asks = |host: &str, agent: &str| {
            let headers = [(header::HOST, host.parse().unwrap()), (header::USER_AGENT, agent.parse().unwrap())];
            is_page_from_elsewhere(&headers.into_iter().collect())
        };
        let browser = "Mozilla/5.0 (X11; Linux x86_64)";
        assert!(asks("evil.example:8080", browser) && asks("192.0.2.1", browser));
        assert!(!asks("localhost:8080", browser) && !asks("127.0.0.1:8080", browser) && !asks("[::1]:8080", browser));
        assert!(!asks("myhost:8080", "OBS-Studio/30"));
    }

    #[test]
    fn who_cannot_be_told_is_nobody_of_this_machine() {
        for (name, value) in [
            ("x-forwarded-for", "unknown"),
            ("x-forwarded-for", ""),
            ("forwarded", "for=203.0.113.9"),
            ("via", "1.1 p"),
            ("x-real-ip", "x"),
        ] {
            check("127.0.0.1", &[(name, value)], "0.0.0.0");
        }
    }
}

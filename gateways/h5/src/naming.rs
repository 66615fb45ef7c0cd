//! From what a peer asked for to a stream name and a name of its software. Refuses: to judge them.

use axum::http::{HeaderMap, header};
use patchbay_bus::{BadName, StreamName};

/// Longest software name that is kept, bytes.
const AGENT_MAX: usize = 256;

/// The stream of a path; players like to see an ending.
pub(crate) fn stream_name(path: &str) -> Result<StreamName, BadName> {
    path.strip_suffix(".jsmpeg").or_else(|| path.strip_suffix(".ts")).unwrap_or(path).parse()
}

/// Whether `name=1` is in the query.
pub(crate) fn flag(query: &str, name: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == name && value == "1")
}

/// What the peer says it is, shortened.
pub(crate) fn agent(headers: &HeaderMap) -> Option<String> {
    let mut kept: String = text(headers, header::USER_AGENT)?.chars().filter(|c| !c.is_control()).collect();
    // Header text is ASCII: any place is a boundary.
    kept.truncate(AGENT_MAX);
    (!kept.is_empty()).then_some(kept)
}

/// The first sub-protocol that is asked for. A browser that asks for one refuses an answer without it, and
/// `new WebSocket(url, null)` asks for "null".
pub(crate) fn sub_protocol(headers: &HeaderMap) -> Option<String> {
    let first = text(headers, header::SEC_WEBSOCKET_PROTOCOL)?.split(',').next()?.trim();
    (!first.is_empty()).then(|| first.to_owned())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn endings_of_players_are_not_part_of_the_name() {
        for path in ["live/a", "live/a.jsmpeg", "live/a.ts", "/live/a/"] {
            assert_eq!(stream_name(path).unwrap().as_str(), "live/a");
        }
        assert!(stream_name("../a").is_err() && stream_name(".ts").is_err());
    }

    #[test]
    fn the_sub_protocol_of_a_browser_is_taken() {
        assert_eq!(sub_protocol(&headers(header::SEC_WEBSOCKET_PROTOCOL, "null")).as_deref(), Some("null"));
        assert_eq!(sub_protocol(&headers(header::SEC_WEBSOCKET_PROTOCOL, "a, b")).as_deref(), Some("a"));
        assert_eq!(sub_protocol(&headers(header::SEC_WEBSOCKET_PROTOCOL, "")), None);
    }

    #[test]
    fn the_software_name_is_cut() {
        assert_eq!(agent(&headers(header::USER_AGENT, &"x".repeat(500))).map(|a| a.len()), Some(256));
        assert_eq!(agent(&HeaderMap::new()), None);
    }
}

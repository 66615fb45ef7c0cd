//! RTMP URLs: `rtmp://host[:port]/app[/instance]/stream[?query]` and the `rtmps` form.
//!
//! Splits, and refuses what cannot be dialled; whether a host may be dialled is decided elsewhere.

use std::fmt;

/// Longest URL in bytes.
pub const MAX_LEN: usize = 4096;

/// Why a string is no RTMP URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than [`MAX_LEN`].
    #[error("longer than {MAX_LEN} bytes")]
    TooLong,
    /// Neither rtmp nor rtmps.
    #[error("scheme is neither rtmp nor rtmps")]
    Scheme,
    /// No host.
    #[error("no host")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("bad port")]
    Port,
    /// User name and password before the host.
    #[error("user name and password are not supported")]
    UserInfo,
    /// No application.
    #[error("no application")]
    App,
    /// No stream name.
    #[error("no stream name")]
    Stream,
    /// A query before the stream name.
    #[error("the query belongs behind the stream name")]
    Query,
    /// From rtmps to rtmp, where the stream key could be read.
    #[error("it would give up TLS")]
    Downgrade,
    /// A control character or a space.
    #[error("control character or space")]
    Control,
}

/// A parsed RTMP URL.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpUrl {
    /// True for rtmps.
    pub tls: bool,
    /// Host name or address, IPv6 without its brackets.
    pub host: String,
    /// Port; 1935, or 443 with TLS, when not given.
    pub port: u16,
    /// Every path segment but the last.
    pub app: String,
    /// Last path segment and the query: the stream key. A secret.
    pub stream: String,
    /// The URL without the stream, as the connect command tells it.
    pub tc_url: String,
}

impl fmt::Debug for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The stream key must not get into logs.
        write!(f, "{}/***", self.tc_url)
    }
}

impl RtmpUrl {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_LEN {
            return Err(UrlError::TooLong);
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(UrlError::Control);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(UrlError::Scheme),
        };
        let (authority, rest) = rest.split_once('/').ok_or(UrlError::App)?;
        let (host, port) = split_authority(authority)?;
        let port = port.unwrap_or(if tls { 443 } else { 1935 });
        // Keys may hold slashes in their query, so that is set aside first.
        let (path, query) = match rest.find('?') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (app, stream) = path.rsplit_once('/').ok_or(UrlError::Stream)?;
        let app = app.trim_matches('/');
        if app.is_empty() {
            return Err(UrlError::App);
        }
        if stream.is_empty() {
            return Err(UrlError::Stream);
        }
        let scheme = if tls { "rtmps" } else { "rtmp" };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            app: app.to_owned(),
            stream: format!("{stream}{query}"),
            tc_url: format!("{scheme}://{authority}/{app}"),
        })
    }
}

impl RtmpUrl {
    /// Takes server and application from `text`, and all of `stream` as the stream's name: unlike the end of a URL it may hold
    /// slashes, and all of it is secret.
    pub fn with_stream(text: &str, stream: &str) -> Result<Self, UrlError> {
        if text.contains('?') {
            return Err(UrlError::Query);
        }
        if text.len() + stream.len() >= MAX_LEN {
            return Err(UrlError::TooLong);
        }
        if stream.chars().any(|c| c.is_control() || c == ' ') {
            return Err(UrlError::Control);
        }
        let stream = stream.trim_start_matches('/');
        if stream.is_empty() {
            return Err(UrlError::Stream);
        }
        let server = Self::parse(&format!("{}/stream", text.trim_end_matches('/')))?;
        Ok(Self { stream: stream.to_owned(), ..server })
    }
}

impl RtmpUrl {
    /// The same stream where a server's request to connect again sends it: `tc_url` is absolute, or relative to the tcUrl of
    /// now (RFC 3986 section 5).
    pub fn moved(&self, tc_url: &str) -> Result<Self, UrlError> {
        if tc_url.len() > MAX_LEN {
            return Err(UrlError::TooLong);
        }
        let base = url::Url::parse(&self.tc_url).map_err(|_| UrlError::Host)?;
        let moved = base.join(tc_url).map_err(|_| UrlError::Host)?;
        let moved = Self::with_stream(moved.as_str(), &self.stream)?;
        if self.tls && !moved.tls { Err(UrlError::Downgrade) } else { Ok(moved) }
    }
}

fn split_authority(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or(UrlError::Host)?;
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(UrlError::Port),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if host.is_empty() || host.contains(['?', '#', '\\']) {
        return Err(UrlError::Host);
    }
    let port = match port {
        // `parse` alone would take a plus sign.
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok().filter(|port| *port != 0).ok_or(UrlError::Port)?),
        Some(_) => return Err(UrlError::Port),
        None => None,
    };
    Ok((host, port))
}

/// Splits at the first `?`; the second part is empty without one.
pub(super) fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_are_split() {
        for (text, tls, host, port, app, stream) in [
            ("rtmp://h/live/a", false, "h", 1935, "live", "a"),
            ("rtmp://h:99/live/a?k=1/2", false, "h", 99, "live", "a?k=1/2"),
            ("RTMPS://h/x/y/key", true, "h", 443, "x/y", "key"),
            ("rtmp://[::1]:1936/live//a", false, "::1", 1936, "live", "a"),
        ] {
            let url = RtmpUrl::parse(text).unwrap();
            let got = (url.tls, &*url.host, url.port, &*url.app, &*url.stream);
            assert_eq!(got, (tls, host, port, app, stream));
        }
        let url = RtmpUrl::parse("rtmp://h:99/live/a?k=1").unwrap();
        assert_eq!(url.tc_url, "rtmp://h:99/live");
        assert!(!format!("{url:?}").contains("k=1"), "the key shows in Debug");
    }

    #[test]
    fn a_stream_of_its_own_may_hold_slashes() {
        for (server, stream, name) in
            [("rtmp://h/live", "a/b?k=1/2", "a/b?k=1/2"), ("rtmp://h/live/", "/a", "a"), ("rtmp://h/live", "?k=1", "?k=1")]
        {
            let url = RtmpUrl::with_stream(server, stream).unwrap();
            assert_eq!((&*url.app, &*url.stream, &*url.tc_url), ("live", name, "rtmp://h/live"));
            assert_eq!(format!("{url:?}"), "rtmp://h/live/***");
        }
        for (server, stream, error) in [
            ("rtmp://h", "a/b", UrlError::Stream),
            ("rtmp://h/live", "/", UrlError::Stream),
            ("rtmp://h/live", "a b", UrlError::Control),
            ("rtmp://h/live?k=1", "a", UrlError::Query),
        ] {
            assert_eq!(RtmpUrl::with_stream(server, stream), Err(error), "{server} {stream}");
        }
        assert_eq!(RtmpUrl::with_stream("rtmp://h/live", &"a".repeat(5000)), Err(UrlError::TooLong));
    }

    #[test]
    fn a_stream_is_moved_to_absolute_and_relative_addresses() {
        for (from, to, tc_url, port) in [
            ("rtmp://h:99/live/a?k=1", "rtmp://b.example:1936/app", "rtmp://b.example:1936/app", 1936),
            ("rtmp://h:99/live/a?k=1", "rtmps://b/app/inst", "rtmps://b/app/inst", 443),
            ("rtmp://h:99/live/a?k=1", "//192.0.2.1/app", "rtmp://192.0.2.1/app", 1935),
            ("rtmps://[::1]:99/live/a?k=1", "/app", "rtmps://[::1]:99/app", 99),
            ("rtmp://h:99/live/x/a?k=1", "y", "rtmp://h:99/live/y", 99),
        ] {
            let moved = RtmpUrl::parse(from).unwrap().moved(to).unwrap();
            assert_eq!((&*moved.tc_url, moved.port, &*moved.stream), (tc_url, port, "a?k=1"), "{from} {to}");
        }
        let from = RtmpUrl::parse("rtmps://h/live/a").unwrap();
        for (to, error) in [
            ("rtmp://h/live", UrlError::Downgrade),
            ("http://h/live", UrlError::Scheme),
            ("rtmps://u:p@h/live", UrlError::UserInfo),
            ("rtmps://h/live?k=1", UrlError::Query),
            ("rtmps://h", UrlError::Stream),
            ("rtmps://h:0/live", UrlError::Port),
            ("rtmps:///live", UrlError::Host),
        ] {
            assert_eq!(from.moved(to), Err(error), "{to}");
        }
        assert_eq!(from.moved(&"a".repeat(5000)), Err(UrlError::TooLong));
    }

    #[test]
    fn bad_urls_are_named() {
        for (text, error) in [
            ("http://h/live/a", UrlError::Scheme),
            ("h/live/a", UrlError::Scheme),
            ("rtmp:///live/a", UrlError::Host),
            ("rtmp://[::1/live/a", UrlError::Host),
            ("rtmp://h:0/live/a", UrlError::Port),
            ("rtmp://h:+1/live/a", UrlError::Port),
            ("rtmp://h:65536/live/a", UrlError::Port),
            ("rtmp://u:p@h/live/a", UrlError::UserInfo),
            ("rtmp://h", UrlError::App),
            ("rtmp://h//a", UrlError::App),
            ("rtmp://h/live", UrlError::Stream),
            ("rtmp://h/live/", UrlError::Stream),
            ("rtmp://h/live/a\r\nb", UrlError::Control),
        ] {
            assert_eq!(RtmpUrl::parse(text), Err(error), "{text}");
        }
        assert_eq!(RtmpUrl::parse(&"a".repeat(5000)), Err(UrlError::TooLong));
    }
}

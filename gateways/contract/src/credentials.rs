//! [`Credentials`]: what a peer brought to show that it may. Refuses: to judge it.

use std::fmt;

use axum::http::{HeaderMap, Uri, header};
use url::form_urlencoded;

/// A key or token, and the query it came in. Neither is ever shown: `Debug` writes `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    token: Option<String>,
    query: String,
}

impl Credentials {
    /// Longest token that is looked at, bytes. A longer one counts as none.
    pub const TOKEN_MAX: usize = 8 << 10;
    /// Longest query that is kept, bytes: room for the longest token. A longer one is left out.
    pub const QUERY_MAX: usize = 9 << 10;
    /// The parameters of a query that carry a token.
    const PARAMETERS: [&str; 3] = ["key", "token", "jwt"];

    /// Those of an HTTP request: its `Authorization: Bearer` (RFC 6750 §2.1), else its query.
    pub fn of_http(uri: &Uri, headers: &HeaderMap) -> Self {
        let found = Self::of_queries(&[uri.query().unwrap_or_default()], None);
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?)).and_then(usable);
        Self { token: bearer.or(found.token), ..found }
    }

    /// The first in `queries`, else `otherwise`.
    pub fn of_queries(queries: &[&str], otherwise: Option<&str>) -> Self {
        let kept: Vec<&str> = queries.iter().copied().filter(|query| !query.is_empty() && query.len() <= Self::QUERY_MAX).collect();
        let pairs = kept.iter().flat_map(|query| form_urlencoded::parse(query.as_bytes()));
        let mut named = pairs.filter(|(name, _)| Self::PARAMETERS.contains(&&**name)).filter_map(|(_, value)| usable(&value));
        let token = named.next().or_else(|| otherwise.and_then(usable));
        Self { token, query: kept.first().map_or_else(String::new, |query| (*query).to_owned()) }
    }

    /// The key or token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The query as it was sent, without its `?`.
    pub fn query(&self) -> &str {
        &self.query
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.token.is_some() { "***" } else { "none" })
    }
}

fn usable(token: &str) -> Option<String> {
    (!token.is_empty() && token.len() <= Credentials::TOKEN_MAX).then(|| token.to_owned())
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(uri: &str, authorization: Option<&str>) -> Credentials {
        let headers = authorization.map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
        Credentials::of_http(&uri.parse().unwrap(), &headers.into_iter().collect())
    }

    #[test]
    fn tokens_are_found_where_people_put_them() {
        for (uri, authorization, token) in [
            ("/x?y=1&key=a%2Fb", None, Some("a/b")),
            ("/x?token=t", None, Some("t")),
            ("/x?jwt=t", None, Some("t")),
            ("/x?key=k", Some("bearer  b "), Some("b")),
            ("/x?key=", Some("Bearer b"), Some("b")),
            ("/x?key=k", Some("Bearer "), Some("k")),
            ("/x", Some("Basic b"), None),
            ("/x?keys=k", None, None),
        ] {
            assert_eq!(http(uri, authorization).token(), token, "{uri} {authorization:?}");
        }
        assert_eq!(Credentials::of_queries(&["", "token=t"], Some("p")).token(), Some("t"));
        assert_eq!(Credentials::of_queries(&["vhost=v", ""], Some("p")).token(), Some("p"));
        assert_eq!(Credentials::of_queries(&["vhost=v&token=t", "a=b"], None).query(), "vhost=v&token=t");
    }

    #[test]
    fn what_is_too_long_counts_as_none() {
        let fits = format!("token={}", "x".repeat(Credentials::TOKEN_MAX));
        assert!(Credentials::of_queries(&[&fits], None).token().is_some());
        let over = format!("token={}x", "x".repeat(Credentials::TOKEN_MAX));
        assert_eq!(Credentials::of_queries(&[&over], None).token(), None);
        assert_eq!(Credentials::of_queries(&[&"x".repeat(1 << 20)], Some("p")).query(), "");
    }

    #[test]
    fn nothing_is_shown() {
        assert!(!format!("{:?}", http("/x?token=s3cret", None)).contains("s3cret"));
    }
}

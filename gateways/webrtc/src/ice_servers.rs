//! [`IceServer`]: STUN and TURN servers that clients are told of (RFC 9725 §4.6).

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use patchbay_contract::{Secret, SessionId};
use schemars::JsonSchema;
use serde::Deserialize;

/// How long a TURN user name made from a shared secret is valid.
const CREDENTIAL_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// A server that WHIP and WHEP clients are told of in a `Link` header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URLs of the one server.
    pub urls: Vec<String>,
    /// User name for TURN.
    #[serde(default)]
    pub username: Option<String>,
    /// Password for TURN.
    #[serde(default)]
    pub credential: Option<Secret>,
    /// The secret shared with a TURN server that takes time-limited user names (`static-auth-secret` of coturn); in the
    /// place of `username` and `credential`.
    #[serde(default)]
    pub shared_secret: Option<Secret>,
}

impl IceServer {
    /// STUN at these addresses.
    pub(crate) fn stun(addresses: &[SocketAddr]) -> Self {
        let urls = addresses.iter().map(|address| format!("stun:{address}")).collect();
        Self { urls, username: None, credential: None, shared_secret: None }
    }

    /// Values of the `Link` headers for one session. A URL that does not fit in a header is left out.
    pub(crate) fn links(&self, session: SessionId) -> impl Iterator<Item = HeaderValue> {
        let login = self.login(session, SystemTime::now());
        self.urls.iter().filter_map(move |url| {
            let mut link = format!("<{}>; rel=\"ice-server\"", url.replace(['<', '>'], ""));
            if let Some((user, pass)) = login.as_ref().filter(|_| url.starts_with("turn")) {
                link += &format!("; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"", quoted(user), quoted(pass));
            }
            let mut value = HeaderValue::from_str(&link).ok()?;
            value.set_sensitive(login.is_some());
            Some(value)
        })
    }

    /// User name and password, from the shared secret if there is one (draft-uberti-behave-turn-rest).
    fn login(&self, session: SessionId, now: SystemTime) -> Option<(String, String)> {
        let Some(secret) = &self.shared_secret else {
            return Some((self.username.clone()?, self.credential.as_ref()?.reveal().to_owned()));
        };
        let until = now.duration_since(UNIX_EPOCH).unwrap_or_default() + CREDENTIAL_LIFE;
        let user = format!("{}:{session}", until.as_secs());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.reveal().as_bytes());
        let pass = STANDARD.encode(hmac::sign(&key, user.as_bytes()));
        Some((user, pass))
    }
}

/// For a quoted-string (RFC 9110 §5.6.4).
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(value: serde_json::Value) -> IceServer {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn stun_needs_no_login_and_turn_has_its_own() {
        let server =
            server(serde_json::json!({"urls": ["stun:h:3478", "turn:h?transport=udp"], "username": "u", "credential": "north\"west"}));
        let links: Vec<_> = server.links(1).collect();
        assert_eq!(links[0], "<stun:h:3478>; rel=\"ice-server\"");
        assert_eq!(
            links[1],
            "<turn:h?transport=udp>; rel=\"ice-server\"; username=\"u\"; credential=\"north\\\"west\"; credential-type=\"password\""
        );
        assert!(!format!("{server:?}").contains("west"));
    }

    #[test]
    fn a_shared_secret_makes_user_names_that_end() {
        let server = server(serde_json::json!({"urls": ["turn:h"], "shared_secret": "north"}));
        let (user, pass) = server.login(7, UNIX_EPOCH + Duration::from_secs(1_000_000)).unwrap();
        assert_eq!(user, "1086400:7");
        // printf 1086400:7 | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(pass, "c+H1Ck+txtB7cjSq7RwHGc8Fe6o=");
    }
}

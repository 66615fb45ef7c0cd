//! The section `[auth]`: who may publish, play and use the API.

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::auth::Act;

/// Who may publish, play and use the API. A route's keys come first (`publish_key`, `play_key`); what has no key is
/// decided here. Playing is open unless something here says otherwise; publishing is not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Auth {
    /// Whether anybody who reaches the port may publish a name that asks for no key, token or webhook. When `false`, only
    /// callers on this machine may; a route can say `publish = "anyone"` for its names.
    pub open: bool,
    /// JSON Web Tokens; in force once one of `secret`, `public_key` and `jwks` is given.
    pub jwt: Jwt,
    /// A server that is asked whether a peer may, and told when it has left; in force once `url` is given.
    pub webhook: Webhook,
}

/// JSON Web Tokens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Jwt {
    /// Secret shared with who makes the tokens (`HS256`, `HS384`, `HS512`); at least 32 bytes.
    #[schemars(example = "change-me-to-what-openssl-rand-base64-48-prints")]
    pub secret: Option<Secret>,
    /// Public key of who makes the tokens, as PEM (RSA, EC or Ed25519).
    pub public_key: Option<Secret>,
    /// Public keys of who makes the tokens, as a JSON Web Key Set; a token's `kid` picks one.
    pub jwks: Option<Secret>,
    /// The signature algorithms that are taken. A key is good for those of its own kind only.
    #[schemars(length(min = 1, max = 10))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// A token must name one of these in `aud`.
    #[schemars(length(min = 1, max = 16))]
    pub audience: Vec<String>,
    /// If not empty, a token must name one of these in `iss`.
    #[schemars(length(max = 16))]
    pub issuer: Vec<String>,
    /// How far the clocks may differ, for `exp` and `nbf`, seconds.
    #[schemars(range(max = 600))]
    pub leeway_s: u32,
    /// What needs a token where the name's route has no key. A route's key can always be replaced by a token.
    #[schemars(length(max = 2))]
    pub needed_for: Vec<Act>,
    /// Tokens that are refused, by their `jti`; `POST /v1/tokens/revoke` adds to them while running.
    #[schemars(length(max = 1_000))]
    pub revoked: Vec<String>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: None,
            public_key: None,
            jwks: None,
            algorithms: vec![JwtAlgorithm::Hs256],
            audience: vec!["patchbay".into()],
            issuer: Vec::new(),
            leeway_s: 60,
            needed_for: vec![Act::Publish],
            revoked: Vec::new(),
        }
    }
}

macro_rules! algorithms {
    ($($variant:ident, $name:literal, $theirs:ident, $doc:literal;)*) => {
        /// A signature algorithm of RFC 7518 and RFC 8037.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        pub enum JwtAlgorithm {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)*
        }

        impl From<JwtAlgorithm> for Algorithm {
            fn from(algorithm: JwtAlgorithm) -> Self {
                match algorithm { $(JwtAlgorithm::$variant => Self::$theirs,)* }
            }
        }
    };
}

algorithms! {
    Hs256, "HS256", HS256, "HMAC with SHA-256.";
    Hs384, "HS384", HS384, "HMAC with SHA-384.";
    Hs512, "HS512", HS512, "HMAC with SHA-512.";
    Rs256, "RS256", RS256, "RSA PKCS#1 with SHA-256.";
    Rs384, "RS384", RS384, "RSA PKCS#1 with SHA-384.";
    Rs512, "RS512", RS512, "RSA PKCS#1 with SHA-512.";
    Ps256, "PS256", PS256, "RSA PSS with SHA-256.";
    Es256, "ES256", ES256, "ECDSA with P-256.";
    Es384, "ES384", ES384, "ECDSA with P-384.";
    EdDsa, "EdDSA", EdDSA, "Ed25519.";
}

/// A server that is asked whether a peer may publish or play, after key and token, and told when it has left. Its no is
/// final. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Webhook {
    /// Where the calls go: `https://HOST[:PORT]/PATH`, or `http://`. Without it there are none.
    #[schemars(example = "http://127.0.0.1:8085/api/v1/sessions")]
    pub url: Option<Secret>,
    /// Certificates (PEM) that vouch for an https server; those of the machine where it is not given.
    pub ca_file: Option<PathBuf>,
    /// What it is asked (`publish`, `play`) and told (`unpublish`, `stop`).
    #[schemars(length(max = 4))]
    pub events: Vec<Event>,
    /// How calls and answers look: `json`, or `srs` as servers for SRS have them.
    pub form: Form,
    /// Signs every call: `Patchbay-Signature: sha256=` and the HMAC-SHA256 of `Patchbay-Timestamp`, a dot and the body.
    pub secret: Option<Secret>,
    /// How long an answer may take, milliseconds.
    #[schemars(range(min = 10, max = 8_000))]
    pub timeout_ms: u32,
    /// What counts when it does not answer: `deny`, `allow`, or `cached`, its last answer to the same question.
    pub when_down: WhenDown,
    /// How long a last answer counts, seconds.
    #[schemars(range(max = 86_400))]
    pub cache_s: u32,
    /// Calls under way at once; the next ones wait, within their timeout.
    #[schemars(range(min = 1, max = 1_000))]
    pub calls_max: u32,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: None,
            ca_file: None,
            events: vec![Event::Publish, Event::Play, Event::Unpublish, Event::Stop],
            form: Form::Json,
            secret: None,
            timeout_ms: 2_000,
            when_down: WhenDown::Deny,
            cache_s: 600,
            calls_max: 32,
        }
    }
}

/// What a webhook is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Somebody wants to publish.
    Publish,
    /// Somebody wants to play.
    Play,
    /// A publisher has left.
    Unpublish,
    /// A viewer has left.
    Stop,
}

impl Event {
    /// The question.
    pub fn before(act: Act) -> Self {
        match act {
            Act::Publish => Self::Publish,
            Act::Play => Self::Play,
        }
    }

    /// The news.
    pub fn after(act: Act) -> Self {
        match act {
            Act::Publish => Self::Unpublish,
            Act::Play => Self::Stop,
        }
    }

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
            Self::Unpublish => "unpublish",
            Self::Stop => "stop",
        }
    }
}

/// How the calls of a webhook look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// patchbay's own.
    Json,
    /// That of SRS.
    Srs,
}

/// What counts when a webhook does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Nobody is let in.
    Deny,
    /// Everybody is let in.
    Allow,
    /// Its last answer to the same question; without one nobody is let in.
    Cached,
}

//! The section `[auth]`: who may publish, play and use the API.

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

//! [`Tokens`]: JSON Web Tokens (RFC 7519), checked by the rules of RFC 8725.
//!
//! Each key is good for the algorithms of its own family only, so that a public key is never taken for a shared secret;
//! a token's `kid` picks among the keys that were configured and is nothing but a name; `jku`, `x5u` and `jwk` of a token
//! are never looked at.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use patchbay_contract::{Code, Refusal};

use super::Act;
use super::claims::Claims;
use crate::config::{Jwt, Secret};

/// Most keys of a set.
const KEYS_MAX: usize = 16;
/// Shortest secret for HMAC: as long as the hash (RFC 7518 §3.2).
const SECRET_MIN: usize = 32;

/// A key and what it is good for.
struct Key {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

/// The keys and rules of this process.
pub struct Tokens {
    keys: Vec<Key>,
    needed_for: Vec<Act>,
    leeway_s: u64,
    revoked: HashSet<String>,
}

/// What is wrong with the configuration: the key, and why.
pub type BadKey = (&'static str, String);

impl Tokens {
    /// As configured; `None` if no key is.
    ///
    /// # Errors
    /// A key that cannot be used.
    pub fn new(config: &Jwt) -> Result<Option<Self>, BadKey> {
        let given = [("auth.jwt.secret", &config.secret), ("auth.jwt.public_key", &config.public_key), ("auth.jwt.jwks", &config.jwks)];
        let mut given = given.into_iter().filter_map(|(name, key)| Some((name, key.as_ref()?)));
        let Some((name, key)) = given.next() else { return Ok(None) };
        if let Some((second, _)) = given.next() {
            return Err((second, format!("{name} is given as well; give one of them")));
        }
        let keys = match name {
            "auth.jwt.secret" => vec![(None, secret(key)?)],
            "auth.jwt.public_key" => vec![(None, public_key(key)?)],
            _ => key_set(key)?,
        };
        let keys: Vec<Key> =
            keys.into_iter().filter_map(|(id, key)| config.rules_for(key.family()).map(|v| Key { id, key, validation: v })).collect();
        if keys.is_empty() {
            return Err(("auth.jwt.algorithms", format!("none of them is for a key of the kind that {name} holds")));
        }
        Ok(Some(Self {
            keys,
            needed_for: config.needed_for.clone(),
            leeway_s: config.leeway_s.into(),
            revoked: config.revoked.iter().cloned().collect(),
        }))
    }

    /// Whether this needs a token where the name's route has no key.
    pub fn is_needed_for(&self, act: Act) -> bool {
        self.needed_for.contains(&act)
    }

    /// How far clocks may differ.
    pub fn leeway_s(&self) -> u64 {
        self.leeway_s
    }

    /// What `token` says, if it is genuine, in force, and meant for us.
    pub fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let refuse = |why: &str| Refusal::new(Code::Unauthorized, format!("the token is refused: {why}"));
        let header = decode_header(token).map_err(|e| refuse(&words(&e)))?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: what must be understood and is not makes the token invalid.
            return Err(refuse("it has critical extensions, and none is known here"));
        }
        let named = |key: &&Key| key.id.is_none() || header.kid.is_none() || key.id == header.kid;
        let mut why = "it names a key (kid) that is not configured".to_owned();
        for key in self.keys.iter().filter(named) {
            match decode::<serde_json::Value>(token, &key.key, &key.validation) {
                Ok(found) => return self.in_force(Claims::read(found.claims).map_err(|e| refuse(&format!("its claims do not fit: {e}")))?),
                Err(e) => why = words(&e),
            }
        }
        Err(refuse(&why))
    }

    fn in_force(&self, claims: Claims) -> Result<Claims, Refusal> {
        match &claims.jti {
            Some(id) if self.revoked.contains(id) => Err(revoked()),
            _ => Ok(claims),
        }
    }
}

impl Jwt {
    /// The rules for tokens signed with a key of `family`; `None` if no algorithm is for it.
    fn rules_for(&self, family: AlgorithmFamily) -> Option<Validation> {
        let mut fitting = self.algorithms.iter().map(|a| Algorithm::from(*a)).filter(|a| family.algorithms().contains(a));
        let mut rules = Validation::new(fitting.next()?);
        rules.algorithms.extend(fitting);
        rules.leeway = self.leeway_s.into();
        rules.validate_nbf = true;
        rules.set_audience(&self.audience);
        let mut required = vec!["exp", "aud", "sub"];
        if !self.issuer.is_empty() {
            rules.set_issuer(&self.issuer);
            required.push("iss");
        }
        rules.set_required_spec_claims(&required);
        Some(rules)
    }
}

/// Whether this is meant to be a token and not a key: three parts, of which the first is Base64 of `{"`.
pub fn is_token(text: &str) -> bool {
    text.starts_with("ey") && text.split('.').count() == 3
}

/// A token that was good once.
pub fn revoked() -> Refusal {
    Refusal::new(Code::Unauthorized, "the token is refused: it was revoked")
}

/// Unix time, seconds.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn secret(text: &Secret) -> Result<DecodingKey, BadKey> {
    match text.reveal().len() {
        n if n < SECRET_MIN => {
            Err(("auth.jwt.secret", format!("{n} bytes, and at least {SECRET_MIN} are needed; make one with: openssl rand -base64 48")))
        }
        _ => Ok(DecodingKey::from_secret(text.reveal().as_bytes())),
    }
}

fn public_key(text: &Secret) -> Result<DecodingKey, BadKey> {
    let pem = text.reveal().as_bytes();
    // `private` keys parse as PEM as well; whoever checks tokens has no use for one.
    if text.reveal().contains("PRIVATE") {
        return Err(("auth.jwt.public_key", "this is a private key, which belongs to who makes the tokens; give the public one".into()));
    }
    let found = DecodingKey::from_rsa_pem(pem).or_else(|_| DecodingKey::from_ec_pem(pem)).or_else(|_| DecodingKey::from_ed_pem(pem));
    found.map_err(|_| ("auth.jwt.public_key", "expected the PEM of an RSA, EC or Ed25519 public key (-----BEGIN PUBLIC KEY-----)".into()))
}

fn key_set(text: &Secret) -> Result<Vec<(Option<String>, DecodingKey)>, BadKey> {
    let refuse = |why: String| ("auth.jwt.jwks", why);
    let set: JwkSet = serde_json::from_str(text.reveal())
        .map_err(|e| refuse(format!("no JSON Web Key Set (line {}, column {})", e.line(), e.column())))?;
    if set.keys.is_empty() || set.keys.len() > KEYS_MAX {
        return Err(refuse(format!("{} keys; expected 1 to {KEYS_MAX}", set.keys.len())));
    }
    let key = |(i, jwk): (usize, &jsonwebtoken::jwk::Jwk)| {
        let key = DecodingKey::from_jwk(jwk).map_err(|_| refuse(format!("key {i} is of a kind that is not supported")))?;
        Ok((jwk.common.key_id.clone(), key))
    };
    set.keys.iter().enumerate().map(key).collect()
}

/// Why a token is refused. Repeats nothing of it.
fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ExpiredSignature => "it has expired (exp)".into(),
        ErrorKind::ImmatureSignature => "it is not valid yet (nbf)".into(),
        ErrorKind::InvalidAudience => "it is for another audience (aud, auth.jwt.audience)".into(),
        ErrorKind::InvalidIssuer => "it is from another issuer (iss, auth.jwt.issuer)".into(),
        ErrorKind::InvalidSignature => "its signature does not fit the key".into(),
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => "its algorithm is none of auth.jwt.algorithms".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no claim {claim:?}"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its claim {claim:?} is of the wrong type"),
        _ => "it is not a signed JSON Web Token".into(),
    }
}

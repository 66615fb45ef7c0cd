//! [`Gate`]: who may publish, play and use the API.
//!
//! Owns: the order in which keys, tokens and the default are asked; the tokens. Refuses: what happens to whoever is let in,
//! and sockets: it is given what a peer brought.
//!
//! - [`tokens`]: JSON Web Tokens;
//! - [`claims`]: what a token permits;
//! - [`revoked`]: tokens that are good for nothing any more.

mod claims;
mod revoked;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Code, Refusal};
use patchbay_rules::EndpointKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::hub::Route;

use claims::Claims;
pub use claims::Right;
pub use tokens::{BadKey, Tokens, unix_now};

/// What a peer wants to do with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Send it.
    Publish,
    /// Watch it.
    Play,
}

impl Act {
    fn doing(self) -> &'static str {
        match self {
            Self::Publish => "publishing",
            Self::Play => "playing",
        }
    }
}

/// What somebody was let in with, and within which bounds.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Who it is, by its token.
    pub subject: Option<Arc<str>>,
    /// Number of that token.
    pub token_id: Option<Arc<str>>,
    /// Nothing is transcoded for it.
    pub no_transcode: bool,
    /// Most lines of a picture that it is sent.
    pub max_height: Option<u32>,
    /// What it publishes is not to be recorded.
    pub no_record: bool,
}

impl From<Claims> for Grant {
    fn from(claims: Claims) -> Self {
        let can = claims.patchbay;
        Self {
            subject: Some(claims.sub.into()),
            token_id: claims.jti.map(Into::into),
            no_transcode: can.no_transcode,
            max_height: can.max_height,
            no_record: can.no_record,
        }
    }
}

/// See the module.
pub struct Gate {
    open: bool,
    tokens: Option<Tokens>,
}

impl Gate {
    /// As configured.
    ///
    /// # Errors
    /// What is wrong with the keys of tokens.
    pub fn new(config: &config::Auth) -> Result<Self, BadKey> {
        Ok(Self { open: config.open, tokens: Tokens::new(&config.jwt)? })
    }

    /// Lets a peer in, or says what it lacks. `route` is that of the name.
    pub fn admit(
        &self,
        act: Act,
        route: Option<&Route>,
        stream: &StreamName,
        kind: EndpointKind,
        caller: &Caller,
    ) -> Result<Grant, Refusal> {
        if caller.operator {
            return Ok(Grant::default());
        }
        let brought = caller.credentials.token();
        if route.is_some_and(|route| route.is_open_for(act)) {
            return Ok(Grant::default());
        }
        let key = route.and_then(|route| route.key_for(act));
        if let (Some(key), Some(brought)) = (key, brought)
            && crate::secrets::equal(brought, key)
        {
            return Ok(Grant::default());
        }
        let tokens = self.tokens.as_ref().filter(|tokens| key.is_some() || tokens.is_needed_for(act));
        if let (Some(tokens), Some(brought)) = (tokens, brought)
            && tokens::is_token(brought)
        {
            let claims = tokens.verify(brought)?;
            claims.permit(act, stream, kind)?;
            return Ok(claims.into());
        }
        match (key, tokens) {
            (Some(_), Some(_)) => Err(lacks(act, stream, "its key or a token")),
            (Some(_), None) => Err(lacks(act, stream, "its key")),
            (None, Some(_)) => Err(lacks(act, stream, "a token")),
            (None, None) if act == Act::Play || self.open || is_here(caller) => Ok(Grant::default()),
            (None, None) => Err(Refusal::new(Code::Unauthorized, closed(stream))),
        }
    }

    /// Whether `token` gives this right to the API.
    pub fn admit_to_api(&self, token: &str, right: Right) -> Result<(), Refusal> {
        let refuse = || Refusal::new(Code::Unauthorized, "the API needs `Authorization: Bearer <api.token>`");
        let tokens = self.tokens.as_ref().filter(|_| tokens::is_token(token)).ok_or_else(refuse)?;
        let claims = tokens.verify(token)?;
        match claims.has(right) {
            true => Ok(()),
            false => Err(Refusal::new(Code::Forbidden, format!("the token of {:?} does not permit this in patchbay.api", claims.sub))),
        }
    }

    /// The tokens, where there are any.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.tokens.as_ref()
    }
}

/// Whether the peer is on this machine.
fn is_here(caller: &Caller) -> bool {
    caller.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

fn closed(stream: &StreamName) -> String {
    format!(
        "publishing {stream} from another machine is closed: give its route a publish_key or publish = \"anyone\", or configure \
         auth.jwt, or set auth.open = true"
    )
}

fn lacks(act: Act, stream: &StreamName, what: &str) -> Refusal {
    Refusal::new(Code::Unauthorized, format!("{} {stream} needs {what}", act.doing()))
}

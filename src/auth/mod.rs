//! [`Gate`]: who may publish, play and use the API.
//!
//! Owns: the order in which keys, tokens, the default and the webhook are asked. Refuses: what happens to whoever is let in;
//! it is given what a peer brought.
//!
//! - [`tokens`]: JSON Web Tokens; [`claims`]: what one permits; [`revoked`]: those that are good for nothing any more;
//! - [`addresses`]: how much one address may have;
//! - [`webhook`]: somebody else is asked and told; [`call`]: in which words; [`wire`]: over which connection.

mod addresses;
mod call;
mod claims;
mod revoked;
#[cfg(test)]
mod tests;
mod tokens;
mod webhook;
#[cfg(test)]
mod webhook_tests;
mod wire;

use std::sync::Arc;

use arc_swap::ArcSwap;
use patchbay_bus::StreamName;
use patchbay_contract::{Caller, Code, Refusal};
use patchbay_rules::EndpointKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::hub::Route;

pub use addresses::{Addresses, PerAddress, Seat};
use call::Call;
use claims::Claims;
pub use claims::Right;
use revoked::Revoked;
pub use tokens::BadKey;
use tokens::Tokens;
use webhook::{Visit, Webhook};

/// Key of the configuration, for messages.
const WEBHOOK_URL: &str = "auth.webhook.url";

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
    /// Nothing is transcoded for it, nor of what it publishes.
    pub no_transcode: bool,
    /// Most lines of a picture that it is sent.
    pub max_height: Option<u32>,
    /// What it publishes is not to be recorded.
    pub no_record: bool,
    /// The webhook is told when the last of this is gone.
    visit: Option<Arc<Visit>>,
    /// What its address takes up.
    _seat: Option<Arc<Seat>>,
}

impl Grant {
    /// The same, and a place that is given back when the last of this is gone.
    pub fn with_seat(self, seat: Option<Seat>) -> Self {
        Self { _seat: seat.map(Arc::new), ..self }
    }
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
            visit: None,
            _seat: None,
        }
    }
}

/// See the module.
pub struct Gate {
    policy: ArcSwap<Policy>,
    revoked: Revoked,
}

/// What the configuration says.
struct Policy {
    open: bool,
    tokens: Option<Tokens>,
    hook: Option<Arc<Webhook>>,
}

impl Policy {
    fn new(config: &config::Auth) -> Result<Self, BadKey> {
        let hook = Webhook::start(&config.webhook).map_err(|why| (WEBHOOK_URL, why))?;
        Ok(Self { open: config.open, tokens: Tokens::new(&config.jwt)?, hook })
    }
}

/// Everything that is wrong with the section, without starting anything.
pub fn problems(config: &config::Auth) -> Vec<BadKey> {
    let hook = wire::Target::new(&config.webhook).err().map(|why| (WEBHOOK_URL, why));
    Tokens::new(&config.jwt).err().into_iter().chain(hook).collect()
}

/// What a peer wants.
pub struct Wish<'a> {
    pub act: Act,
    pub stream: &'a StreamName,
    pub kind: EndpointKind,
    pub caller: &'a Caller,
    /// The route of the name.
    pub route: Option<Route>,
}

impl Gate {
    /// As configured.
    ///
    /// # Errors
    /// What is wrong with the section.
    pub fn new(config: &config::Auth) -> Result<Self, BadKey> {
        Ok(Self { policy: ArcSwap::from_pointee(Policy::new(config)?), revoked: Revoked::default() })
    }

    /// Puts another configuration in force; whoever was let in stays.
    ///
    /// # Errors
    /// What is wrong with it; nothing has changed then.
    pub fn set(&self, config: &config::Auth) -> Result<(), BadKey> {
        self.policy.store(Arc::new(Policy::new(config)?));
        Ok(())
    }

    /// Lets a peer in, or says what it lacks.
    pub async fn admit(&self, wish: Wish<'_>) -> Result<Grant, Refusal> {
        if wish.caller.operator {
            return Ok(Grant::default());
        }
        let policy = self.policy.load_full();
        let mut grant = self.by_credentials(&policy, &wish)?;
        if let Some(hook) = &policy.hook {
            grant.visit = Some(Arc::new(hook.ask(wish.act, Call::new(&wish, &grant)).await?));
        }
        Ok(grant)
    }

    fn by_credentials(&self, policy: &Policy, wish: &Wish<'_>) -> Result<Grant, Refusal> {
        let (act, stream) = (wish.act, wish.stream);
        if wish.route.as_ref().is_some_and(|route| route.is_open_for(act)) {
            return Ok(Grant::default());
        }
        let brought = wish.caller.credentials.token();
        let key = wish.route.as_ref().and_then(|route| route.key_for(act));
        if let (Some(key), Some(brought)) = (key, brought)
            && crate::secrets::equal(brought, key)
        {
            return Ok(Grant::default());
        }
        let tokens = policy.tokens.as_ref().filter(|tokens| key.is_some() || tokens.is_needed_for(act));
        if let (Some(tokens), Some(brought)) = (tokens, brought)
            && tokens::is_token(brought)
        {
            let claims = self.verify(tokens, brought)?;
            claims.permit(act, stream, wish.kind)?;
            return Ok(claims.into());
        }
        let decided_elsewhere = policy.hook.as_ref().is_some_and(|hook| hook.decides(act));
        match (key, tokens) {
            (Some(_), Some(_)) => Err(lacks(act, stream, "its key or a token")),
            (Some(_), None) => Err(lacks(act, stream, "its key")),
            (None, Some(_)) => Err(lacks(act, stream, "a token")),
            (None, None) if act == Act::Play || policy.open || decided_elsewhere || is_here(wish.caller) => Ok(Grant::default()),
            (None, None) => Err(Refusal::new(Code::Unauthorized, closed(stream))),
        }
    }

    fn verify(&self, tokens: &Tokens, token: &str) -> Result<Claims, Refusal> {
        let claims = tokens.verify(token)?;
        self.check_revoked(claims.jti.as_deref())?;
        Ok(claims)
    }

    /// Whether what was granted still is: its token may have been revoked since.
    ///
    /// # Errors
    /// It was.
    pub fn still_good(&self, grant: &Grant) -> Result<(), Refusal> {
        self.check_revoked(grant.token_id.as_deref())
    }

    fn check_revoked(&self, id: Option<&str>) -> Result<(), Refusal> {
        if id.is_some_and(|id| self.revoked.contains(id)) { Err(tokens::revoked()) } else { Ok(()) }
    }

    /// Whether `token` gives this right to the API.
    pub fn admit_to_api(&self, token: &str, right: Right) -> Result<(), Refusal> {
        let policy = self.policy.load();
        let refuse = || Refusal::new(Code::Unauthorized, "the API needs `Authorization: Bearer <api.token>`");
        let tokens = policy.tokens.as_ref().filter(|_| tokens::is_token(token)).ok_or_else(refuse)?;
        let claims = self.verify(tokens, token)?;
        match claims.has(right) {
            true => Ok(()),
            false => Err(Refusal::new(Code::Forbidden, format!("the token of {:?} does not permit this in patchbay.api", claims.sub))),
        }
    }

    /// Refuses the token of this number from now on, for good or until it would have expired anyway (Unix time).
    ///
    /// # Errors
    /// No tokens are in use, or too many are revoked.
    pub fn revoke(&self, id: &str, expires: Option<u64>) -> Result<(), Refusal> {
        let policy = self.policy.load();
        let tokens = policy.tokens.as_ref().ok_or_else(|| Refusal::new(Code::BadRequest, "no tokens are in use (auth.jwt)"))?;
        // It is taken for so long after its end.
        self.revoked.add(id, expires.map(|at| at.saturating_add(tokens.leeway_s())), tokens::unix_now())
    }

    /// Whether the webhook knows all there is to tell.
    pub fn is_quiet(&self) -> bool {
        self.policy.load().hook.as_ref().is_none_or(|hook| hook.is_quiet())
    }
}

/// Whether the peer is on this machine.
fn is_here(caller: &Caller) -> bool {
    caller.peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

fn closed(stream: &StreamName) -> String {
    format!(
        "publishing {stream} from another machine is closed: give its route a publish_key or publish = \"anyone\", or configure \
         auth.jwt or auth.webhook, or set auth.open = true"
    )
}

fn lacks(act: Act, stream: &StreamName, what: &str) -> Refusal {
    Refusal::new(Code::Unauthorized, format!("{} {stream} needs {what}", act.doing()))
}

//! [`Claims`]: what a token says its holder may do. Refuses: signatures and times, which [`super::tokens`] checks.

use patchbay_bus::StreamName;
use patchbay_contract::{Code, Refusal};
use patchbay_rules::{EndpointKind, Pattern};
use serde::Deserialize;

use super::Act;

/// Most patterns of one list.
const PATTERNS_MAX: usize = 64;
/// Longest subject and token number, bytes.
const NAME_MAX: usize = 256;

/// The claims of a token that count here. Those that RFC 7519 defines for times, issuer and audience were checked before.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Who holds it.
    pub sub: String,
    /// Number of the token, for revoking it.
    #[serde(default)]
    pub jti: Option<String>,
    /// What it is good for.
    #[serde(default)]
    pub patchbay: Permissions,
}

/// The claim `patchbay`. What it does not name is not permitted; a key that does not exist is refused, because it may be a
/// restriction that was misspelt.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Names it may publish.
    pub publish: Vec<Pattern>,
    /// Names it may play.
    pub play: Vec<Pattern>,
    /// What it may do with the API.
    pub api: Vec<Right>,
    /// The kinds of endpoint its holder may be; none given: any.
    pub kinds: Option<Vec<EndpointKind>>,
    /// Most lines of a picture that it is sent.
    pub max_height: Option<u32>,
    /// Nothing is transcoded for it, nor of what it publishes.
    pub no_transcode: bool,
    /// What it publishes is not to be recorded.
    pub no_record: bool,
}

/// A right to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// To look.
    Read,
    /// To look and to change.
    Control,
}

impl Claims {
    /// Reads them from a token's payload.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub fn read(payload: serde_json::Value) -> Result<Self, String> {
        let claims: Self = serde_json::from_value(payload).map_err(|e| e.to_string().chars().take(200).collect::<String>())?;
        if claims.sub.is_empty() || claims.sub.len() > NAME_MAX || claims.jti.as_ref().is_some_and(|jti| jti.len() > NAME_MAX) {
            return Err(format!("sub and jti may have {NAME_MAX} bytes, and sub may not be empty"));
        }
        if claims.patchbay.publish.len().max(claims.patchbay.play.len()) > PATTERNS_MAX {
            return Err(format!("more than {PATTERNS_MAX} patterns in a list"));
        }
        Ok(claims)
    }

    /// Whether the holder may do this with `stream` as `kind`.
    pub fn permit(&self, act: Act, stream: &StreamName, kind: EndpointKind) -> Result<(), Refusal> {
        let patterns = match act {
            Act::Publish => &self.patchbay.publish,
            Act::Play => &self.patchbay.play,
        };
        if !patterns.iter().any(|pattern| pattern.matches(stream.as_str())) {
            return Err(Refusal::new(Code::Forbidden, format!("the token of {:?} does not permit {} {stream}", self.sub, act.doing())));
        }
        match &self.patchbay.kinds {
            Some(kinds) if !kinds.contains(&kind) => {
                Err(Refusal::new(Code::Forbidden, format!("the token of {:?} is not for {kind} endpoints", self.sub)))
            }
            _ => Ok(()),
        }
    }

    /// Whether the holder has this right to the API.
    pub fn has(&self, right: Right) -> bool {
        self.patchbay.api.iter().any(|own| *own == right || *own == Right::Control)
    }
}

//! The pushes of this process: started by configuration or API, each with a visible state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use patchbay_bus::StreamName;
use patchbay_contract::{Code, Hub, Refusal};
use patchbay_outbound::{DialError, Policy};
use patchbay_rtmp::push::{self, Destination, Target};
use patchbay_rules::EndpointKind;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config;

/// Most pushes at a time.
const PUSHES_MAX: usize = 200;

/// A push as the API shows it.
#[derive(Serialize, ToSchema)]
pub struct PushView {
    /// Its name.
    pub name: String,
    /// Stream it sends.
    pub stream: String,
    /// Where to, without the stream key.
    pub url: String,
    /// `waiting` (for the stream), `connecting`, `live`, `degraded`, `backoff`, `rejected` (by the server) or `stopped`.
    pub state: &'static str,
    /// Why, in the target's or our words.
    pub detail: String,
    /// What services usually ask for and the stream does not give, since the last time it connected.
    pub advice: Vec<String>,
    /// Seconds in this state.
    pub since_s: f64,
    /// Times it connected.
    pub connects: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Whether it goes to the backup.
    pub on_backup: bool,
}

struct Entry {
    stream: StreamName,
    push: push::Push,
    /// Of one that came by API: where to, and as what.
    requested: Option<(Destination, EndpointKind)>,
}

/// All pushes by name.
pub struct Pushes {
    hub: Arc<dyn Hub>,
    /// Where pushes of the API may lead.
    policy: ArcSwap<Policy>,
    all: Mutex<BTreeMap<String, Entry>>,
}

impl Pushes {
    pub fn new(hub: Arc<dyn Hub>, outbound: &patchbay_outbound::Config) -> Arc<Self> {
        Arc::new(Self { hub, policy: ArcSwap::from_pointee(Policy::checked(outbound)), all: Mutex::default() })
    }

    /// Replaces what pushes that come by API may dial.
    /// Those that run begin anew, by the new policy.
    pub fn set_outbound(&self, outbound: &patchbay_outbound::Config) {
        let policy = Policy::checked(outbound);
        self.policy.store(Arc::new(policy.clone()));
        for entry in self.all().values_mut() {
            let Some((to, kind)) = &mut entry.requested else { continue };
            (to.policy, to.elsewhere) = (policy.clone(), policy.clone());
            entry.push = push::Push::start(self.hub.clone(), entry.stream.clone(), *kind, to.clone());
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a push; it waits for the stream if that is not live.
    ///
    /// # Errors
    /// A bad name or URL, a name in use, or too many pushes.
    fn start(&self, name: &str, stream: &str, to: Destination, kind: EndpointKind, by_api: bool) -> Result<PushView, Refusal> {
        let stream: StreamName = stream.parse()?;
        if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(Refusal::new(Code::BadRequest, "push name: 1 to 64 letters, digits, '-', '_', '.'"));
        }
        let mut all = self.all();
        if all.contains_key(name) {
            return Err(Refusal::new(Code::StreamBusy, format!("there is a push {name:?} already")));
        }
        if all.len() >= PUSHES_MAX {
            return Err(Refusal::new(Code::TooMany, format!("the limit of {PUSHES_MAX} pushes is reached")));
        }
        let requested = by_api.then(|| (to.clone(), kind));
        let push = push::Push::start(self.hub.clone(), stream.clone(), kind, to);
        let entry = Entry { stream, push, requested };
        let view = view(name, &entry);
        all.insert(name.to_owned(), entry);
        Ok(view)
    }

    /// Starts a push of the API. Unlike the operator's own it may lead to the public Internet only, and to what
    /// `outbound.allow` names.
    ///
    /// # Errors
    /// As [`Self::start`], and an address that may not be dialled. A name that does not resolve now may do so later.
    pub async fn start_requested(&self, name: &str, stream: &str, url: &str, kind: EndpointKind) -> Result<PushView, Refusal> {
        let to = Destination::new(Target::parse(url).map_err(bad)?, self.policy.load().as_ref().clone());
        let (host, port) = to.primary.host();
        if let Err(refused @ DialError::Refused { .. }) = to.policy.resolve(host, port).await {
            return Err(Refusal::new(Code::AddressRefused, refused.to_string()));
        }
        self.start(name, stream, to, kind, true)
    }

    /// Starts a push of the configuration; what is wrong with it is logged.
    pub fn start_configured(&self, push: &config::Push) {
        if let Err(refusal) =
            destination(push, &self.policy.load()).and_then(|to| self.start(&push.name, push.stream.as_str(), to, push.kind.into(), false))
        {
            tracing::error!(push = %push.name, %refusal, "push not started");
        }
    }

    /// Stops a push; `false` when there is none of that name.
    pub fn stop(&self, name: &str) -> bool {
        self.all().remove(name).is_some()
    }

    /// Stops all.
    pub fn stop_all(&self) {
        self.all().clear();
    }

    /// Every push.
    pub fn list(&self) -> Vec<PushView> {
        self.all().iter().map(|(name, entry)| view(name, entry)).collect()
    }
}

/// Where a push of the configuration goes.
fn destination(push: &config::Push, elsewhere: &Policy) -> Result<Destination, Refusal> {
    Ok(Destination {
        backup: push.backup_target().map_err(bad)?,
        backup_hold: Duration::from_secs(push.backup_hold_s.into()),
        signer: push.signer(),
        ca_file: push.ca_file.clone(),
        elsewhere: elsewhere.clone(),
        ..Destination::new(push.target().map_err(bad)?, Policy::ALL)
    })
}

fn bad(why: impl ToString) -> Refusal {
    Refusal::new(Code::BadRequest, why.to_string())
}

fn view(name: &str, entry: &Entry) -> PushView {
    let status = entry.push.status();
    PushView {
        name: name.to_owned(),
        stream: entry.stream.to_string(),
        url: entry.push.target().to_string(),
        state: status.state.as_str(),
        detail: status.detail,
        advice: status.advice,
        since_s: (patchbay_bus::now() - status.since).as_secs_f64(),
        connects: status.connects,
        failures: status.failures,
        on_backup: status.on_backup,
    }
}

//! The pushes of this process: started by configuration or API, each with a visible state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use patchbay_bus::StreamName;
use patchbay_contract::{Code, Hub, Refusal};
use patchbay_rtmp::push;
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
    /// `waiting`, `connecting`, `live`, `backoff`, `rejected` or `stopped`.
    pub state: &'static str,
    /// Why, in the target's or our words.
    pub detail: String,
    /// Seconds in this state.
    pub since_s: f64,
    /// Times it connected.
    pub connects: u64,
}

struct Entry {
    stream: StreamName,
    push: push::Push,
}

/// All pushes by name.
pub struct Pushes {
    hub: Arc<dyn Hub>,
    all: Mutex<BTreeMap<String, Entry>>,
}

impl Pushes {
    pub fn new(hub: Arc<dyn Hub>) -> Arc<Self> {
        Arc::new(Self { hub, all: Mutex::default() })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a push; it waits for the stream if that is not live.
    ///
    /// # Errors
    /// A bad name or URL, a name in use, or too many pushes.
    pub fn start(&self, name: &str, stream: &str, url: &str, kind: EndpointKind) -> Result<PushView, Refusal> {
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
        let target = push::Target::parse(url).map_err(|e| Refusal::new(Code::BadRequest, e.to_string()))?;
        let push = push::Push::start(self.hub.clone(), stream.clone(), kind, target);
        let entry = Entry { stream, push };
        let view = view(name, &entry);
        all.insert(name.to_owned(), entry);
        Ok(view)
    }

    /// Starts a push of the configuration; what is wrong with it is logged.
    pub fn start_configured(&self, push: &config::Push) {
        if let Err(refusal) = self.start(&push.name, push.stream.as_str(), &push.target(), push.kind.into()) {
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

fn view(name: &str, entry: &Entry) -> PushView {
    let status = entry.push.status();
    PushView {
        name: name.to_owned(),
        stream: entry.stream.to_string(),
        url: entry.push.target().to_string(),
        state: status.state.as_str(),
        detail: status.detail,
        since_s: (patchbay_bus::now() - status.since).as_secs_f64(),
        connects: status.connects,
    }
}

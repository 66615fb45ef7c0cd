//! Pulls on demand: streams of other servers that are fetched while somebody here plays them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use patchbay_bus::StreamName;
use patchbay_contract::{Code, Hub, Refusal};
use patchbay_outbound::Policy;
use patchbay_rtmp::pull::{Destination, Pull, State, Status, Target};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::config;
use crate::hub::Switchboard;

/// Most pulls at a time: viewers choose the names, so they decide how many are tried.
const PULLS_MAX: usize = 200;
/// How often it is looked whether anybody still watches.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A pull as the API shows it.
#[derive(Serialize, ToSchema)]
pub struct PullView {
    /// The stream; of an entry of the configuration that nothing is pulled by now, its pattern.
    pub stream: String,
    /// Where from, without the last part; as it is written where nothing is pulled.
    pub url: String,
    /// `waiting` (for a viewer), `connecting`, `live`, `backoff`, `rejected` (by the server) or `stopped`.
    pub state: &'static str,
    /// Why, in the server's or our words.
    pub detail: String,
    /// Seconds in this state.
    pub since_s: f64,
    /// Times the stream came.
    pub connects: u64,
    /// Failures in a row.
    pub failures: u32,
}

/// A stream that is pulled.
struct Running {
    pull: Pull,
    /// By this entry of the configuration.
    by: config::Pull,
    /// When somebody last watched.
    watched: Instant,
}

impl Running {
    fn is_live(&self) -> bool {
        self.pull.status().state == State::Live
    }

    fn coming(&self) -> Coming {
        Coming { status: self.pull.watch(), wait: self.by.wait() }
    }
}

/// A stream that a pull brings, or has brought.
pub struct Coming {
    status: watch::Receiver<Status>,
    wait: Duration,
}

impl Coming {
    /// Waits until there is something to play.
    ///
    /// # Errors
    /// It has not come in time, and how its pull is. No more than that: anybody may ask, and why is the operator's to know.
    pub async fn wait(mut self, stream: &StreamName) -> Result<(), Refusal> {
        let settled = |status: &Status| matches!(status.state, State::Live | State::Rejected | State::Stopped);
        let seen = timeout(self.wait, self.status.wait_for(settled)).await;
        if seen.is_ok_and(|seen| seen.is_ok_and(|status| status.state == State::Live)) {
            return Ok(());
        }
        let how = self.status.borrow().state.as_str();
        Err(Refusal::new(Code::StreamNotFound, format!("nobody publishes {stream} here, and its pull is {how}")))
    }
}

#[derive(Default)]
struct Inner {
    configured: Vec<config::Pull>,
    running: BTreeMap<StreamName, Running>,
    stopped: bool,
}

/// All pulls, by the stream they bring.
pub struct Pulls {
    hub: Arc<dyn Hub>,
    board: Arc<Switchboard>,
    /// Which hosts a server may send a pull to.
    elsewhere: Policy,
    inner: Mutex<Inner>,
}

impl Pulls {
    /// Those of the configuration, in its order. [`Self::run`] must be spawned for them to end.
    pub fn new(hub: Arc<dyn Hub>, board: Arc<Switchboard>, elsewhere: Policy, configured: Vec<config::Pull>) -> Arc<Self> {
        Arc::new(Self { hub, board, elsewhere, inner: Mutex::new(Inner { configured, ..Inner::default() }) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody wants to play a name that nobody publishes: starts its pull where it does not run, if it is one that is pulled.
    ///
    /// # Errors
    /// Too many are pulled, or there is no asking for this name.
    pub fn wanted(&self, stream: &StreamName) -> Result<Option<Coming>, Refusal> {
        let mut inner = self.inner();
        if inner.stopped {
            return Ok(None);
        }
        if let Some(running) = inner.running.get_mut(stream) {
            running.watched = Instant::now();
            return Ok(Some(running.coming()));
        }
        let Some(by) = inner.configured.iter().find(|pull| pull.stream.matches(stream.as_str())).cloned() else { return Ok(None) };
        let target = Target::parse(&by.target(stream)).map_err(|e| Refusal::new(Code::Internal, format!("the pull of {stream}: {e}")))?;
        inner.make_room()?;
        let from = Destination { ca_file: by.ca_file.clone(), elsewhere: self.elsewhere.clone(), ..Destination::new(target, Policy::ALL) };
        let pull = Pull::start(self.hub.clone(), stream.clone(), from);
        let running = Running { pull, by, watched: Instant::now() };
        let coming = running.coming();
        inner.running.insert(stream.clone(), running);
        Ok(Some(coming))
    }

    /// Ends the pulls that nobody has watched for their while, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut look = interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick() => self.look(),
            }
        }
    }

    fn look(&self) {
        let now = Instant::now();
        self.inner().running.retain(|stream, running| {
            if self.board.is_watched(stream) {
                running.watched = now;
            }
            // Who publishes here comes before a server elsewhere.
            let is_needed = now - running.watched < running.by.idle() && self.board.publisher_yields(stream) != Some(false);
            if !is_needed {
                tracing::info!(%stream, "pull ends: nobody watches, or somebody publishes here");
            }
            is_needed
        });
    }

    /// Follows the configuration: what is pulled by an entry that is gone or different ends.
    pub fn set(&self, configured: Vec<config::Pull>) {
        let mut inner = self.inner();
        let by = |stream: &StreamName| configured.iter().find(|pull| pull.stream.matches(stream.as_str()));
        inner.running.retain(|stream, running| by(stream) == Some(&running.by));
        inner.configured = configured;
    }

    /// Ends all, and starts no more.
    pub fn stop_all(&self) {
        let mut inner = self.inner();
        inner.stopped = true;
        inner.running.clear();
    }

    /// What is pulled, then what could be.
    pub fn list(&self) -> Vec<PullView> {
        let inner = self.inner();
        let running = inner.running.iter().map(|(stream, running)| view(stream, running));
        let is_idle = |pull: &&config::Pull| inner.running.values().all(|running| running.by != **pull);
        let idle = inner.configured.iter().filter(is_idle).map(|pull| PullView {
            stream: pull.stream.to_string(),
            url: pull.shown_url(),
            state: State::Waiting.as_str(),
            detail: String::new(),
            since_s: 0.0,
            connects: 0,
            failures: 0,
        });
        running.chain(idle).collect()
    }
}

impl Inner {
    /// One that brings nothing makes room for another, the one that nobody has watched for longest.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.running.len() < PULLS_MAX {
            return Ok(());
        }
        let barren = self.running.iter().filter(|(_, running)| !running.is_live());
        let oldest = barren.min_by_key(|(_, running)| running.watched).map(|(stream, _)| stream.clone());
        let oldest = oldest.ok_or_else(|| Refusal::new(Code::TooMany, format!("the limit of {PULLS_MAX} pulls is reached")))?;
        self.running.remove(&oldest);
        Ok(())
    }
}

fn view(stream: &StreamName, running: &Running) -> PullView {
    let status = running.pull.status();
    PullView {
        stream: stream.to_string(),
        url: running.pull.source().to_string(),
        state: status.state.as_str(),
        detail: status.detail,
        since_s: (patchbay_bus::now() - status.since).as_secs_f64(),
        connects: status.connects,
        failures: status.failures,
    }
}

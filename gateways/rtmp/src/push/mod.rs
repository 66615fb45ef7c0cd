//! Pushing a stream to another RTMP server.
//!
//! - this file: what callers hold: [`Push`] and its [`Status`];
//! - [`target`]: where to, and how;
//! - [`provider`]: addresses signed as services want them;
//! - [`supervise`]: waits for the stream, connects, and comes back after failures;
//! - [`sender`]: one connection to the server.
//!
//! Refuses: redirects to other hosts, and to show a stream key to anybody but the server.

mod provider;
mod sender;
mod supervise;
mod target;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use patchbay_bus::{StreamName, now};
use patchbay_contract::Hub;
use patchbay_media::MediaTime;
use patchbay_rules::EndpointKind;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use provider::{Provider, Signer};
pub use target::{Destination, Target};

/// What a push does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The stream is not live.
    Waiting,
    /// Dialling the server, or asking it.
    Connecting,
    /// Sending.
    Live,
    /// Connected, but the server is slow, frames were left out, or the source is away.
    Degraded,
    /// The connection failed; it will try again.
    Backoff,
    /// The server said no; it will try again, in case the server's mind is changed.
    Rejected,
    /// Over.
    Stopped,
}

impl State {
    /// The name in API and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Degraded => "degraded",
            Self::Backoff => "backoff",
            Self::Rejected => "rejected",
            Self::Stopped => "stopped",
        }
    }
}

/// A push as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it does now.
    pub state: State,
    /// Why, in the server's or our words; may be empty.
    pub detail: String,
    /// Since when, bus time.
    pub since: MediaTime,
    /// How often the server let it publish.
    pub connects: u64,
    /// How often in a row it failed.
    pub failures: u32,
    /// Whether it goes to the backup.
    pub on_backup: bool,
    /// When the primary is tried again, while it does.
    back_at: Option<Instant>,
}

impl Status {
    fn new() -> Self {
        Self { state: State::Waiting, detail: String::new(), since: now(), connects: 0, failures: 0, on_backup: false, back_at: None }
    }
}

/// The status, written by the task and read by all.
#[derive(Clone)]
struct Board {
    status: Arc<Mutex<Status>>,
    stream: StreamName,
    to: Arc<Destination>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State, detail: impl ToString) {
        let detail = self.to.conceal(&detail.to_string());
        let mut status = self.lock();
        if (status.state, &status.detail) == (state, &detail) {
            return;
        }
        let target = self.to.of(status.on_backup);
        tracing::info!(stream = %self.stream, %target, state = state.as_str(), detail = %detail, "push");
        if state != status.state {
            (status.state, status.since) = (state, now());
        }
        status.detail = detail;
    }

    /// Counts a failure, and goes over to the other server when there were too many in a row.
    fn failed(&self) {
        let mut status = self.lock();
        status.failures = status.failures.saturating_add(1);
        if self.to.backup.is_some() && status.failures.is_multiple_of(supervise::FAILURES_MAX) {
            status.on_backup = !status.on_backup;
            // However often the backup is connected to in the meantime.
            status.back_at = status.on_backup.then(|| Instant::now() + self.to.backup_hold);
        }
    }

    /// The server lets us publish.
    fn connected(&self) {
        self.lock().connects += 1;
        self.set(State::Live, "");
    }
}

/// A push that runs until it is dropped.
pub struct Push {
    board: Board,
    /// Stops the task.
    _stop: DropGuard,
}

impl Push {
    /// Starts to push `stream`, as a sink of `kind`, whenever it is live.
    pub fn start(hub: Arc<dyn Hub>, stream: StreamName, kind: EndpointKind, to: Destination) -> Self {
        let board = Board { status: Arc::new(Mutex::new(Status::new())), stream, to: Arc::new(to) };
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise::run(hub, kind, board.clone(), stop.clone()));
        let last = board.clone();
        tokio::spawn(async move {
            // Also when the task panicked: nobody may take a dead push for a live one.
            let detail = if task.await.is_ok() { "" } else { "a fault of patchbay; the log has more" };
            last.set(State::Stopped, detail);
        });
        Self { board, _stop: stop.drop_guard() }
    }

    /// What it does now.
    pub fn status(&self) -> Status {
        self.board.lock().clone()
    }

    /// Where it goes now.
    pub fn target(&self) -> &Target {
        let on_backup = self.board.lock().on_backup;
        self.board.to.of(on_backup)
    }
}

//! Pushing a stream to another RTMP server.
//!
//! - this file: what callers hold: [`Target`], [`Push`] and its [`Status`];
//! - [`supervise`]: waits for the stream, connects, and comes back after failures;
//! - [`sender`]: one connection to the server.
//!
//! Refuses: rtmps (not yet), redirects to other hosts, and to show a stream key to anybody but the server.

mod sender;
mod supervise;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use patchbay_bus::{StreamName, now};
use patchbay_contract::Hub;
use patchbay_media::MediaTime;
use patchbay_outbound::Policy;
use patchbay_rules::EndpointKind;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::proto::url::{RtmpUrl, UrlError};

/// Why a string is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No RTMP URL.
    #[error("{0}; expected rtmp://HOST[:PORT]/APP/STREAM")]
    Url(#[from] UrlError),
    /// RTMP over TLS.
    #[error("rtmps:// is not supported yet; use rtmp://")]
    Tls,
}

/// Where to push.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(RtmpUrl);

impl Target {
    /// Parses `rtmp://HOST[:PORT]/APP/STREAM[?QUERY]`.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let url = RtmpUrl::parse(text)?;
        if url.tls { Err(TargetError::Tls) } else { Ok(Self(url)) }
    }
}

impl Target {
    /// Host and port that are dialled.
    pub fn host(&self) -> (&str, u16) {
        (&self.0.host, self.0.port)
    }

    /// A server's words may repeat the stream's name, which is the key. What is shorter than a key can be is left alone.
    fn conceal(&self, words: &str) -> String {
        const KEY_MIN: usize = 6;
        let key = self.0.stream.split('?').next().unwrap_or_default();
        let secrets = [self.0.stream.as_str(), key].into_iter().filter(|secret| secret.len() >= KEY_MIN);
        secrets.fold(words.to_owned(), |words, secret| words.replace(secret, "***"))
    }
}

impl fmt::Display for Target {
    /// Without the stream key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/***", self.0.tc_url)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a push goes, and which hosts it may dial.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The server.
    pub target: Target,
    /// Which hosts may be dialled.
    pub policy: Policy,
}

/// What a push does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The stream is not live.
    Waiting,
    /// Dialling the server, or asking it.
    Connecting,
    /// Sending.
    Live,
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
}

/// The status, written by the task and read by all.
#[derive(Clone)]
struct Board {
    status: Arc<Mutex<Status>>,
    stream: StreamName,
    target: Target,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State, detail: impl ToString) {
        let detail = self.target.conceal(&detail.to_string());
        let mut status = self.lock();
        if (status.state, &status.detail) == (state, &detail) {
            return;
        }
        status.connects += u64::from(state == State::Live);
        (status.state, status.since) = (state, now());
        tracing::info!(stream = %self.stream, target = %self.target, state = state.as_str(), detail = %detail, "push");
        status.detail = detail;
    }
}

/// A push that runs until it is dropped.
pub struct Push {
    target: Target,
    board: Board,
    /// Stops the task.
    _stop: DropGuard,
}

impl Push {
    /// Starts to push `stream`, as a sink of `kind`, whenever it is live.
    pub fn start(hub: Arc<dyn Hub>, stream: StreamName, kind: EndpointKind, to: Destination) -> Self {
        let status = Status { state: State::Waiting, detail: String::new(), since: now(), connects: 0 };
        let board = Board { status: Arc::new(Mutex::new(status)), stream, target: to.target.clone() };
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise::run(hub, kind, to.clone(), board.clone(), stop.clone()));
        let last = board.clone();
        tokio::spawn(async move {
            // Also when the task panicked: nobody may take a dead push for a live one.
            let detail = if task.await.is_ok() { "" } else { "a fault of patchbay; the log has more" };
            last.set(State::Stopped, detail);
        });
        Self { target: to.target, board, _stop: stop.drop_guard() }
    }

    /// What it does now.
    pub fn status(&self) -> Status {
        self.board.lock().clone()
    }

    /// Where it goes.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hide_their_key() {
        let target = Target::parse("rtmp://cdn.example.org:1936/live/secret?txSecret=abc").unwrap();
        assert_eq!(format!("{target} {target:?}"), "rtmp://cdn.example.org:1936/live/*** rtmp://cdn.example.org:1936/live/***");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_by_name() {
        assert_eq!(Target::parse("rtmps://h/live/a"), Err(TargetError::Tls));
        assert_eq!(Target::parse("rtmp://h/live").unwrap_err().to_string(), "no stream name; expected rtmp://HOST[:PORT]/APP/STREAM");
    }
}

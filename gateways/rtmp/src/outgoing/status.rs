//! [`Status`]: what others see of a push or a pull; [`Board`], where its task writes that; [`Task`], which ends when it is dropped.

use std::sync::Arc;
use std::time::Duration;

use patchbay_bus::{StreamName, now};
use patchbay_media::MediaTime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pauses::GOOD;
use super::{Destination, Failure, Target};

/// Failures in a row after which the other server is tried.
const FAILURES_MAX: u32 = 3;

/// What a push or a pull does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A push: the stream is not live.
    Waiting,
    /// Dialling the server, or asking it.
    Connecting,
    /// Sending, or receiving.
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

/// A push or a pull as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it does now.
    pub state: State,
    /// Why, in the server's or our words; may be empty.
    pub detail: String,
    /// Of a push: what services usually ask for and the stream does not give.
    pub advice: Vec<String>,
    /// Since when, bus time.
    pub since: MediaTime,
    /// How often the server said yes.
    pub connects: u64,
    /// How often in a row it failed.
    pub failures: u32,
    /// Whether it goes to the backup.
    pub on_backup: bool,
    /// Where the server that is configured has sent this connection.
    pub(crate) announced: Option<Target>,
    /// When the primary is tried again, while it does.
    pub(crate) back_at: Option<Instant>,
    /// Since when the stream runs over this connection.
    up_since: Option<Instant>,
}

impl Status {
    fn new() -> Self {
        Self {
            state: State::Waiting,
            detail: String::new(),
            advice: Vec::new(),
            since: now(),
            connects: 0,
            failures: 0,
            on_backup: false,
            announced: None,
            back_at: None,
            up_since: None,
        }
    }

    /// The server that is dialled now.
    fn target<'a>(&'a self, to: &'a Destination) -> &'a Target {
        self.announced.as_ref().unwrap_or(to.of(self.on_backup))
    }
}

/// The status, written by the task and read by all.
#[derive(Clone)]
pub(crate) struct Board {
    /// `push` or `pull`, for the log.
    what: &'static str,
    status: Arc<watch::Sender<Status>>,
    pub(crate) stream: StreamName,
    pub(crate) to: Arc<Destination>,
}

impl Board {
    fn new(what: &'static str, stream: StreamName, to: Destination) -> Self {
        Self { what, status: Arc::new(watch::Sender::new(Status::new())), stream, to: Arc::new(to) }
    }

    /// What it says now.
    pub(crate) fn read(&self) -> watch::Ref<'_, Status> {
        self.status.borrow()
    }

    /// What it says from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The server that is dialled where nobody sends us elsewhere.
    pub(crate) fn configured(&self) -> &Target {
        let on_backup = self.read().on_backup;
        self.to.of(on_backup)
    }

    /// The server that is dialled now.
    pub(crate) fn target(&self) -> Target {
        self.read().target(&self.to).clone()
    }

    /// Goes to where a server sent us, this once; `None`: to the one that is configured. Returns which that is.
    pub(crate) fn head_for(&self, announced: Option<Target>) -> Target {
        self.edit(|status| status.announced = announced);
        self.target()
    }

    pub(crate) fn edit(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    pub(crate) fn set(&self, state: State, detail: impl ToString) {
        let detail = self.to.conceal(&detail.to_string());
        self.status.send_if_modified(|status| {
            if (status.state, &status.detail) == (state, &detail) {
                return false;
            }
            let target = status.target(&self.to);
            tracing::info!(stream = %self.stream, %target, state = state.as_str(), detail = %detail, "{}", self.what);
            if state != status.state {
                (status.state, status.since) = (state, now());
            }
            status.detail = detail;
            true
        });
    }

    /// Says what is to be said of the stream from now on.
    pub(crate) fn advise(&self, advice: Vec<String>) {
        let target = self.target();
        for advice in &advice {
            tracing::info!(stream = %self.stream, %target, %advice, "{}", self.what);
        }
        self.edit(|status| status.advice = advice);
    }

    /// A connection is tried.
    pub(crate) fn connecting(&self) {
        self.edit(|status| status.up_since = None);
        self.set(State::Connecting, "");
    }

    /// Whether the connection that failed was a good one: then the failures before it count no more.
    pub(crate) fn was_good(&self, failure: &Failure) -> bool {
        let up = self.read().up_since.map_or(Duration::ZERO, |at| at.elapsed());
        // The time in which nothing came or went any more was no good one.
        let good = up.saturating_sub(failure.silence()) > GOOD;
        if good {
            self.edit(|status| status.failures = 0);
        }
        good
    }

    /// Counts a failure, and goes over to the other server when there were too many in a row.
    pub(crate) fn failed(&self) {
        self.edit(|status| {
            status.failures = status.failures.saturating_add(1);
            if self.to.backup.is_some() && status.failures.is_multiple_of(FAILURES_MAX) {
                status.on_backup = !status.on_backup;
                // However often the backup is connected to in the meantime.
                status.back_at = status.on_backup.then(|| Instant::now() + self.to.backup_hold);
            }
        });
    }

    /// The server said yes, and the stream runs.
    pub(crate) fn connected(&self) {
        self.edit(|status| {
            status.connects += 1;
            status.advice.clear();
            status.up_since = Some(Instant::now());
        });
        self.set(State::Live, "");
    }
}

/// What runs until this is dropped, and its board.
pub(crate) struct Task {
    pub(crate) board: Board,
    _stop: DropGuard,
}

impl Task {
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        what: &'static str,
        stream: StreamName,
        to: Destination,
        run: impl FnOnce(Board, CancellationToken) -> F,
    ) -> Self {
        let (board, stop) = (Board::new(what, stream, to), CancellationToken::new());
        let task = tokio::spawn(run(board.clone(), stop.clone()));
        let last = board.clone();
        tokio::spawn(async move {
            // Also when the task panicked: nobody may take what is dead for live.
            let detail = if task.await.is_ok() { "" } else { "a fault of patchbay; the log has more" };
            last.set(State::Stopped, detail);
        });
        Self { board, _stop: stop.drop_guard() }
    }

    /// The server that is dialled now.
    pub(crate) fn target(&self) -> Target {
        self.board.target()
    }
}

#[cfg(test)]
mod tests {
    use patchbay_outbound::Policy;

    use super::*;

    fn board() -> Board {
        let [primary, backup] = ["rtmp://a/live/key", "rtmp://b/live/key"].map(|url| Target::parse(url).unwrap());
        Board::new("push", "a".parse().unwrap(), Destination { backup: Some(backup), ..Destination::new(primary, Policy::ALL) })
    }

    fn fails(board: &Board, ran: Option<Duration>, failure: &Failure) -> bool {
        board.connecting();
        if let Some(ran) = ran {
            board.connected();
            board.edit(|status| status.up_since = Instant::now().checked_sub(ran));
        }
        let good = board.was_good(failure);
        board.failed();
        good
    }

    #[test]
    fn a_server_that_says_nothing_for_long_is_left_for_the_other() {
        let board = board();
        assert!(fails(&board, Some(2 * GOOD), &Failure::Closed));
        // Whatever the connection before it was.
        assert!(!fails(&board, None, &Failure::Silent));
        assert!(!board.read().on_backup);
        assert!(!fails(&board, None, &Failure::Silent));
        assert_eq!((board.read().failures, board.read().on_backup), (FAILURES_MAX, true));
    }

    #[test]
    fn only_the_time_in_which_the_stream_ran_counts() {
        let board = board();
        assert!(!fails(&board, Some(GOOD * 3 / 2), &Failure::Idle(GOOD)), "it said its tracks and no more");
        assert!(!fails(&board, Some(GOOD / 2), &Failure::Closed));
        assert_eq!(board.read().failures, 2);
        assert!(fails(&board, Some(GOOD * 5 / 2), &Failure::Idle(GOOD)));
        assert_eq!((board.read().failures, board.read().on_backup), (1, false));
    }
}

//! Pulling a stream from another RTMP server.
//!
//! - this file: what callers hold: [`Pull`];
//! - [`supervise`]: connects, and comes back after failures;
//! - [`receiver`]: feeds what the server sends to the bus, as a publisher's stream.

mod receiver;
mod supervise;

use std::sync::Arc;

use patchbay_bus::StreamName;
use patchbay_contract::Hub;
use tokio::sync::watch;

use crate::outgoing::Task;
pub use crate::outgoing::{Destination, State, Status, Target};

/// A pull that runs until it is dropped.
pub struct Pull(Task);

impl Pull {
    /// Starts to pull; what comes is published as `stream`.
    pub fn start(hub: Arc<dyn Hub>, stream: StreamName, from: Destination) -> Self {
        Self(Task::start("pull", stream, from, |board, stop| supervise::run(hub, board, stop)))
    }

    /// What it does now.
    pub fn status(&self) -> Status {
        self.0.board.read().clone()
    }

    /// What it does from now on.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.board.watch()
    }

    /// The server it comes from.
    pub fn source(&self) -> Target {
        self.0.target()
    }
}

//! Pushing a stream to another RTMP server.
//!
//! - this file: what callers hold: [`Push`];
//! - [`supervise`]: waits for the stream, connects, and comes back after failures;
//! - [`sender`]: sends to the server;
//! - [`advice`]: what services would like to be sent.

mod advice;
mod sender;
mod supervise;

use std::sync::Arc;

use patchbay_bus::StreamName;
use patchbay_contract::Hub;
use patchbay_rules::EndpointKind;

use crate::outgoing::Task;
pub use crate::outgoing::{Destination, Provider, Signer, State, Status, Target};

/// A push that runs until it is dropped.
pub struct Push(Task);

impl Push {
    /// Starts to push `stream`, as a sink of `kind`, whenever it is live.
    pub fn start(hub: Arc<dyn Hub>, stream: StreamName, kind: EndpointKind, to: Destination) -> Self {
        Self(Task::start("push", stream, to, |board, stop| supervise::run(hub, kind, board, stop)))
    }

    /// What it does now.
    pub fn status(&self) -> Status {
        self.0.board.read().clone()
    }

    /// Where it goes now.
    pub fn target(&self) -> Target {
        self.0.target()
    }
}

//! [`Lane`]: the socket of a viewer that keeps up, lent to its mux.
//!
//! Waking a task for every write costs more than the write. So a viewer that has everything lends its socket to the mux,
//! which writes each batch to all of them in one go. A socket that is full, or that its viewer wants for itself, goes
//! back. Refuses: to wait.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use patchbay_bus::{Signal, now};
use patchbay_contract::Counters;
use patchbay_media::MediaTime;
use tokio::net::TcpStream;

use super::ring::Batch;

/// What is lent.
pub(super) struct Lent {
    pub(super) stream: Arc<TcpStream>,
    /// Sequence number of the next batch.
    pub(super) next: u64,
    /// Version of the headers it was sent.
    pub(super) version: u64,
    /// Of the last frame that was written.
    pub(super) delivered: Option<MediaTime>,
    /// What the socket did not take; the viewer writes it before anything else.
    pub(super) rest: Bytes,
    /// The mux is done with it.
    returned: bool,
}

impl Lent {
    pub(super) fn new(stream: Arc<TcpStream>, next: u64, version: u64) -> Self {
        Self { stream, next, version, delivered: None, rest: Bytes::new(), returned: false }
    }

    /// Whether the whole batch went out.
    fn write(&mut self, seq: u64, batch: &Batch) -> bool {
        if self.next > seq {
            // It was lent after this batch, and has it.
            return true;
        }
        if self.next != seq || self.version != batch.version {
            return false;
        }
        let written = match self.stream.try_write(&batch.bytes) {
            Ok(written) => written,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            // The viewer's own next write meets the same error and ends the session.
            Err(_) => 0,
        };
        self.next += 1;
        self.delivered = Some(batch.dts);
        self.rest = batch.bytes.clone();
        self.rest.advance(written);
        self.rest.is_empty()
    }
}

/// A lent socket between its viewer and its mux.
pub(super) struct Lane {
    /// Contended only while the viewer takes it back; nothing waits in a write.
    lent: Mutex<Option<Lent>>,
    signal: Arc<Signal>,
    counters: Arc<Counters>,
}

impl Lane {
    pub(super) fn new(lent: Lent, signal: Arc<Signal>, counters: Arc<Counters>) -> Self {
        Self { lent: Mutex::new(Some(lent)), signal, counters }
    }

    fn lent(&self) -> MutexGuard<'_, Option<Lent>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a batch; `false` when the lane is the mux's no longer.
    pub(super) fn send(&self, seq: u64, batch: &Batch) -> bool {
        let mut guard = self.lent();
        let Some(lent) = guard.as_mut() else { return false };
        let before = lent.next;
        let whole = lent.write(seq, batch);
        if lent.next > before {
            self.counters.frame(batch.bytes.len(), (now() - batch.arrival).as_nanos());
            self.counters.frames.fetch_add(u64::from(batch.frames.saturating_sub(1)), Ordering::Relaxed);
        }
        if !whole {
            lent.returned = true;
            drop(guard);
            self.signal.notify();
        }
        whole
    }

    /// Gives it back.
    pub(super) fn give_back(&self) {
        if let Some(lent) = self.lent().as_mut() {
            lent.returned = true;
        }
        self.signal.notify();
    }

    /// Whether the mux gave it back.
    pub(super) fn is_returned(&self) -> bool {
        self.lent().as_ref().is_none_or(|lent| lent.returned)
    }

    /// Takes it back.
    pub(super) fn take(&self) -> Option<Lent> {
        self.lent().take()
    }
}

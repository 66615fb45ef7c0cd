//! Counters of both directions.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What happened in one direction. For TCP a packet is a piece as it was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectionStats {
    /// Packets that came in.
    pub received: u64,
    /// Bytes that came in.
    pub received_bytes: u64,
    /// Packets that were passed on, copies included.
    pub sent: u64,
    /// Bytes that were passed on.
    pub sent_bytes: u64,
    /// Packets lost by chance or in a stall.
    pub lost: u64,
    /// Packets that met a full queue.
    pub full: u64,
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that were overtaken.
    pub overtaken: u64,
    /// Packets the proxy had no room for, or the socket did not take: the test asked for more than this can do.
    pub overflowed: u64,
}

/// What happened in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Clients (UDP) or connections (TCP) so far.
    pub clients: u64,
    /// From the client to the server.
    pub up: DirectionStats,
    /// From the server to the client.
    pub down: DirectionStats,
}

#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) full: AtomicU64,
    pub(crate) duplicated: AtomicU64,
    pub(crate) overtaken: AtomicU64,
    pub(crate) overflowed: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) clients: AtomicU64,
    pub(crate) up: Direction,
    pub(crate) down: Direction,
}

pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Direction {
    pub(crate) fn came_in(&self, bytes: usize) {
        count(&self.received, 1);
        count(&self.received_bytes, bytes as u64);
    }

    pub(crate) fn went_out(&self, bytes: usize) {
        count(&self.sent, 1);
        count(&self.sent_bytes, bytes as u64);
    }

    fn read(&self) -> DirectionStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DirectionStats {
            received: get(&self.received),
            received_bytes: get(&self.received_bytes),
            sent: get(&self.sent),
            sent_bytes: get(&self.sent_bytes),
            lost: get(&self.lost),
            full: get(&self.full),
            duplicated: get(&self.duplicated),
            overtaken: get(&self.overtaken),
            overflowed: get(&self.overflowed),
        }
    }
}

impl Counters {
    pub(crate) fn read(&self) -> Stats {
        Stats { clients: self.clients.load(Ordering::Relaxed), up: self.up.read(), down: self.down.read() }
    }
}

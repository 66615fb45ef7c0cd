//! From packets to the pictures that a decoder could show.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a missing packet is waited for; it may be sent again.
const PATIENCE: Duration = Duration::from_millis(500);
/// As many packets are kept behind a missing one.
const PENDING_MAX: usize = 2_048;
/// Nothing was lost here: the sender counts from somewhere else.
const JUMP: u64 = 10_000;

pub struct Packet {
    /// The last one of its picture.
    pub ends_picture: bool,
    /// The first one of a key frame.
    pub begins_key: bool,
    /// Of its picture, milliseconds.
    pub stamp_ms: f64,
    /// The sender's clock, seconds.
    pub clock: Option<f64>,
}

/// Puts packets in order. A picture counts when all of it has come, and all since a key frame.
#[derive(Default)]
pub struct Pictures {
    next: Option<u64>,
    pending: BTreeMap<u64, Packet>,
    waiting_since: Option<Instant>,
    /// Packets of the picture that is being put together are missing.
    broken: bool,
    /// A key frame is being put together.
    key: bool,
    decodable: bool,
}

impl Pictures {
    /// Takes a packet; `shown` is called with the last packet of each picture that is whole then.
    pub fn push(&mut self, number: u64, packet: Packet, mut shown: impl FnMut(Packet)) {
        let next = *self.next.get_or_insert(number);
        if number.abs_diff(next) > JUMP {
            *self = Self { next: Some(number), ..Self::default() };
        } else if number < next {
            return;
        }
        self.pending.insert(number, packet);
        self.drain(&mut shown);
        while self.gives_up() {
            self.next = self.pending.keys().next().copied();
            self.waiting_since = None;
            self.broken = true;
            self.decodable = false;
            self.drain(&mut shown);
        }
    }

    /// Whether a key frame would help.
    pub fn is_stuck(&self) -> bool {
        self.next.is_some() && !self.decodable
    }

    /// Whether what is missing is not waited for any longer.
    fn gives_up(&mut self) -> bool {
        if self.pending.is_empty() {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        since.elapsed() > PATIENCE || self.pending.len() > PENDING_MAX
    }

    fn drain(&mut self, shown: &mut impl FnMut(Packet)) {
        while let Some(packet) = self.next.and_then(|next| self.pending.remove(&next)) {
            self.next = self.next.map(|next| next + 1);
            self.waiting_since = None;
            if packet.begins_key {
                (self.key, self.broken) = (true, false);
            }
            if !packet.ends_picture {
                continue;
            }
            self.decodable = !self.broken && (self.decodable || self.key);
            if self.decodable {
                shown(packet);
            }
            (self.key, self.broken) = (false, false);
        }
    }
}

/// Whether the payload (RFC 6184) begins with parameter sets, as key frames do here.
pub fn begins_key(payload: &[u8]) -> bool {
    let kind = |at: usize| payload.get(at).map(|byte| byte & 0x1f);
    match kind(0) {
        Some(7) => true,
        // STAP-A: a header, a length, a NAL unit.
        Some(24) => kind(3) == Some(7),
        _ => false,
    }
}

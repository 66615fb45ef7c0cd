//! [`Addresses`]: how much one source address may have at a time, and how fast it may come.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits, which is what one customer has at least. This machine is not
//! counted. Refuses: to remember more sources than its bound; those beyond are let in uncounted, and the limits on the whole
//! process hold for them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use patchbay_contract::{Code, Refusal};

/// Most sources that are remembered.
const SOURCES_MAX: usize = 1 << 16;
/// How often they are looked through for those that can be forgotten, when there are so many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Seconds' worth of new sessions that may come at once.
const BURST_S: f64 = 5.0;

/// What one source may have; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerAddress {
    /// Sessions at a time.
    pub sessions_max: u32,
    /// Connections at a time that have not asked for anything yet.
    pub half_open_max: u32,
    /// New sessions per second.
    pub new_per_s: u32,
}

/// An address as it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(peer: SocketAddr) -> Option<Self> {
        let ip = match peer.ip().to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
            ip => ip,
        };
        // The network of ::1 is that of nobody else.
        (!peer.ip().to_canonical().is_loopback()).then_some(Self(ip))
    }
}

/// What a place is taken for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Session,
    HalfOpen,
}

struct Entry {
    sessions: u32,
    half_open: u32,
    /// New sessions that the rate has not made up for, at `at`.
    debt: f64,
    at: Instant,
}

impl Entry {
    fn count(&mut self, what: Use) -> &mut u32 {
        match what {
            Use::Session => &mut self.sessions,
            Use::HalfOpen => &mut self.half_open,
        }
    }

    /// Lets time pay for what came.
    fn settle(&mut self, rate: f64, now: Instant) {
        let paid = rate * now.saturating_duration_since(self.at).as_secs_f64();
        // Without a rate nothing is owed.
        self.debt = if rate > 0.0 { (self.debt - paid).max(0.0) } else { 0.0 };
        self.at = now;
    }

    fn is_idle(&self) -> bool {
        self.sessions == 0 && self.half_open == 0
    }
}

#[derive(Default)]
struct Table {
    entries: HashMap<Source, Entry>,
    swept: Option<Instant>,
}

/// All sources.
#[derive(Default)]
pub struct Addresses(Mutex<Table>);

impl Addresses {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session of `peer`.
    pub fn begin(self: &Arc<Self>, limits: PerAddress, peer: SocketAddr, now: Instant) -> Result<Option<Seat>, Refusal> {
        self.take(Use::Session, limits, peer, now)
    }

    /// A new connection of `peer`, which may become a session.
    pub fn connect(self: &Arc<Self>, limits: PerAddress, peer: SocketAddr, now: Instant) -> Result<Option<Seat>, Refusal> {
        self.take(Use::HalfOpen, limits, peer, now)
    }

    fn take(self: &Arc<Self>, what: Use, limits: PerAddress, peer: SocketAddr, now: Instant) -> Result<Option<Seat>, Refusal> {
        let Some(source) = Source::of(peer) else { return Ok(None) };
        let mut table = self.table();
        let Some(entry) = table.entry(source, limits, now) else { return Ok(None) };
        let (max, key) = match what {
            Use::Session => (limits.sessions_max, "sessions at a time (limits.per_address_sessions_max)"),
            Use::HalfOpen => (limits.half_open_max, "connections that have asked for nothing yet (limits.per_address_half_open_max)"),
        };
        if what == Use::Session && limits.new_per_s > 0 {
            let rate = f64::from(limits.new_per_s);
            entry.settle(rate, now);
            if entry.debt + 1.0 > rate * BURST_S {
                return Err(too_many(limits.new_per_s, "new sessions per second (limits.per_address_new_per_s)"));
            }
            // Also for a session that is refused later: who guesses keys comes no faster.
            entry.debt += 1.0;
        }
        if max > 0 && *entry.count(what) >= max {
            return Err(too_many(max, key));
        }
        *entry.count(what) += 1;
        Ok(Some(Seat { addresses: self.clone(), source, what }))
    }
}

impl Table {
    /// The entry of a source; `None` when no more can be remembered.
    fn entry(&mut self, source: Source, limits: PerAddress, now: Instant) -> Option<&mut Entry> {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY);
        if self.entries.len() >= SOURCES_MAX && is_due && !self.entries.contains_key(&source) {
            self.swept = Some(now);
            self.entries.retain(|_, entry| {
                entry.settle(limits.new_per_s.into(), now);
                !entry.is_idle() || entry.debt > 0.0
            });
        }
        if self.entries.len() >= SOURCES_MAX && !self.entries.contains_key(&source) {
            return None;
        }
        Some(self.entries.entry(source).or_insert(Entry { sessions: 0, half_open: 0, debt: 0.0, at: now }))
    }
}

fn too_many(limit: u32, of: &str) -> Refusal {
    Refusal::new(Code::AddressLimit, format!("your address may have {limit} {of}; try again in a moment"))
}

/// A place that a source takes; given back when this is dropped.
pub struct Seat {
    addresses: Arc<Addresses>,
    source: Source,
    what: Use,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.addresses.table();
        let Some(entry) = table.entries.get_mut(&self.source) else { return };
        *entry.count(self.what) -= 1;
        // With no debt there is nothing to remember.
        if entry.is_idle() && entry.debt == 0.0 {
            table.entries.remove(&self.source);
        }
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seat")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PerAddress = PerAddress { sessions_max: 3, half_open_max: 2, new_per_s: 2 };
    const UNPACED: PerAddress = PerAddress { new_per_s: 0, ..LIMITS };

    fn peer(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 9)
    }

    fn seats(all: &Arc<Addresses>, limits: PerAddress, ips: &[&str], now: Instant) -> Vec<Seat> {
        ips.iter().filter_map(|ip| all.begin(limits, peer(ip), now).ok().flatten()).collect()
    }

    #[test]
    fn a_source_has_so_many_sessions_and_others_have_theirs() {
        let (all, now) = (Arc::new(Addresses::default()), Instant::now());
        let mut held = seats(&all, UNPACED, &["192.0.2.1"; 9], now);
        assert_eq!(held.len(), 3);
        let refusal = all.begin(UNPACED, peer("::ffff:192.0.2.1"), now).unwrap_err();
        assert!(refusal.code == Code::AddressLimit && refusal.message.contains("per_address_sessions_max"), "{refusal}");
        assert_eq!(seats(&all, UNPACED, &["192.0.2.2"], now).len(), 1);
        held.pop();
        assert_eq!(seats(&all, UNPACED, &["192.0.2.1"], now).len(), 1);
        drop(held);
        assert!(all.table().entries.is_empty(), "nothing is left behind");
    }

    #[test]
    fn addresses_of_one_customer_are_one_source() {
        let (all, now) = (Arc::new(Addresses::default()), Instant::now());
        let same = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8:0:0:9::"];
        assert_eq!(seats(&all, UNPACED, &same, now).len(), 3);
        assert_eq!(seats(&all, UNPACED, &["2001:db8:0:1::1"; 2], now).len(), 2);
        assert!(all.begin(UNPACED, peer("::1"), now).unwrap().is_none() && all.begin(UNPACED, peer("127.0.0.9"), now).unwrap().is_none());
    }

    #[test]
    fn who_comes_too_fast_waits() {
        let (all, mut now) = (Arc::new(Addresses::default()), Instant::now());
        let mut come = |seconds: u64, times: usize| {
            now += Duration::from_secs(seconds);
            (0..times).filter(|_| all.begin(LIMITS, peer("192.0.2.1"), now).is_ok()).count()
        };
        assert_eq!(come(0, 50), 10, "five seconds' worth at once");
        assert_eq!(come(1, 50), 2);
        assert_eq!(come(100, 50), 10);
    }

    #[test]
    fn connections_are_counted_apart() {
        let (all, now) = (Arc::new(Addresses::default()), Instant::now());
        let held: Vec<_> = (0..5).filter_map(|_| all.connect(LIMITS, peer("192.0.2.1"), now).ok()).collect();
        assert_eq!(held.len(), 2);
        assert!(all.begin(LIMITS, peer("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let (all, now) = (Arc::new(Addresses::default()), Instant::now());
        let ip = |n: u32| SocketAddr::new(IpAddr::V4(n.into()), 9);
        for n in 0..SOURCES_MAX as u32 + 1_000 {
            drop(all.begin(LIMITS, ip(0x0100_0000 + n), now).unwrap());
        }
        assert_eq!(all.table().entries.len(), SOURCES_MAX);
        assert!(all.begin(LIMITS, ip(0x0200_0000), now).unwrap().is_none(), "beyond the bound nobody is counted, nor kept out");
        assert!(all.begin(LIMITS, ip(0x0200_0000), now + SWEEP_EVERY).unwrap().is_some());
        assert_eq!(all.table().entries.len(), 1);
    }
}

//! [`HalfOpen`]: those who have connected and have not shown yet that they mean it. One too many costs somebody else its place:
//! the oldest of the address that has the most of them. Whoever means it is through within a few round trips, so a flood
//! keeps nobody out, least of all those at other addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::Place;

/// See the module.
pub struct HalfOpen {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// The oldest is first.
    by_age: BTreeMap<u64, (Option<IpAddr>, CancellationToken)>,
    /// How many each address has.
    counts: HashMap<Option<IpAddr>, usize>,
}

impl Waiting {
    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (address, lost) = self.by_age.remove(&number)?;
        if let Some(count) = self.counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
            }
        }
        Some(lost)
    }

    /// Who makes room.
    fn weakest(&self) -> Option<u64> {
        let most = self.counts.values().max()?;
        self.by_age.iter().find(|(_, (address, _))| self.counts.get(address) == Some(most)).map(|(number, _)| *number)
    }
}

/// One place; given back on drop.
pub struct HalfOpenPlace {
    owner: Arc<HalfOpen>,
    number: u64,
    lost: CancellationToken,
    /// What it takes up of what its address may have.
    held: Mutex<Option<Place>>,
}

impl HalfOpen {
    /// Room for `max`.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, waiting: Mutex::default() })
    }

    /// A place for somebody new, another one's if there is no other; `held` is given back with it.
    pub fn enter(self: &Arc<Self>, peer: Option<IpAddr>, held: Option<Place>) -> HalfOpenPlace {
        let lost = CancellationToken::new();
        let address = peer.map(network);
        let (number, weakest) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let number = waiting.next;
            waiting.next += 1;
            let weakest = if waiting.by_age.len() >= self.max { waiting.weakest() } else { None };
            let weakest = weakest.and_then(|number| waiting.remove(number));
            waiting.by_age.insert(number, (address, lost.clone()));
            *waiting.counts.entry(address).or_insert(0) += 1;
            (number, weakest)
        };
        if let Some(weakest) = weakest {
            weakest.cancel();
        }
        HalfOpenPlace { owner: self.clone(), number, lost, held: Mutex::new(held) }
    }
}

/// What counts as one address: a /64 network for IPv6, where a customer has no less (RFC 6177).
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

impl HalfOpenPlace {
    /// Makes it nobody else's any more: the peer means it. It counts for its address no longer.
    pub fn keep(&self) {
        self.owner.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(held);
    }

    /// Whether it is somebody else's.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until it is somebody else's.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for HalfOpenPlace {
    fn drop(&mut self) {
        self.keep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(all: &Arc<HalfOpen>, ip: &str) -> HalfOpenPlace {
        all.enter(Some(ip.parse().unwrap()), None)
    }

    #[test]
    fn the_oldest_of_the_address_that_has_the_most_makes_room() {
        let all = HalfOpen::new(4);
        let quiet = enter(&all, "192.0.2.1");
        let flood = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|ip| enter(&all, ip));
        let newcomer = enter(&all, "192.0.2.2");
        assert_eq!(flood.each_ref().map(HalfOpenPlace::is_lost), [true, false, false], "one /64 is one address");
        assert!(!quiet.is_lost() && !newcomer.is_lost());
    }

    #[test]
    fn among_equals_the_oldest_makes_room_and_what_is_kept_or_dropped_counts_no_longer() {
        let all = HalfOpen::new(2);
        let (first, second) = (enter(&all, "192.0.2.1"), enter(&all, "192.0.2.2"));
        first.keep();
        let third = enter(&all, "192.0.2.3");
        assert!(!first.is_lost() && !second.is_lost());
        drop(third);
        let _fourth = enter(&all, "192.0.2.4");
        assert!(!second.is_lost());
        let _fifth = enter(&all, "192.0.2.5");
        assert!(second.is_lost() && !first.is_lost());
    }

    #[test]
    fn what_is_held_is_given_back_by_whoever_means_it() {
        let seat = Arc::new(());
        let place = HalfOpen::new(1).enter(None, Some(Box::new(seat.clone())));
        assert_eq!(Arc::strong_count(&seat), 2);
        place.keep();
        assert_eq!(Arc::strong_count(&seat), 1);
    }
}

//! [`StunServer`]: tells whoever asks on the media port which address he is seen at (RFC 8489 §3, XOR-MAPPED-ADDRESS alone).
//!
//! An answer is at most 24 bytes longer than its request and goes to one address a few times a second only, so that nobody
//! gains by asking in another's name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use patchbay_contract::network;

use crate::stun::{self, MAGIC_COOKIE};

/// Answers to one address (one /64 network for IPv6) per window, by all workers together: ports spread an address over them.
const ANSWERS_MAX: u32 = 20;
/// Addresses that a worker answers per window.
const ADDRESSES_MAX: usize = 4_096;
const WINDOW: Duration = Duration::from_secs(1);

const SUCCESS: [u8; 2] = [1, 1];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0, 0x20];

/// See the module.
pub(crate) struct StunServer {
    /// Its share of the answers to one address.
    answers_max: u32,
    since: Instant,
    answered: HashMap<IpAddr, u32>,
}

impl StunServer {
    /// One of so many workers'.
    pub(crate) fn new(workers: usize, now: Instant) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        Self { answers_max: (ANSWERS_MAX / workers).max(1), since: now, answered: HashMap::new() }
    }

    /// What to send back, if anything.
    pub(crate) fn answer(&mut self, from: SocketAddr, datagram: &[u8], now: Instant) -> Option<Vec<u8>> {
        let transaction = stun::plain_request(datagram)?;
        self.has_room(network(from.ip()), now).then(|| response(transaction, from))
    }

    fn has_room(&mut self, address: IpAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= WINDOW {
            (self.since, self.answered) = (now, HashMap::new());
        }
        if self.answered.len() >= ADDRESSES_MAX && !self.answered.contains_key(&address) {
            return false;
        }
        let count = self.answered.entry(address).or_insert(0);
        *count = count.saturating_add(1);
        *count <= self.answers_max
    }
}

fn response(transaction: [u8; 12], from: SocketAddr) -> Vec<u8> {
    let mask = [&MAGIC_COOKIE[..], &transaction].concat();
    let (family, ip) = match from.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let masked = |bytes: &[u8]| bytes.iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>();
    let value = [&[0, family][..], &masked(&from.port().to_be_bytes()), &masked(&ip)].concat();
    // At most 20 bytes.
    let length = value.len() as u8;
    [&SUCCESS[..], &[0, length + 4], &mask, &XOR_MAPPED_ADDRESS, &[0, length], &value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.2: the vectors' transaction and addresses.
    const TRANSACTION: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request(attributes: &[u8]) -> Vec<u8> {
        [&[0, 1, 0, attributes.len() as u8][..], &MAGIC_COOKIE, &TRANSACTION, attributes].concat()
    }

    #[test]
    fn addresses_are_masked_as_in_the_vectors_of_rfc_5769() {
        let now = Instant::now();
        let mut server = StunServer::new(1, now);
        let v4 = server.answer("192.0.2.1:32853".parse().unwrap(), &request(&[]), now).unwrap();
        assert_eq!(v4[..4], [1, 1, 0, 12]);
        assert_eq!(v4[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let from = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        let v6 = server.answer(from, &request(&[]), now).unwrap();
        let address = [0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9];
        assert_eq!(v6[20..28], [0, 0x20, 0, 20, 0, 2, 0xa1, 0x47]);
        assert_eq!(v6[28..], address);
        assert_eq!(usize::from(v6[3]), v6.len() - 20);
    }

    #[test]
    fn only_plain_requests_are_answered() {
        let (now, from) = (Instant::now(), "192.0.2.1:1".parse().unwrap());
        let mut server = StunServer::new(1, now);
        let software = [0x80, 0x22, 0, 4, b't', b'e', b's', b't'];
        assert!(server.answer(from, &request(&software), now).is_some());
        let username = [0, 6, 0, 4, b'a', b':', b'b', b'c'];
        let mut response = request(&[]);
        response[0] = 1;
        for other in [request(&username), request(&[0, 3, 0, 4, 0, 0, 0, 6]), request(&software[..6]), response, vec![0; 20], Vec::new()] {
            assert_eq!(server.answer(from, &other, now), None, "{other:?}");
        }
    }

    #[test]
    fn one_address_gets_few_answers_per_second_and_many_addresses_cost_bounded_memory() {
        let now = Instant::now();
        let mut server = StunServer::new(1, now);
        let mut ask = |from: SocketAddr, at| server.answer(from, &request(&[]), at).is_some();
        let answered = (0..100).filter(|port| ask(SocketAddr::new([192, 0, 2, 1].into(), *port), now)).count();
        assert_eq!(answered, ANSWERS_MAX as usize);
        let others = (0..5_000_u32).filter(|n| ask(SocketAddr::new((n + (10 << 24)).to_be_bytes().into(), 1), now)).count();
        assert_eq!(others, ADDRESSES_MAX - 1);
        assert!(ask("192.0.2.1:1".parse().unwrap(), now + WINDOW));
    }

    #[test]
    fn workers_share_the_answers_to_an_address() {
        let (now, from) = (Instant::now(), "192.0.2.1:1".parse().unwrap());
        for (workers, answers) in [(1, 20), (2, 20), (8, 16), (64, 64)] {
            let mut servers: Vec<_> = (0..workers).map(|_| StunServer::new(workers, now)).collect();
            let answered = |server: &mut StunServer| (0..100).filter(|_| server.answer(from, &request(&[]), now).is_some()).count();
            assert_eq!(servers.iter_mut().map(answered).sum::<usize>(), answers, "{workers} workers");
        }
    }
}

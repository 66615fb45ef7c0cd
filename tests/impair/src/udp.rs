//! Datagrams: one task per client with a socket of its own towards the server.
//!
//! Bounds: [`CLIENTS_MAX`] clients, [`INBOX`] datagrams between the listener and a client's task, [`ON_THE_WAY`] datagrams on
//! the way in each direction. What is beyond is dropped and counted as overflowed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::proxy::Common;
use crate::stats::{Direction, count};
use crate::{Fate, Link, Profile};

const CLIENTS_MAX: usize = 4_096;
const INBOX: usize = 1_024;
const ON_THE_WAY: usize = 16_384;
/// A client that is silent both ways for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
const DATAGRAM_MAX: usize = 65_536;

/// Receives from all clients and hands over to their tasks.
pub(crate) async fn run(socket: UdpSocket, common: Common) {
    let socket = Arc::new(socket);
    let mut inboxes: HashMap<SocketAddr, mpsc::Sender<Bytes>> = HashMap::new();
    let mut clients = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut number = 0;
    loop {
        // An error here is the answer to an earlier send (ICMP): nothing to do about it.
        let Ok((len, from)) = socket.recv_from(&mut buffer).await else { continue };
        common.counters.up.came_in(len);
        while clients.try_join_next().is_some() {}
        inboxes.retain(|_, inbox| !inbox.is_closed());
        if !inboxes.contains_key(&from) {
            if inboxes.len() >= CLIENTS_MAX {
                count(&common.counters.up.overflowed, 1);
                continue;
            }
            let (inbox, datagrams) = mpsc::channel(INBOX);
            inboxes.insert(from, inbox);
            count(&common.counters.clients, 1);
            clients.spawn(Client::run(from, number, socket.clone(), common.clone(), datagrams));
            number += 1;
        }
        if inboxes[&from].try_send(Bytes::copy_from_slice(&buffer[..len])).is_err() {
            count(&common.counters.up.overflowed, 1);
        }
    }
}

struct Client {
    common: Common,
    up: Way,
    down: Way,
}

impl Client {
    async fn run(addr: SocketAddr, number: u64, listener: Arc<UdpSocket>, common: Common, mut inbox: mpsc::Receiver<Bytes>) {
        let [up, down] = common.seeds(number).map(Way::new);
        let mut client = Self { common, up, down };
        // Without a socket towards the server the client is forgotten, and tries again with its next datagram.
        while let Ok(upstream) = connect(client.common.target).await {
            if !client.serve(addr, &listener, &upstream, &mut inbox).await {
                break;
            }
        }
    }

    /// Carries datagrams; `true` when it is to go on from another port.
    async fn serve(&mut self, addr: SocketAddr, listener: &UdpSocket, upstream: &UdpSocket, inbox: &mut mpsc::Receiver<Bytes>) -> bool {
        let mut buffer = vec![0; DATAGRAM_MAX];
        let counters = self.common.counters.clone();
        let breaks = self.common.orders.borrow_and_update().breaks;
        let mut heard = self.common.now();
        loop {
            let due = self.up.due().min(self.down.due()).min(heard + IDLE);
            tokio::select! {
                changed = self.common.orders.changed() => match changed {
                    Ok(()) if self.common.orders.borrow().breaks != breaks => return true,
                    Ok(()) => {}
                    Err(_) => return false,
                },
                datagram = inbox.recv() => {
                    let Some(datagram) = datagram else { return false };
                    heard = self.common.now();
                    let profile = self.common.orders.borrow().setting.up;
                    self.up.take(&profile, heard, datagram, &counters.up);
                }
                received = upstream.recv(&mut buffer) => {
                    let Ok(len) = received else { continue };
                    counters.down.came_in(len);
                    heard = self.common.now();
                    let profile = self.common.orders.borrow().setting.down;
                    self.down.take(&profile, heard, Bytes::copy_from_slice(&buffer[..len]), &counters.down);
                }
                () = tokio::time::sleep_until(self.common.begin + due) => {}
            }
            let now = self.common.now();
            while let Some(datagram) = self.up.arrived(now) {
                sent(upstream.send(&datagram).await, &counters.up);
            }
            while let Some(datagram) = self.down.arrived(now) {
                sent(listener.send_to(&datagram, addr).await, &counters.down);
            }
            if now >= heard + IDLE {
                return false;
            }
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket)
}

fn sent(result: io::Result<usize>, direction: &Direction) {
    match result {
        Ok(len) => direction.went_out(len),
        Err(_) => count(&direction.overflowed, 1),
    }
}

/// One direction: the link and what is on the way over it.
struct Way {
    link: Link,
    /// By time of arrival; datagrams of one time in the order in which they were sent.
    pending: BinaryHeap<Reverse<(Duration, u64, Bytes)>>,
    taken: u64,
}

impl Way {
    fn new(seed: u64) -> Self {
        Self { link: Link::new(seed), pending: BinaryHeap::new(), taken: 0 }
    }

    fn take(&mut self, profile: &Profile, now: Duration, datagram: Bytes, direction: &Direction) {
        match self.link.send(profile, now, datagram.len()) {
            Fate::Lost => count(&direction.lost, 1),
            Fate::Full => count(&direction.full, 1),
            Fate::Arrives { .. } if self.pending.len() >= ON_THE_WAY => count(&direction.overflowed, 1),
            Fate::Arrives { at, again, overtaken } => {
                count(&direction.overtaken, u64::from(overtaken));
                if let Some(again) = again {
                    count(&direction.duplicated, 1);
                    self.push(again, datagram.clone());
                }
                self.push(at, datagram);
            }
        }
    }

    fn push(&mut self, at: Duration, datagram: Bytes) {
        self.taken += 1;
        self.pending.push(Reverse((at, self.taken, datagram)));
    }

    fn due(&self) -> Duration {
        self.pending.peek().map_or(Duration::MAX, |Reverse((at, ..))| *at)
    }

    fn arrived(&mut self, now: Duration) -> Option<Bytes> {
        (self.due() <= now).then(|| self.pending.pop()).flatten().map(|Reverse((.., datagram))| datagram)
    }
}

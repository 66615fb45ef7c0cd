//! The handle: starts, changes and stops a proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::stats::Counters;
use crate::{Action, Profile, Schedule, Stats, tcp, udp};

/// Both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Setting {
    /// From the client to the server.
    pub up: Profile,
    /// From the server to the client.
    pub down: Profile,
}

impl Setting {
    /// The same either way.
    pub fn both(profile: Profile) -> Self {
        Self { up: profile, down: profile }
    }
}

/// What the tasks follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders {
    pub(crate) setting: Setting,
    /// Counts up when TCP connections are to be reset and UDP clients are to come from another port.
    pub(crate) breaks: u64,
}

/// What every task of a proxy has.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) target: SocketAddr,
    pub(crate) seed: u64,
    pub(crate) begin: Instant,
    pub(crate) counters: Arc<Counters>,
    pub(crate) orders: watch::Receiver<Orders>,
}

impl Common {
    /// Time on the clock of the links.
    pub(crate) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The seeds of the two directions of a client's path.
    pub(crate) fn seeds(&self, client: u64) -> [u64; 2] {
        // Odd multiples far apart: no client shares a sequence with another, nor with itself the other way.
        let own = self.seed.wrapping_add(client.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        [own, own ^ 0x5555_5555_5555_5555]
    }
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    counters: Arc<Counters>,
    orders: watch::Sender<Orders>,
    task: AbortHandle,
}

impl Proxy {
    /// Takes datagrams at `listen` and passes them to `target`, from another port for every client.
    pub async fn udp(listen: SocketAddr, target: SocketAddr, setting: Setting, seed: u64) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen).await?;
        let addr = socket.local_addr()?;
        Ok(Self::start(addr, target, setting, seed, |common| tokio::spawn(udp::run(socket, common)).abort_handle()))
    }

    /// Takes connections at `listen` and makes each one to `target`.
    pub async fn tcp(listen: SocketAddr, target: SocketAddr, setting: Setting, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        Ok(Self::start(addr, target, setting, seed, |common| tokio::spawn(tcp::run(listener, common)).abort_handle()))
    }

    fn start(addr: SocketAddr, target: SocketAddr, setting: Setting, seed: u64, run: impl FnOnce(Common) -> AbortHandle) -> Self {
        let counters = Arc::new(Counters::default());
        let (orders, followed) = watch::channel(Orders { setting, breaks: 0 });
        let common = Common { target, seed, begin: Instant::now(), counters: counters.clone(), orders: followed };
        Self { addr, counters, orders, task: run(common) }
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what the network does to what comes from now on.
    pub fn set(&self, setting: Setting) {
        self.orders.send_modify(|orders| orders.setting = setting);
    }

    /// Resets all TCP connections (RST); lets all UDP clients come from another port, as a NAT does that forgot them.
    pub fn break_all(&self) {
        self.orders.send_modify(|orders| orders.breaks += 1);
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.counters.read()
    }

    /// Carries out a schedule; returns after its last step.
    pub async fn follow(&self, schedule: &Schedule) {
        let begin = Instant::now();
        for (at, action) in &schedule.steps {
            tokio::time::sleep_until(begin + *at).await;
            match action {
                Action::Set(setting) => self.set(*setting),
                Action::Break => self.break_all(),
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The tasks of the clients belong to this one.
        self.task.abort();
    }
}

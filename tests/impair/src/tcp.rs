//! Streams: delay, rate, stall and reset. What is in front of the bottleneck beyond its queue stays with the sender.
//!
//! Bounds: [`CONNECTIONS_MAX`] connections, [`PIECES`] pieces of [`PIECE`] bytes on the way in each direction.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::proxy::{Common, Orders, Setting};
use crate::stats::{Counters, Direction, count};
use crate::{Link, Profile};

const CONNECTIONS_MAX: usize = 4_096;
const PIECE: usize = 4_096;
const PIECES: usize = 4_096;
const KERNEL_BUFFER: usize = 64 << 10;

/// Which way of a connection a pump carries.
#[derive(Clone, Copy)]
enum Towards {
    Server,
    Client,
}

impl Towards {
    fn profile(self, setting: &Setting) -> Profile {
        match self {
            Self::Server => setting.up,
            Self::Client => setting.down,
        }
    }

    fn direction(self, counters: &Counters) -> &Direction {
        match self {
            Self::Server => &counters.up,
            Self::Client => &counters.down,
        }
    }
}

pub(crate) async fn run(listener: TcpListener, common: Common) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors: the next one may find some.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            count(&common.counters.up.overflowed, 1);
            continue;
        }
        count(&common.counters.clients, 1);
        connections.spawn(connection(client, number, common.clone()));
        number += 1;
    }
}

async fn connection(mut client: TcpStream, number: u64, common: Common) {
    let Ok(mut server) = TcpStream::connect(common.target).await else {
        return reset(&client);
    };
    small_buffers(&client);
    small_buffers(&server);
    let [up, down] = common.seeds(number);
    let mut broken = common.orders.clone();
    let is_broken = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        // One side's end is passed on as such; the other may have more to say.
        let both = async {
            tokio::join!(
                Pump { towards: Towards::Server, common: common.clone() }.run(from_client, to_server, up),
                Pump { towards: Towards::Client, common: common.clone() }.run(from_server, to_client, down),
            )
        };
        let breaks = broken.borrow().breaks;
        tokio::select! {
            changed = broken.wait_for(|orders| orders.breaks != breaks) => changed.is_ok(),
            (up, down) = both => up.is_err() || down.is_err(),
        }
    };
    if is_broken {
        reset(&client);
        reset(&server);
    }
}

/// What the kernel holds waits in front of the bottleneck, too.
fn small_buffers(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // The model decides what waits, not Nagle. Where the kernel refuses, its defaults do.
    _ = socket.set_tcp_nodelay(true);
    _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    _ = socket.set_send_buffer_size(KERNEL_BUFFER);
}

/// Makes the coming close an RST.
fn reset(stream: &TcpStream) {
    _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

struct Pump {
    towards: Towards,
    common: Common,
}

impl Pump {
    async fn run(self, from: ReadHalf<'_>, to: WriteHalf<'_>, seed: u64) -> io::Result<()> {
        let (pieces, arriving) = mpsc::channel(PIECES);
        tokio::try_join!(self.take(from, pieces, seed), self.deliver(to, arriving)).map(|_| ())
    }

    async fn take(&self, mut from: ReadHalf<'_>, pieces: mpsc::Sender<(Duration, Bytes)>, seed: u64) -> io::Result<()> {
        let mut link = Link::new(seed);
        let mut orders = self.common.orders.clone();
        loop {
            let profile = self.open_profile(&mut orders).await;
            let backlog = link.backlog(self.common.now());
            if backlog > profile.queue {
                tokio::time::sleep(backlog - profile.queue).await;
                continue;
            }
            let mut piece = BytesMut::with_capacity(PIECE);
            if from.read_buf(&mut piece).await? == 0 {
                return Ok(());
            }
            self.direction().came_in(piece.len());
            let due = link.stream(&profile, self.common.now(), piece.len());
            if pieces.send((due, piece.freeze())).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn deliver(&self, mut to: WriteHalf<'_>, mut arriving: mpsc::Receiver<(Duration, Bytes)>) -> io::Result<()> {
        let mut orders = self.common.orders.clone();
        while let Some((due, piece)) = arriving.recv().await {
            tokio::time::sleep_until(self.common.begin + due).await;
            self.open_profile(&mut orders).await;
            to.write_all(&piece).await?;
            self.direction().went_out(piece.len());
        }
        to.shutdown().await
    }

    /// The profile of this direction, once it lets something through.
    async fn open_profile(&self, orders: &mut watch::Receiver<Orders>) -> Profile {
        loop {
            let profile = self.towards.profile(&orders.borrow_and_update().setting);
            // Without its handle the proxy is about to end.
            if !profile.stall || orders.changed().await.is_err() {
                return profile;
            }
        }
    }

    fn direction(&self) -> &Direction {
        self.towards.direction(&self.common.counters)
    }
}

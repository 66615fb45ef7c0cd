//! ICE-TCP (RFC 6544): one port with passive candidates, for peers whose UDP does not get through.
//!
//! Owns: accepting, reading and framing (RFC 4571), and how long a stranger may take. Refuses: to know what the datagrams mean,
//! but for the first one, which must say whose session it is for. They go to that session's worker, whose bounded mailbox makes
//! the peer wait; what goes out waits in its [`Connection`].

mod connection;
pub(crate) mod framing;
mod links;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use patchbay_contract::{HalfOpen, HalfOpenPlace};
use patchbay_inbound::port;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) use self::connection::Connection;
pub(crate) use self::links::Links;
use crate::directory::SessionKey;
use crate::stun;
use crate::worker::Shared;

/// How long a connection may take to its first valid check.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long connections may take to send the goodbyes of their sessions.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Read at once.
const CHUNK: usize = 8 << 10;
/// What may wait in the kernel besides what is on its way: it can no longer be left out.
const UNSENT_MAX: u32 = 32 << 10;

/// What a peer sent to its session.
pub(crate) struct Arrival {
    pub(crate) key: SessionKey,
    pub(crate) connection: Arc<Connection>,
    pub(crate) payload: Payload,
}

pub(crate) enum Payload {
    /// Whole frames.
    Frames(Bytes),
    /// Nothing more comes.
    End,
}

/// Why a connection ends that its session did not close.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] framing::BadLength),
    #[error("the first datagram is no ICE check of a session here")]
    Stranger,
    #[error("no valid ICE check within {} s, or made room for others", PATIENCE.as_secs())]
    Unproved,
    #[error("the media worker has ended")]
    Stopping,
}

/// The bound port.
pub(crate) struct Listener(std::net::TcpListener);

impl Listener {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        port::open(address, true).map(Self)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves connections until `shutdown`; those of sessions end with them.
    pub(crate) async fn run(self, shared: Arc<Shared>, half_open_max: usize, shutdown: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(self.0)?;
        let half_open = HalfOpen::new(half_open_max);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                // No limit per address: a class behind one NAT connects at once, and `HalfOpen` is fair.
                (socket, remote) = port::accept(&listener) => {
                    let place = half_open.enter(Some(remote.ip()), None);
                    connections.spawn(serve(socket, remote, place, shared.clone()));
                }
            }
        }
        let all_gone = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GOODBYE_MAX, all_gone).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }
}

async fn serve(socket: TcpStream, remote: SocketAddr, place: HalfOpenPlace, shared: Arc<Shared>) {
    if let Err(fault) = exchange(&socket, remote, place, &shared).await {
        tracing::debug!(%remote, %fault, "connection ends");
    }
}

async fn exchange(socket: &TcpStream, remote: SocketAddr, place: HalfOpenPlace, shared: &Shared) -> Result<(), Fault> {
    // Comforts: a socket without them serves as well.
    _ = socket.set_nodelay(true);
    _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_MAX);
    let connection = Connection::new(remote, socket.local_addr()?);
    let mut owner = None;
    let ended = tokio::select! {
        read = read(socket, &connection, &mut owner, shared) => read,
        written = connection.write(socket) => written.map_err(Fault::from),
        fault = unproved(&connection, place) => Err(fault),
    };
    if let Some((worker, key)) = owner {
        // A worker that is gone has no session to be told.
        _ = shared.arrivals[worker].send(Arrival { key, connection, payload: Payload::End }).await;
    }
    ended
}

/// Ends when the connection has shown in time that it means it, which is never.
async fn unproved(connection: &Connection, place: HalfOpenPlace) -> Fault {
    let patience = async {
        tokio::select! {
            () = place.lost() => {}
            () = sleep(PATIENCE) => {}
        }
    };
    if !connection.is_proved_within(patience).await {
        return Fault::Unproved;
    }
    drop(place);
    std::future::pending().await
}

/// Hands on whole frames, as fast as the worker takes them.
async fn read(
    socket: &TcpStream,
    connection: &Arc<Connection>,
    owner: &mut Option<(usize, SessionKey)>,
    shared: &Shared,
) -> Result<(), Fault> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        socket.readable().await?;
        match socket.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e.into()),
        }
        let whole = framing::whole(&buffer)?;
        if whole == 0 {
            continue;
        }
        let frames = buffer.split_to(whole).freeze();
        let (worker, key) = match *owner {
            Some(owner) => owner,
            None => *owner.insert(find(&frames, shared).ok_or(Fault::Stranger)?),
        };
        let arrival = Arrival { key, connection: connection.clone(), payload: Payload::Frames(frames) };
        shared.arrivals[worker].send(arrival).await.map_err(|_| Fault::Stopping)?;
    }
}

/// Whose the first datagram is.
fn find(frames: &[u8], shared: &Shared) -> Option<(usize, SessionKey)> {
    let first = framing::datagrams(frames).next()?;
    shared.directory.by_ufrag(stun::local_ufrag(first)?)
}

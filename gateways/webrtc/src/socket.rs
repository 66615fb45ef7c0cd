//! One UDP socket per worker on the shared port: batched receive (recvmmsg, GRO), batched send (GSO).
//!
//! Owns: buffers and system calls. Refuses: to know what the bytes mean, and to wait: what the kernel does not take
//! at once is dropped and counted, because late media is worthless and senders of everything else repeat it.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::Interest;

/// Kernel buffers: 100 ms of 300 Mbit/s.
const KERNEL_BUFFER: usize = 4 << 20;
/// Room for one GRO message.
const GRO_BUFFER: usize = 65_536;
/// Most bytes of one GSO message, below the largest UDP payload.
const GSO_BYTES_MAX: usize = 60_000;

/// A bound socket that no worker has taken over yet.
pub(crate) struct Bound {
    socket: std::net::UdpSocket,
}

impl Bound {
    /// Binds `count` sockets to the same address. With port 0, all share the port the first one got.
    pub(crate) fn bind_all(listen: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        let mut out: Vec<Self> = Vec::with_capacity(count);
        for _ in 0..count {
            let address = out.first().map_or(Ok(listen), Self::local_addr)?;
            out.push(Self { socket: Self::bind(address, count > 1)? });
        }
        Ok(out)
    }

    fn bind(address: SocketAddr, shared: bool) -> io::Result<std::net::UdpSocket> {
        let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_port(shared)?;
        // The kernel clamps these to its limits without an error.
        let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
        let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Registers it with the runtime of the calling thread.
    pub(crate) fn open(self) -> io::Result<Socket> {
        let io = tokio::net::UdpSocket::from_std(self.socket)?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let segments_max = state.max_gso_segments();
        let local_ip = io.local_addr()?.ip();
        Ok(Socket { io, state, segments_max, local_ip })
    }
}

/// Where a datagram came from, and to which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    pub(crate) local: IpAddr,
}

/// A worker's socket.
pub(crate) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    segments_max: usize,
    local_ip: IpAddr,
}

/// One received batch.
pub(crate) struct Inbox {
    buffers: Vec<u8>,
    metas: Vec<RecvMeta>,
    filled: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { buffers: vec![0; GRO_BUFFER * BATCH_SIZE], metas: vec![RecvMeta::default(); BATCH_SIZE], filled: 0 }
    }

    /// The datagrams of the batch; `local_ip` stands in where the kernel did not say which address was meant.
    pub(crate) fn datagrams(&self, local_ip: IpAddr) -> impl Iterator<Item = (Path, &[u8])> {
        self.metas.iter().zip(self.buffers.chunks(GRO_BUFFER)).take(self.filled).flat_map(move |(meta, buffer)| {
            let path = Path { remote: meta.addr, local: meta.dst_ip.unwrap_or(local_ip) };
            buffer[..meta.len].chunks(meta.stride.max(1)).map(move |datagram| (path, datagram))
        })
    }
}

impl Socket {
    /// Waits until there is something to receive.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// The address it is bound to; may be the wildcard.
    pub(crate) fn local_ip(&self) -> IpAddr {
        self.local_ip
    }

    /// Receives one batch; `false` when there was nothing.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> bool {
        let Inbox { buffers, metas, filled } = inbox;
        let mut chunks = buffers.chunks_mut(GRO_BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = self.io.try_io(Interest::READABLE, || self.state.recv(UdpSockRef::from(&self.io), &mut slices, metas));
        // Errors of a UDP socket are about earlier sends (ICMP); the next call goes on.
        *filled = received.unwrap_or(0);
        *filled > 0
    }

    fn send(&self, path: Path, contents: &[u8], segment_size: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: path.remote,
            ecn: None,
            contents,
            segment_size: (contents.len() > segment_size).then_some(segment_size),
            src_ip: (!path.local.is_unspecified()).then_some(path.local),
        };
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }
}

/// Collects datagrams; neighbours of equal size to one destination leave as one message.
#[derive(Default)]
pub(crate) struct Outbox {
    arena: Vec<u8>,
    path: Option<Path>,
    segment: usize,
    closed: bool,
    /// Datagrams the kernel did not take.
    pub(crate) dropped: u64,
    /// Datagrams that a TCP connection had no room for.
    pub(crate) crowded: u64,
}

impl Outbox {
    /// Adds a datagram, sending what cannot share a message with it.
    pub(crate) fn push(&mut self, socket: &Socket, path: Path, datagram: &[u8]) {
        let joins = self.path == Some(path)
            && !self.closed
            && datagram.len() <= self.segment
            && self.arena.len() / self.segment.max(1) + 1 < socket.segments_max.min(64)
            && self.arena.len() + datagram.len() <= GSO_BYTES_MAX;
        if !joins {
            self.flush(socket);
            self.path = Some(path);
            self.segment = datagram.len();
        }
        // Only the last segment of a message may be shorter.
        self.closed = datagram.len() < self.segment;
        self.arena.extend_from_slice(datagram);
    }

    /// Sends what is left. Call it before waiting.
    pub(crate) fn flush(&mut self, socket: &Socket) {
        let Some(path) = self.path.take() else { return };
        if socket.send(path, &self.arena, self.segment).is_err() {
            self.dropped += self.arena.len().div_ceil(self.segment.max(1)) as u64;
        }
        self.arena.clear();
        self.closed = false;
    }
}

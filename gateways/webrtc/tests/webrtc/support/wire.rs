//! What carries a client's datagrams: UDP, or a TCP connection with frames of RFC 4571.
#![allow(dead_code, reason = "shared by tests, bench and example, each of which uses a part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use str0m::Candidate;
use str0m::net::{Protocol, TcpType};

pub enum Wire {
    Udp(UdpSocket),
    Tcp { socket: TcpStream, remote: SocketAddr, read: Vec<u8> },
}

impl Wire {
    pub fn udp() -> Self {
        Self::Udp(UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    /// Bound, so that it has an address to tell.
    pub fn tcp() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // What waits there cannot be left out any more; tests want to see what is.
        socket.set_recv_buffer_size(32 << 10).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        Self::Tcp { socket: socket.into(), remote: "0.0.0.0:0".parse().unwrap(), read: Vec::new() }
    }

    pub fn candidate(&self) -> Candidate {
        match self {
            Self::Udp(socket) => Candidate::host(socket.local_addr().unwrap(), "udp"),
            Self::Tcp { socket, .. } => Candidate::builder().tcp().host(socket.local_addr().unwrap()).tcptype(TcpType::Active).build(),
        }
        .unwrap()
    }

    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Udp(_) => Protocol::Udp,
            Self::Tcp { .. } => Protocol::Tcp,
        }
    }

    /// Connects to the passive candidate of an answer.
    pub fn connect(&mut self, answer: &str) {
        if let Self::Tcp { socket, remote, .. } = self {
            *remote = tcp_candidate(answer);
            let connecting = Socket::from(socket.try_clone().unwrap());
            connecting.connect(&(*remote).into()).unwrap();
        }
    }

    pub fn send(&mut self, datagram: &[u8], to: SocketAddr) {
        match self {
            Self::Udp(socket) => drop(socket.send_to(datagram, to)),
            Self::Tcp { socket, remote, .. } if *remote == to => {
                let length = (datagram.len() as u16).to_be_bytes();
                drop(socket.write_all(&[&length, datagram].concat()));
            }
            Self::Tcp { .. } => {}
        }
    }

    /// Waits so long for a datagram, or not at all.
    pub fn receive(&mut self, wait: Option<Duration>) -> Option<(Vec<u8>, SocketAddr)> {
        match self {
            Self::Udp(socket) => {
                socket.set_nonblocking(wait.is_none()).unwrap();
                socket.set_read_timeout(wait).unwrap();
                let mut buffer = [0; 2_000];
                let (n, source) = socket.recv_from(&mut buffer).ok()?;
                Some((buffer[..n].to_vec(), source))
            }
            Self::Tcp { socket, remote, read } => {
                let whole = |read: &[u8]| read.len() >= 2 && read.len() >= 2 + usize::from(u16::from_be_bytes([read[0], read[1]]));
                if !whole(read) {
                    socket.set_nonblocking(wait.is_none()).unwrap();
                    socket.set_read_timeout(wait).unwrap();
                    let mut buffer = [0; 20_000];
                    match socket.read(&mut buffer) {
                        Ok(n) => read.extend(&buffer[..n]),
                        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(_) => return None,
                    }
                }
                whole(read).then(|| {
                    let length = usize::from(u16::from_be_bytes([read[0], read[1]]));
                    (read.drain(..2 + length).skip(2).collect(), *remote)
                })
            }
        }
    }
}

/// Where an answer says that TCP is listened on.
pub fn tcp_candidate(answer: &str) -> SocketAddr {
    let line = answer.lines().find(|line| line.starts_with("a=candidate:") && line.contains(" typ host tcptype passive")).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!(words[2], "tcp", "{line}");
    SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap())
}

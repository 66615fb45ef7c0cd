//! One TCP port: opening it, and accepting whatever a single accept says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// Connections that may wait for their accept; the kernel caps it at its own limit. A peer beyond has to try again a second
/// later, and the 128 or so of a plain bind are there within milliseconds when many come at once.
const BACKLOG: i32 = 4_096;
/// How long to wait when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens a port, for [`TcpListener::from_std`]. `[::]` takes IPv4 too, as mapped addresses, unless `only_v6`.
///
/// # Errors
/// When it cannot be had.
pub fn open(address: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    // Else a server that starts again waits for the connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The next connection. Nothing is lost when this is dropped while it waits.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Of one connection, or out of descriptors: neither is a reason to stop listening.
                tracing::warn!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

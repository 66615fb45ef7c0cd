//! Writing to a peer that may be slow, and saying goodbye to one.
//!
//! Refuses: to wait for ever.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::time::Duration;

use bytes::{Buf, Bytes};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Most pieces of one system call.
const SLICES_MAX: usize = 64;
/// How long a peer may take to read our last words.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes that may wait in the kernel before they are sent. What waits there can no longer be skipped for a viewer that
/// lags, and without a bound it is megabytes: many seconds of a picture.
const UNSENT_MAX: u32 = 128 << 10;

/// Sets what every connection wants: no delay of small writes, little waiting in the kernel, and notice of peers that are
/// gone while nothing is sent.
pub(crate) fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
    let socket = SockRef::from(stream);
    // Comforts: a socket without them serves as well.
    _ = socket.set_tcp_nodelay(true);
    _ = socket.set_tcp_notsent_lowat(UNSENT_MAX);
    _ = socket.set_tcp_keepalive(&keepalive);
}

/// Writes everything; `ErrorKind::TimedOut` when the peer takes no byte for `stall`.
pub(crate) async fn write_all(stream: &TcpStream, pieces: &mut Vec<Bytes>, stall: Duration) -> io::Result<()> {
    let mut at = 0;
    while at < pieces.len() {
        let written = if let [one] = &pieces[at..] {
            stream.try_write(one)
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = slices.iter_mut().zip(&pieces[at..]).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            stream.try_write_vectored(&slices[..count])
        };
        match written {
            Ok(written) => at += consume(&mut pieces[at..], written),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                timeout(stall, stream.writable()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            Err(e) => return Err(e),
        }
    }
    pieces.clear();
    Ok(())
}

/// Takes `written` bytes off the front; returns how many pieces are done.
fn consume(pieces: &mut [Bytes], mut written: usize) -> usize {
    let mut done = 0;
    for piece in pieces {
        let step = written.min(piece.len());
        piece.advance(step);
        written -= step;
        if !piece.is_empty() {
            break;
        }
        done += 1;
    }
    done
}

/// Closes so that the peer can still read what was written: a socket closed with unread input is reset.
pub(crate) async fn close(stream: &TcpStream) {
    // Everything was written without a buffer of ours in between, so there is nothing to flush.
    _ = SockRef::from(stream).shutdown(Shutdown::Write);
    let mut scratch = [0; 4096];
    let drain = async {
        loop {
            match stream.readable().await.and_then(|()| stream.try_read(&mut scratch)) {
                Ok(0) => return,
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    };
    _ = timeout(GOODBYE, drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumed_pieces_are_counted_and_the_rest_is_kept() {
        let mut pieces = vec![Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"de"), Bytes::from_static(b"f")];
        assert_eq!(consume(&mut pieces, 4), 2);
        assert_eq!(pieces[2], "e");
        assert_eq!(consume(&mut pieces[2..], 2), 2);
    }
}

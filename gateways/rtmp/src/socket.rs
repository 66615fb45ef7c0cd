//! [`Socket`]: a connection with or without TLS; writing to a peer that may be slow, and saying goodbye to one.
//!
//! TLS lives between the session and the TCP socket, without a task or a pipe of its own: reading and writing here are
//! attempts, as on the socket below. Refuses: to wait for ever.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection as Tls, IoState, ServerConfig, ServerConnection};
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

/// A TCP connection, perhaps with TLS.
pub(crate) struct Socket {
    tcp: Arc<TcpStream>,
    /// Locked for single attempts only, never while something waits.
    tls: Option<Mutex<Tls>>,
    /// Bytes the kernel took.
    taken: AtomicU64,
}

/// The TCP socket as the TLS library reads and writes it.
struct Raw<'a>(&'a Socket);

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.tcp.try_read(buf)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.0.tcp.try_write(data)?;
        self.0.taken.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Without TLS.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        prepare(&tcp);
        Self { tcp: Arc::new(tcp), tls: None, taken: AtomicU64::new(0) }
    }

    /// The server's side of a TLS connection, once the handshake is done.
    pub(crate) async fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Self::with_tls(tcp, tls.into()).await
    }

    /// The client's side of a TLS connection to `host`, once the server has proved to be that.
    pub(crate) async fn connect(tcp: TcpStream, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Self::with_tls(tcp, tls.into()).await
    }

    async fn with_tls(tcp: TcpStream, tls: Tls) -> io::Result<Self> {
        prepare(&tcp);
        let this = Self { tcp: Arc::new(tcp), tls: Some(Mutex::new(tls)), taken: AtomicU64::new(0) };
        this.handshake().await?;
        Ok(this)
    }

    async fn handshake(&self) -> io::Result<()> {
        loop {
            let writes = {
                let Some(mut tls) = self.tls() else { return Ok(()) };
                match self.step(&mut tls) {
                    Ok(()) => return Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => tls.wants_write(),
                    Err(e) => return Err(e),
                }
            };
            if writes { self.tcp.writable().await? } else { self.tcp.readable().await? }
        }
    }

    /// As much of the handshake as can be done now.
    fn step(&self, tls: &mut Tls) -> io::Result<()> {
        loop {
            self.push_out(tls)?;
            if !tls.is_handshaking() {
                return Ok(());
            }
            if tls.read_tls(&mut Raw(self))? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.process(tls)?;
        }
    }

    fn tls(&self) -> Option<MutexGuard<'_, Tls>> {
        self.tls.as_ref().map(|tls| tls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bare socket, where nothing stands between it and the wire: it may be lent to whoever writes to many.
    pub(crate) fn lendable(&self) -> Option<Arc<TcpStream>> {
        self.tls.is_none().then(|| self.tcp.clone())
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Until there is something to read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        // What TLS has read ahead makes no socket readable; a broken record is met by the read.
        let has_news = |state: IoState| state.plaintext_bytes_to_read() > 0 || state.peer_has_closed();
        let ahead = self.tls().is_some_and(|mut tls| tls.process_new_packets().map_or(true, has_news));
        if ahead { Ok(()) } else { self.tcp.readable().await }
    }

    /// Reads what is there; 0 at the end.
    pub(crate) fn try_read_buf(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let Some(mut tls) = self.tls() else { return self.tcp.try_read_buf(buf) };
        loop {
            let mut reader = tls.reader();
            match reader.fill_buf() {
                Ok(chunk) => {
                    let size = chunk.len();
                    buf.extend_from_slice(chunk);
                    reader.consume(size);
                    return Ok(size);
                }
                // Many peers close without a farewell; every RTMP message has its length.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e),
                Err(_) => {}
            }
            if tls.read_tls(&mut Raw(self))? == 0 {
                return Ok(0);
            }
            self.process(&mut tls)?;
        }
    }

    fn process(&self, tls: &mut Tls) -> io::Result<()> {
        let result = tls.process_new_packets().map(drop).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
        // Answers of TLS itself, such as alerts; what does not go out now goes out with the next write.
        match self.push_out(tls) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => result.and(Err(e)),
            _ => result,
        }
    }

    /// Hands over what TLS has ready.
    fn push_out(&self, tls: &mut Tls) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut Raw(self))?;
        }
        Ok(())
    }

    fn try_write(&self, pieces: &[Bytes]) -> io::Result<usize> {
        if let Some(mut tls) = self.tls() {
            // Nothing is taken while something waits, so that what waits is bounded by the library's buffer.
            self.push_out(&mut tls)?;
            let written = pieces.first().map_or(Ok(0), |piece| tls.writer().write(piece))?;
            return match self.push_out(&mut tls) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
                _ => Ok(written),
            };
        }
        let written = if let [one] = pieces {
            self.tcp.try_write(one)?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            self.tcp.try_write_vectored(&slices[..count])?
        };
        self.taken.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    /// Hands over what waits in between; nothing does without TLS.
    fn try_flush(&self) -> io::Result<()> {
        self.tls().map_or(Ok(()), |mut tls| self.push_out(&mut tls))
    }

    /// Bytes the peer's kernel has acknowledged, and bytes it has not.
    pub(crate) fn acknowledged(&self) -> (u64, u64) {
        let mut queued: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as `tcp` is, and SIOCOUTQ (tcp(7), the same as TIOCOUTQ) writes one int.
        let done = unsafe { libc::ioctl(self.tcp.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
        let queued = if done == 0 { u64::try_from(queued).unwrap_or(0) } else { 0 };
        (self.taken.load(Ordering::Relaxed).saturating_sub(queued), queued)
    }
}

/// Sets what every connection wants: no delay of small writes, little waiting in the kernel, and notice of peers that are
/// gone while nothing is sent.
fn prepare(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)).with_retries(3);
    let socket = SockRef::from(stream);
    // Comforts: a socket without them serves as well.
    _ = socket.set_tcp_nodelay(true);
    _ = socket.set_tcp_notsent_lowat(UNSENT_MAX);
    _ = socket.set_tcp_keepalive(&keepalive);
}

/// Writes everything; `ErrorKind::TimedOut` when the peer takes no byte for `stall`.
pub(crate) async fn write_all(socket: &Socket, pieces: &mut Vec<Bytes>, stall: Duration) -> io::Result<()> {
    let mut at = 0;
    loop {
        let written = if at < pieces.len() { socket.try_write(&pieces[at..]).map(Some) } else { socket.try_flush().map(|()| None) };
        match written {
            Ok(Some(written)) => at += consume(&mut pieces[at..], written),
            Ok(None) => break,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                timeout(stall, socket.tcp.writable()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
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
pub(crate) async fn close(socket: &Socket) {
    if let Some(mut tls) = socket.tls() {
        tls.send_close_notify();
        // A farewell; a peer that takes no more bytes does without.
        _ = socket.push_out(&mut tls);
    }
    // Everything else was written without a buffer of ours in between, so there is nothing to flush.
    _ = SockRef::from(socket.tcp()).shutdown(Shutdown::Write);
    let mut scratch = [0; 4096];
    let drain = async {
        loop {
            match socket.tcp.readable().await.and_then(|()| socket.tcp.try_read(&mut scratch)) {
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

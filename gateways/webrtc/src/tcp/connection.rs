//! [`Connection`]: one TCP connection as its session sees it: where it leads, and the datagrams that wait for it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{GOODBYE_MAX, framing};

/// What media may make wait: about a quarter of a second of it. What comes later waits as frames, which can be left out whole.
const MEDIA_MAX: usize = 64 << 10;
/// What waits at most: the rest is for sound, checks and handshakes.
const QUEUE_MAX: usize = 96 << 10;
/// A peer that takes no byte for so long is gone.
const STALL: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Connection {
    pub(crate) remote: SocketAddr,
    /// Ours.
    pub(crate) local: SocketAddr,
    /// Frames.
    queue: Mutex<Vec<u8>>,
    /// Bytes that the kernel has not taken.
    unsent: AtomicUsize,
    /// Something was pushed since the last flush.
    pushed: AtomicBool,
    wake: Notify,
    proved: CancellationToken,
    closing: CancellationToken,
}

impl Connection {
    pub(crate) fn new(remote: SocketAddr, local: SocketAddr) -> Arc<Self> {
        let (queue, unsent, pushed, wake, proved, closing) = Default::default();
        Arc::new(Self { remote, local, queue, unsent, pushed, wake, proved, closing })
    }

    /// Makes a datagram wait for [`Self::flush`]; `false` when there is no room.
    pub(crate) fn push(&self, datagram: &[u8]) -> bool {
        if self.closing.is_cancelled() || self.unsent.load(Ordering::Relaxed) + datagram.len() > QUEUE_MAX {
            return false;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let before = queue.len();
        let taken = framing::append(&mut queue, datagram);
        self.unsent.fetch_add(queue.len() - before, Ordering::Relaxed);
        self.pushed.store(true, Ordering::Relaxed);
        taken
    }

    /// Lets what was pushed go.
    pub(crate) fn flush(&self) {
        if self.pushed.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// Bytes of media that may be made to wait now.
    pub(crate) fn room(&self) -> usize {
        MEDIA_MAX.saturating_sub(self.unsent.load(Ordering::Relaxed))
    }

    /// The peer at its other end is the session's.
    pub(crate) fn prove(&self) {
        self.proved.cancel();
    }

    /// Whether [`Self::prove`] was called before `patience` was over.
    pub(crate) async fn is_proved_within(&self, patience: impl Future<Output = ()>) -> bool {
        self.proved.run_until_cancelled(patience).await.is_none()
    }

    /// Ends it once what waits has gone, which is to be soon.
    pub(crate) fn close(&self) {
        self.closing.cancel();
        self.wake.notify_one();
    }

    /// Writes what is pushed, until it is closed.
    pub(super) async fn write(&self, socket: &TcpStream) -> io::Result<()> {
        let overdue = async {
            self.closing.cancelled().await;
            sleep(GOODBYE_MAX).await;
        };
        tokio::select! {
            written = self.write_batches(socket) => written,
            () = overdue => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn write_batches(&self, socket: &TcpStream) -> io::Result<()> {
        let mut batch = Vec::new();
        loop {
            self.wake.notified().await;
            // Before the queue is looked at: nothing is pushed after it.
            let closing = self.closing.is_cancelled();
            std::mem::swap(&mut batch, &mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
            self.write_all(socket, &batch).await?;
            batch.clear();
            if closing {
                return Ok(());
            }
        }
    }

    async fn write_all(&self, socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match socket.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    bytes = &bytes[n..];
                    self.unsent.fetch_sub(n, Ordering::Relaxed);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    timeout(STALL, socket.writable()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream, Arc<Connection>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, remote) = listener.accept().await.unwrap();
        let connection = Connection::new(remote, ours.local_addr().unwrap());
        (ours, peer, connection)
    }

    #[tokio::test]
    async fn what_was_pushed_leaves_in_order_and_then_it_closes() {
        let (ours, mut peer, connection) = pair().await;
        assert!(connection.push(b"one") && connection.push(b"two"));
        connection.close();
        assert!(!connection.push(b"three"));
        connection.write(&ours).await.unwrap();
        drop(ours);
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\0\x03one\0\x03two");
        assert_eq!(connection.room(), MEDIA_MAX);
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_costs_a_bounded_queue_and_little_time_after_the_end() {
        let (ours, _peer, connection) = pair().await;
        let mut write = std::pin::pin!(connection.write(&ours));
        let writer = async {
            while connection.room() > 0 || connection.push(&[0; 1_200]) {
                connection.push(&[0; 1_200]);
                connection.flush();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = writer => {}
            ended = &mut write => panic!("{ended:?}"),
        }
        assert_eq!(connection.room(), 0);
        let waiting = connection.unsent.load(Ordering::Relaxed);
        assert!((MEDIA_MAX..=QUEUE_MAX + 2).contains(&waiting), "{waiting}");
        connection.close();
        let ended = timeout(STALL / 2, write).await.expect("no stall is waited for");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn the_writer_is_woken_for_what_was_pushed_and_not_again() {
        let (_ours, _peer, connection) = pair().await;
        let is_woken = async || timeout(Duration::from_millis(10), connection.wake.notified()).await.is_ok();
        connection.flush();
        assert!(!is_woken().await);
        assert!(connection.push(b"one"));
        connection.flush();
        connection.flush();
        assert!(is_woken().await);
        connection.flush();
        assert!(!is_woken().await);
    }
}

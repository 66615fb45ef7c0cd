//! A viewer that costs nothing: opens a WebSocket of the H5 gateway and counts what comes.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::Patchbay;

/// Watches `/h5/{stream}` until it is dropped.
pub struct SocketViewer {
    bytes: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    socket: TcpStream,
}

impl SocketViewer {
    pub fn open(hub: &Patchbay, stream: &str) -> Self {
        let mut socket = TcpStream::connect(("127.0.0.1", hub.http)).expect("connected");
        // RFC 6455 §4.1: any sixteen bytes will do as a key.
        let request = format!(
            "GET /h5/{stream} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("asked");
        // Byte by byte, so that nothing of the first message is taken with it.
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).expect("answered");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{stream} can be watched: {}", String::from_utf8_lossy(&answer));
        let (bytes, closed): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (reader, writer) = (socket.try_clone().expect("a handle"), socket.try_clone().expect("another"));
        let (counted, over) = (bytes.clone(), closed.clone());
        std::thread::spawn(move || {
            let _ = watch(BufReader::new(reader), writer, &counted);
            over.store(true, Ordering::Relaxed);
        });
        Self { bytes, closed, socket }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    /// Waits until something more comes.
    #[track_caller]
    pub fn wait_for_more(&self) {
        let before = self.bytes();
        crate::support::wait_for("bytes for the viewer", Duration::from_secs(5), || (self.bytes() > before).then_some(()));
    }
}

/// Reads frames (RFC 6455 §5.2) to the end: counts what is binary, and answers pings, as every viewer does.
fn watch(mut reader: impl Read, mut writer: TcpStream, bytes: &AtomicU64) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let mut length = u64::from(head[1] & 0x7f);
        let extended = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if extended > 0 {
            let mut wide = [0; 8];
            reader.read_exact(&mut wide[8 - extended..])?;
            length = u64::from_be_bytes(wide);
        }
        let mut payload = vec![0; length as usize];
        reader.read_exact(&mut payload)?;
        match head[0] & 0xf {
            // A mask of zeros leaves the payload as it is.
            9 => writer.write_all(&[&[0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], &payload].concat())?,
            8 => return Ok(()),
            _ => _ = bytes.fetch_add(length, Ordering::Relaxed),
        }
    }
}

impl Drop for SocketViewer {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

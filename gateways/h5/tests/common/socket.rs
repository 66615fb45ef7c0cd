//! A bare WebSocket client (RFC 6455) that reads as fast or as slowly as it is told to, which libraries do not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub struct Socket {
    pub stream: TcpStream,
    /// What the server answered to the upgrade.
    pub head: String,
}

pub enum Message {
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Close,
}

impl Socket {
    /// Asks for an upgrade; `headers` end in CRLF each.
    pub async fn open(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let upgrade =
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}{headers}\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        Self { stream, head: String::from_utf8_lossy(&head).into_owned() }
    }

    /// The next message, whole; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        let opcode = self.stream.read_u8().await.ok()?;
        let len = match self.stream.read_u8().await.ok()? {
            126 => u64::from(self.stream.read_u16().await.ok()?),
            127 => self.stream.read_u64().await.ok()?,
            short => u64::from(short),
        };
        let mut payload = vec![0; len as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        match opcode {
            0x82 => Some(Message::Binary(payload)),
            0x89 => Some(Message::Ping(payload)),
            0x88 => Some(Message::Close),
            other => panic!("opcode {other:#x}: compressed, fragmented or text"),
        }
    }

    /// The next binary message; pings are answered as browsers do.
    pub async fn binary(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.next().await? {
                Message::Binary(bytes) => return Some(bytes),
                Message::Ping(payload) => self.send(0x8a, &payload).await,
                Message::Close => return None,
            }
        }
    }

    /// Everything until the end, or until nothing came for two seconds.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Some(bytes)) = timeout(Duration::from_secs(2), self.binary()).await {
            all.extend(bytes);
        }
        all
    }

    /// Sends one frame; the mask is zero.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![opcode];
        match u16::try_from(payload.len()) {
            Ok(short @ ..126) => frame.push(0x80 | short as u8),
            Ok(long) => {
                frame.push(0x80 | 126);
                frame.extend(long.to_be_bytes());
            }
            Err(_) => panic!("too long for a test"),
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        _ = self.stream.write_all(&frame).await;
    }
}

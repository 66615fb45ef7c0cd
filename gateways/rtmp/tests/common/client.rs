//! A bare RTMP client over TCP, for what no program can be made to do.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use patchbay_rtmp::proto::Error;
use patchbay_rtmp::proto::client::{ClientEvent, ClientSession, Mode};
use patchbay_rtmp::proto::url::RtmpUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    pub stream: TcpStream,
    pub session: ClientSession,
}

impl Client {
    /// Connects; nothing is said yet.
    pub async fn connect(address: SocketAddr, path: &str, mode: Mode) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let url = RtmpUrl::parse(&format!("rtmp://{address}/{path}")).unwrap();
        Self { stream, session: ClientSession::new(url, mode, 4096, 7) }
    }

    /// Until the server lets it publish or play.
    pub async fn started(address: SocketAddr, path: &str, mode: Mode) -> Result<Self, Error> {
        let mut client = Self::connect(address, path, mode).await;
        match client.next().await? {
            Some(ClientEvent::Started) => Ok(client),
            other => panic!("{other:?} instead of the start"),
        }
    }

    pub async fn flush(&mut self) {
        let output = self.session.take_output();
        self.stream.write_all(&output).await.unwrap();
    }

    /// The next event; `None` when the server has closed.
    pub async fn next(&mut self) -> Result<Option<ClientEvent>, Error> {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        loop {
            if let Some(event) = self.session.poll()? {
                return Ok(Some(event));
            }
            self.flush().await;
            match self.stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => self.session.receive(buffer.split().freeze()),
            }
        }
    }

    /// The next video message that is a frame, and its timestamp.
    pub async fn video_frame(&mut self) -> (u32, Bytes) {
        loop {
            match self.next().await.unwrap() {
                Some(ClientEvent::Video { timestamp, payload }) if payload.get(1) == Some(&1) => return (timestamp, payload),
                Some(_) => {}
                None => panic!("the server closed"),
            }
        }
    }
}

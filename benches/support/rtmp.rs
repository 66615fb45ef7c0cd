//! An RTMP client that looks at nothing.

use std::io;

use bytes::{Bytes, BytesMut};
use patchbay_rtmp::proto::client::{ClientEvent, ClientSession, Mode};
use patchbay_rtmp::proto::url::RtmpUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Rtmp {
    pub session: ClientSession,
    socket: TcpStream,
    buffer: BytesMut,
}

impl Rtmp {
    /// Until the server has let it in.
    pub async fn open(url: &str, mode: Mode) -> io::Result<Self> {
        let url = RtmpUrl::parse(url).expect("a URL");
        let socket = TcpStream::connect((url.host.as_str(), url.port)).await?;
        let session = ClientSession::new(url, mode, 4_096, 1);
        let mut this = Self { session, socket, buffer: BytesMut::new() };
        while !this.session.is_started() {
            this.next().await?;
        }
        Ok(this)
    }

    /// The next event.
    pub async fn next(&mut self) -> io::Result<ClientEvent> {
        loop {
            if let Some(event) = self.session.poll().map_err(io::Error::other)? {
                return Ok(event);
            }
            self.flush().await?;
            let bytes = self.read().await?;
            self.session.receive(bytes);
        }
    }

    /// What has come, unread.
    pub async fn read(&mut self) -> io::Result<Bytes> {
        self.buffer.reserve(65_536);
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(self.buffer.split().freeze()),
        }
    }

    /// Sends what is due.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.session.take_output()).await
    }
}

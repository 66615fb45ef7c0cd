//! [`Peer`]: a connection to a server that we dialled, up to its yes and beyond. [`Failure`]: why one did not come about, or broke.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use patchbay_contract::Refusal;
use patchbay_outbound::{DialError, tls};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Destination, Target};
use crate::proto::Error as ProtoError;
use crate::proto::client::{ClientEvent, ClientSession, DEFAULT_CHUNK_SIZE, Mode};
use crate::proto::url::UrlError;
use crate::socket::{self, Socket};

/// How long the server may take from the dial to its yes.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How long it may take no byte of what is said besides media.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// What is read at once from a server that we play from, and from one that has no reason to say much; bytes.
const READ_LARGE: usize = 64 << 10;
const READ_SMALL: usize = 4 << 10;

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Not even connected.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No answer.
    #[error("the server does not answer")]
    Silent,
    /// The server's no, in its words.
    #[error("{0}")]
    Refused(ProtoError),
    /// The server broke the protocol.
    #[error("{0}")]
    Protocol(ProtoError),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Socket(#[from] io::Error),
    /// No encrypted connection to the right server.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The server takes no more bytes.
    #[error("the server takes no more data: nothing was acknowledged for {} s", .0.as_secs_f32())]
    Wedged(Duration),
    /// It sends none of the stream.
    #[error("the server has sent nothing of the stream for {} s", .0.as_secs())]
    Idle(Duration),
    /// It says that the stream is over.
    #[error("the stream is over at the server")]
    Over,
    /// The hub does not want the stream.
    #[error("{0}")]
    Unwanted(Refusal),
    /// The hub has ended the session.
    #[error("the session was ended here")]
    Kicked,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server wants us to come back, perhaps elsewhere.
    #[error("the server asked to connect again{}", .0.as_ref().map_or(String::new(), |to| format!(", to {to}")))]
    Reconnect(Option<Target>),
    /// It wants us to go where we cannot.
    #[error("the server asked to connect again at an address that is of no use: {0}")]
    Misdirected(UrlError),
}

impl Failure {
    /// Nobody listens there, or the host is gone.
    pub(crate) fn is_down(&self) -> bool {
        matches!(self, Self::Dial(DialError::Connect { .. }))
    }

    /// For how long nothing went over the connection before it was given up.
    pub(crate) fn silence(&self) -> Duration {
        match self {
            Self::Idle(silence) | Self::Wedged(silence) => *silence,
            _ => Duration::ZERO,
        }
    }
}

impl From<ProtoError> for Failure {
    fn from(error: ProtoError) -> Self {
        if matches!(error, ProtoError::Refused { .. }) { Self::Refused(error) } else { Self::Protocol(error) }
    }
}

/// A connection to a server that has said yes.
pub(crate) struct Peer {
    pub(crate) socket: Socket,
    pub(crate) session: ClientSession,
    target: Target,
    input: BytesMut,
    read_size: usize,
}

impl Peer {
    /// Dials, unless that is done, and asks until the server says yes. `prepare` sees the socket first.
    pub(crate) async fn connect(
        to: &Destination,
        target: &Target,
        mode: Mode,
        dialled: Option<TcpStream>,
        prepare: fn(&TcpStream),
    ) -> Result<Self, Failure> {
        let (host, port) = target.host();
        let stream = match dialled {
            Some(stream) => stream,
            None => to.policy(target).connect(host, port).await?,
        };
        prepare(&stream);
        let socket = if target.is_tls() {
            let config = tls::client(to.ca_file.clone()).await.map_err(Failure::Tls)?;
            let secure = timeout(ASK_MAX, Socket::connect(stream, config, host));
            secure.await.map_err(|_| Failure::Silent)?.map_err(Failure::Tls)?
        } else {
            Socket::plain(stream)
        };
        let session = ClientSession::new(to.url(target), mode, DEFAULT_CHUNK_SIZE, rand::random());
        let read_size = if mode == Mode::Play { READ_LARGE } else { READ_SMALL };
        let mut this = Self { socket, session, target: target.clone(), input: BytesMut::new(), read_size };
        timeout(ASK_MAX, this.ask()).await.map_err(|_| Failure::Silent)??;
        Ok(this)
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        loop {
            // No further: what was read with its yes is media already.
            if let Some(ClientEvent::Started) = self.poll()? {
                return self.write().await;
            }
            self.write().await?;
            self.socket.readable().await?;
            self.read()?;
        }
    }

    /// The next event of what was read.
    pub(crate) fn poll(&mut self) -> Result<Option<ClientEvent>, Failure> {
        match self.session.poll()? {
            Some(ClientEvent::ReconnectRequest { tc_url }) => {
                let to = tc_url.map(|tc_url| self.target.moved(&tc_url)).transpose();
                Err(to.map_or_else(Failure::Misdirected, Failure::Reconnect))
            }
            event => Ok(event),
        }
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) -> Result<(), Failure> {
        if self.input.capacity() < self.read_size / 4 {
            self.input.reserve(self.read_size);
        }
        match self.socket.try_read_buf(&mut self.input) {
            Ok(0) => Err(Failure::Closed),
            Ok(_) => {
                self.session.receive(self.input.split().freeze());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes what the session has to say.
    pub(crate) async fn write(&mut self) -> Result<(), Failure> {
        let output = self.session.take_output();
        if !output.is_empty() {
            socket::write_all(&self.socket, &mut vec![output], WRITE_MAX).await?;
        }
        Ok(())
    }
}

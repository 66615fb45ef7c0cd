//! One RTMP connection: from its accept to publishing or playing, and back.
//!
//! - this file: handshake and commands, against one deadline, and the decision on publish or play;
//! - [`publish`]: an accepted publisher;
//! - [`play`]: an accepted player.
//!
//! Refuses: a second stream on a connection that has one.

mod play;
mod publish;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use patchbay_bus::{EndReason, StreamName as BusName};
use patchbay_contract::{Caller, Code, HalfOpenPlace, Leg, PlayRequest, Publication, PublishRequest, Refusal};
use patchbay_rules::EndpointKind;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::gateway::Shared;
use crate::naming;
use crate::proto::Error as ProtoError;
use crate::proto::server::{self, Connect, Event, ServerConfig as SessionConfig, ServerSession, StreamName};
use crate::socket::{self, Socket};

/// What is read at once from strangers and players, bytes.
const READ_SMALL: usize = 4 << 10;
/// What is read at once from publishers, bytes.
const READ_LARGE: usize = 64 << 10;

/// How long a peer that was asked to connect again may take to leave; no longer than the gateway itself runs.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The peer closed it.
    #[error("connection closed")]
    Closed,
    /// The socket failed.
    #[error("connection lost: {0}")]
    Socket(#[from] io::Error),
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(#[from] ProtoError),
    /// Neither publish nor play came in time.
    #[error("neither publish nor play within the handshake timeout")]
    HalfOpen,
    /// It was the oldest of `rtmp.half_open_max` that neither published nor played, and another one came.
    #[error("made room for others: rtmp.half_open_max is reached")]
    MadeRoom,
    /// What it asked for was refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The stream that was played is over.
    #[error("the stream is over: {}", .0.code())]
    StreamOver(EndReason),
    /// The hub wants the session to end, or the process stops.
    #[error("ended from here")]
    Shutdown,
}

/// The socket and its session.
struct Connection {
    shared: Arc<Shared>,
    socket: Socket,
    peer: SocketAddr,
    session: ServerSession,
    input: BytesMut,
    read_size: usize,
    connect: Connect,
    shutdown: CancellationToken,
}

/// What a peer wants.
enum Wish {
    Publish(StreamName),
    Play(StreamName),
}

/// What a peer was let in for.
enum Role {
    Publisher(u32, Publication),
    Player(u32, Leg),
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    peer: SocketAddr,
    place: HalfOpenPlace,
    shutdown: CancellationToken,
) {
    let deadline = Instant::now() + shared.config.handshake_timeout();
    let socket = match secure(stream, tls, deadline, &place, &shutdown).await {
        Ok(socket) => socket,
        Err(ended) => {
            tracing::debug!(%peer, %ended, "rtmp connection ended in its TLS handshake");
            return;
        }
    };
    let config = SessionConfig { chunk_size: shared.config.chunk_size, streams: 4, ..SessionConfig::default() };
    let session = ServerSession::new(config, rand::random());
    let connect = Connect::default();
    let mut connection = Connection { shared, socket, peer, session, input: BytesMut::new(), read_size: READ_SMALL, connect, shutdown };
    let ended = connection.run(place, deadline).await;
    match &ended {
        // A flood of half-open connections is not to flood the log as well.
        Ended::Closed | Ended::Shutdown | Ended::StreamOver(_) | Ended::HalfOpen | Ended::MadeRoom => {
            tracing::debug!(%peer, %ended, "rtmp connection ended")
        }
        _ => tracing::info!(%peer, %ended, "rtmp connection ended"),
    }
    if !matches!(ended, Ended::Closed | Ended::Socket(_) | Ended::MadeRoom) {
        // What was said last must still arrive.
        _ = connection.write_output().await;
        socket::close(&connection.socket).await;
    }
}

/// The socket, with its TLS handshake done where there is to be one.
async fn secure(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    deadline: Instant,
    place: &HalfOpenPlace,
    shutdown: &CancellationToken,
) -> Result<Socket, Ended> {
    let Some(config) = tls else { return Ok(Socket::plain(stream)) };
    tokio::select! {
        () = shutdown.cancelled() => Err(Ended::Shutdown),
        () = place.lost() => Err(Ended::MadeRoom),
        secured = timeout_at(deadline, Socket::accept(stream, config)) => Ok(secured.map_err(|_| Ended::HalfOpen)??),
    }
}

impl Connection {
    async fn run(&mut self, place: HalfOpenPlace, mut deadline: Instant) -> Ended {
        let mut place = Some(place);
        loop {
            let shutdown = self.shutdown.clone();
            let role = tokio::select! {
                () = shutdown.cancelled() => return Ended::Shutdown,
                () = lost(place.as_ref()) => return Ended::MadeRoom,
                admitted = self.admit(place.as_ref(), deadline) => match admitted {
                    Ok(role) => role,
                    Err(ended) => return ended,
                },
            };
            drop(place.take());
            let result = match role {
                Role::Publisher(id, publication) => self.publish(id, publication).await,
                Role::Player(id, leg) => self.play(id, leg).await,
            };
            // Done with that stream: the peer may ask for another.
            if let Err(ended) = result {
                return ended;
            }
            self.read_size = READ_SMALL;
            deadline = Instant::now() + self.shared.config.handshake_timeout();
        }
    }

    /// Until the peer may publish or play. The deadline is for what it has to say itself: whoever decides on it has limits of
    /// its own, and the peer is not cut for them.
    async fn admit(&mut self, place: Option<&HalfOpenPlace>, deadline: Instant) -> Result<Role, Ended> {
        let wish = timeout_at(deadline, self.wish()).await.map_err(|_| Ended::HalfOpen)??;
        place.into_iter().for_each(HalfOpenPlace::keep);
        let role = match wish {
            Wish::Publish(stream) => self.ask_publish(&stream).await.map(|publication| Role::Publisher(stream.stream_id, publication)),
            Wish::Play(stream) => self.ask_play(&stream).await.map(|leg| Role::Player(stream.stream_id, leg)),
        };
        match role {
            Ok(role) => {
                self.session.accept()?;
                self.write_output().await?;
                Ok(role)
            }
            Err(refusal) => {
                self.session.reject(wire_refusal(refusal.code), &refusal.to_string())?;
                Err(Ended::Refused(refusal))
            }
        }
    }

    /// Handshake and commands, until the peer has said what it wants.
    async fn wish(&mut self) -> Result<Wish, Ended> {
        loop {
            match self.session.poll()? {
                None => {
                    self.write_output().await?;
                    self.read().await?;
                }
                Some(Event::Connect(connect)) => {
                    self.connect = connect;
                    self.session.accept()?;
                }
                Some(Event::Publish { stream, .. }) => return Ok(Wish::Publish(stream)),
                Some(Event::Play { stream, .. }) => return Ok(Wish::Play(stream)),
                Some(_) => {}
            }
        }
    }

    async fn ask_publish(&self, stream: &StreamName) -> Result<Publication, Refusal> {
        let name = naming::stream_name(&self.connect.app, &stream.name)?;
        let kind = self.kind_of(&name, stream)?;
        let request = PublishRequest { stream: name, kind, caller: self.caller(stream) };
        self.shared.hub.publish(request).await
    }

    async fn ask_play(&self, stream: &StreamName) -> Result<Leg, Refusal> {
        let name = naming::stream_name(&self.connect.app, &stream.name)?;
        let mut sink = accept::sink(self.kind_of(&name, stream)?, &self.connect.fourccs);
        sink.take_also(accept::named(&[&stream.query, &self.connect.query])?);
        let request = PlayRequest { stream: name, sink, caller: self.caller(stream), wait: true };
        self.shared.hub.play(request).await
    }

    fn kind_of(&self, name: &BusName, stream: &StreamName) -> Result<EndpointKind, Refusal> {
        self.shared.kind_of(name, &[&stream.query, &self.connect.query])
    }

    fn caller(&self, stream: &StreamName) -> Caller {
        Caller {
            protocol: "rtmp",
            peer: Some(self.peer),
            agent: naming::agent(&self.connect.flash_ver),
            credentials: naming::credentials(&[&stream.query, &self.connect.query], &self.connect.tc_url),
            ..Caller::default()
        }
    }

    /// Reads once. Nothing is lost when this is dropped while it waits.
    async fn read(&mut self) -> Result<(), Ended> {
        loop {
            self.socket.readable().await?;
            if self.try_read()? {
                return Ok(());
            }
        }
    }

    /// Reads what is there; `false` when nothing was.
    fn try_read(&mut self) -> Result<bool, Ended> {
        if self.input.capacity() < self.read_size / 4 {
            self.input.reserve(self.read_size);
        }
        match self.socket.try_read_buf(&mut self.input) {
            Ok(0) => Err(Ended::Closed),
            Ok(_) => {
                self.session.receive(self.input.split().freeze());
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes what the session has to say.
    async fn write_output(&mut self) -> Result<(), Ended> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        socket::write_all(&self.socket, &mut vec![output], self.stall()).await?;
        Ok(())
    }

    /// Asks the peer to connect again if this server is about to stop, and the peer knows how to; whether it was asked.
    fn request_reconnect(&mut self) -> bool {
        let url = self.shared.config.reconnect_url.as_deref().map(|server| naming::tc_url(server, &self.connect));
        self.shared.hub.is_draining() && self.session.request_reconnect(url.as_deref(), "the server is about to stop")
    }

    fn stall(&self) -> Duration {
        self.shared.config.slow_cut()
    }
}

/// Until a peer that was asked to connect again has had time to.
async fn overstayed(shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(LEAVE_MAX) => {}
    }
}

/// Waits until the place is somebody else's; whoever has published or played before needs none.
async fn lost(place: Option<&HalfOpenPlace>) {
    match place {
        Some(place) => place.lost().await,
        None => std::future::pending().await,
    }
}

/// The RTMP status that comes nearest to a refusal; its code and words go along as text.
fn wire_refusal(code: Code) -> server::Refusal {
    match code {
        Code::Unauthorized | Code::Forbidden => server::Refusal::Denied,
        Code::StreamBusy => server::Refusal::Busy,
        Code::StreamNotFound | Code::BadStreamName => server::Refusal::NotFound,
        _ => server::Refusal::Failed,
    }
}

/// Says no to whatever a peer asks for while it has a stream already.
fn one_stream_only(session: &mut ServerSession) -> Result<(), ProtoError> {
    session.reject(server::Refusal::Failed, "unsupported: one stream per connection")
}

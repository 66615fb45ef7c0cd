//! [`Sender`]: one connection to a server that we publish to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use patchbay_bus::{Event, Feed, Lag, Signal, Subscription, now};
use patchbay_contract::Counters;
use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};
use patchbay_outbound::DialError;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Destination;
use crate::proto::Error as ProtoError;
use crate::proto::client::{ClientEvent, ClientSession, DEFAULT_CHUNK_SIZE, Mode};
use crate::{socket, wire};

/// How long the server may take from the dial to its yes.
const ASK_MAX: Duration = Duration::from_secs(10);
/// A server that takes or acknowledges no byte for this long is gone.
const STALL: Duration = Duration::from_secs(5);
/// Behind the stream by more than this: go on with the newest group.
const LAG_MAX: Duration = Duration::from_secs(5);
/// Bytes that are collected before they are written.
const WRITE_AT: usize = 64 << 10;

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
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
    /// The server takes no more bytes.
    #[error("the server takes no more data")]
    Wedged,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server wants us to come back.
    #[error("the server asked to connect again")]
    Reconnect,
}

impl From<ProtoError> for Failure {
    fn from(error: ProtoError) -> Self {
        if matches!(error, ProtoError::Refused { .. }) { Self::Refused(error) } else { Self::Protocol(error) }
    }
}

/// What a leg gives to send, apart from the leg, which cannot be shared between threads.
pub(super) struct Source {
    pub(super) feed: Arc<Feed>,
    pub(super) counters: Arc<Counters>,
}

/// A connection that may publish.
pub(super) struct Sender {
    stream: TcpStream,
    session: ClientSession,
    input: BytesMut,
    body: BytesMut,
    video: Track,
    audio: Track,
    /// Bus time of timestamp 0.
    epoch: Option<MediaTime>,
}

#[derive(Default)]
struct Track {
    info: Option<Arc<TrackInfo>>,
    /// The last timestamp: no server takes one that steps back.
    last: u32,
}

impl Sender {
    /// Dials, and asks until the server lets us publish.
    pub(super) async fn connect(to: &Destination) -> Result<Self, Failure> {
        let (host, port) = to.target.host();
        let stream = to.policy.connect(host, port).await?;
        socket::prepare(&stream);
        // Noticed by the kernel, which sees acknowledgements that we do not. A comfort, as the others.
        _ = SockRef::from(&stream).set_tcp_user_timeout(Some(STALL));
        let session = ClientSession::new(to.target.0.clone(), Mode::Publish, DEFAULT_CHUNK_SIZE, rand::random());
        let (video, audio) = (Track::default(), Track::default());
        let mut this = Self { stream, session, input: BytesMut::new(), body: BytesMut::new(), video, audio, epoch: None };
        timeout(ASK_MAX, this.ask()).await.map_err(|_| Failure::Silent)??;
        Ok(this)
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        while !self.session.is_started() {
            self.events()?;
            self.write().await?;
            if !self.session.is_started() {
                self.stream.readable().await?;
                self.read()?;
            }
        }
        Ok(())
    }

    /// Sends until the stream ends; says how it ended.
    pub(super) async fn send(&mut self, source: &Source) -> Result<&'static str, Failure> {
        let mut subscription = Subscription::new(&source.feed, Lag::Skip(LAG_MAX), Arc::new(Signal::new()));
        let value = source.feed.get();
        let info = |point: Option<patchbay_bus::Point>| point.and_then(|p| p.track.info()).map(|(info, _)| info);
        (self.video.info, self.audio.info) = (info(value.video), info(value.audio));
        self.metadata()?;
        loop {
            let mut event = tokio::select! {
                readable = self.stream.readable() => {
                    readable?;
                    self.read()?;
                    self.events()?;
                    self.write().await?;
                    continue;
                }
                event = subscription.next() => Some(event),
            };
            while let Some(next) = event {
                if let Event::End(reason) = next {
                    self.write().await?;
                    return Ok(reason.code());
                }
                self.take(next, source)?;
                if self.session.pending_output() > WRITE_AT {
                    break;
                }
                event = subscription.poll();
            }
            self.write().await?;
        }
    }

    /// Says goodbye.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        self.session.finish();
        self.write().await?;
        socket::close(&self.stream).await;
        Ok(())
    }

    fn take(&mut self, event: Event, source: &Source) -> Result<(), Failure> {
        match event {
            Event::Info(kind, info) => {
                let track = self.track(kind);
                let news = track.info.as_ref() != Some(&info);
                track.info = Some(info);
                if news {
                    self.metadata()?;
                }
                self.header(kind)
            }
            Event::Frame(kind, frame) => {
                let size = self.frame(kind, &frame)?;
                source.counters.frame(size, (now() - frame.arrival).as_nanos());
                Ok(())
            }
            Event::Gap(_, frames) => {
                source.counters.skipped.fetch_add(frames, Ordering::Relaxed);
                Ok(())
            }
            Event::End(_) => Ok(()),
        }
    }

    fn track(&mut self, kind: Kind) -> &mut Track {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    fn metadata(&mut self) -> Result<(), Failure> {
        let metadata = wire::metadata(self.video.info.as_deref(), self.audio.info.as_deref());
        Ok(self.session.send_metadata(metadata.to_value())?)
    }

    fn header(&mut self, kind: Kind) -> Result<(), Failure> {
        self.body.clear();
        let track = self.track(kind);
        let (info, last) = (track.info.clone(), track.last);
        match info {
            Some(info) if wire::sequence_header(&info, &mut self.body) => self.send_body(kind, last),
            _ => Ok(()),
        }
    }

    /// Returns the size of the body.
    fn frame(&mut self, kind: Kind, frame: &Frame) -> Result<usize, Failure> {
        let epoch = *self.epoch.get_or_insert(frame.dts);
        self.body.clear();
        let Some(info) = self.track(kind).info.clone() else { return Ok(0) };
        if !wire::frame(&info, frame, &mut self.body) {
            return Ok(0);
        }
        let track = self.track(kind);
        track.last = track.last.max(wire::timestamp(frame.dts, epoch));
        let last = track.last;
        self.send_body(kind, last)?;
        Ok(self.body.len())
    }

    fn send_body(&mut self, kind: Kind, timestamp: u32) -> Result<(), Failure> {
        match kind {
            Kind::Video => self.session.send_video(timestamp, &self.body)?,
            Kind::Audio => self.session.send_audio(timestamp, &self.body)?,
        }
        Ok(())
    }

    fn events(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.session.poll()? {
            if let ClientEvent::ReconnectRequest { .. } = event {
                return Err(Failure::Reconnect);
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        if self.input.capacity() < 1 << 10 {
            self.input.reserve(4 << 10);
        }
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(Failure::Closed),
            Ok(_) => {
                self.session.receive(self.input.split().freeze());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    async fn write(&mut self) -> Result<(), Failure> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        socket::write_all(&self.stream, &mut vec![output], STALL).await.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Failure::Wedged,
            _ => error.into(),
        })
    }
}

//! [`Sender`]: one connection to a server that we publish to.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use patchbay_bus::{Event, Feed, Lag, Signal, Subscription, now};
use patchbay_contract::Counters;
use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};
use patchbay_outbound::{DialError, tls};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Destination, Target};
use crate::proto::Error as ProtoError;
use crate::proto::client::{ClientEvent, ClientSession, DEFAULT_CHUNK_SIZE, Mode};
use crate::proto::fourcc::FourCcs;
use crate::socket::{self, Socket};
use crate::wire;

/// How long the server may take from the dial to its yes.
const ASK_MAX: Duration = Duration::from_secs(10);
/// A server that acknowledges no byte of what waits for it for this long is gone.
const STALL: Duration = Duration::from_millis(4_500);
/// One that does not for this long is slow.
const SLOW: Duration = Duration::from_millis(1_500);
/// How long a push that lost frames is called degraded.
const LOSS_SHOWN: Duration = Duration::from_secs(10);
/// How often its progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
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
    /// No encrypted connection to the right server.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The server takes no more bytes.
    #[error("the server takes no more data: nothing was acknowledged for {} s", STALL.as_secs_f32())]
    Wedged,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server wants us to come back.
    #[error("the server asked to connect again")]
    Reconnect,
}

impl Failure {
    /// Nobody listens there, or the host is gone.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Dial(DialError::Connect { .. }))
    }
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

/// How well a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// The server takes data more slowly than it comes.
    Slow,
    /// Frames were left out because it did.
    Losing,
    /// The source is away, and may come back.
    Sourceless,
}

/// Who hears how it goes.
pub(super) type Tell<'a> = &'a (dyn Fn(Health) + Sync);

/// Whether what was written arrives.
struct Progress {
    acknowledged: u64,
    since: Instant,
    lost: Option<Instant>,
}

/// A connection that may publish.
pub(super) struct Sender {
    socket: Socket,
    /// The rest of what is being written, also when that is broken off.
    unsent: Vec<Bytes>,
    progress: Progress,
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
    /// The last timestamp, before it wraps: no server takes one that steps back.
    last: i64,
}

impl Sender {
    /// Dials, unless that is done, and asks until the server lets us publish.
    pub(super) async fn connect(to: &Destination, target: &Target, dialled: Option<TcpStream>) -> Result<Self, Failure> {
        let (host, port) = target.host();
        let stream = match dialled {
            Some(stream) => stream,
            None => to.policy.connect(host, port).await?,
        };
        // After we gave it up, the kernel is to do so as well. A comfort.
        _ = SockRef::from(&stream).set_tcp_user_timeout(Some(2 * STALL));
        let socket = if target.is_tls() {
            let config = tls::client(to.ca_file.clone()).await.map_err(Failure::Tls)?;
            let secure = timeout(ASK_MAX, Socket::connect(stream, config, host));
            secure.await.map_err(|_| Failure::Silent)?.map_err(Failure::Tls)?
        } else {
            Socket::plain(stream)
        };
        let progress = Progress { acknowledged: 0, since: Instant::now(), lost: None };
        let session = ClientSession::new(to.url(target), Mode::Publish, DEFAULT_CHUNK_SIZE, rand::random());
        let (video, audio) = (Track::default(), Track::default());
        let (input, body, unsent) = (BytesMut::new(), BytesMut::new(), Vec::new());
        let mut this = Self { socket, unsent, progress, session, input, body, video, audio, epoch: None };
        timeout(ASK_MAX, this.ask()).await.map_err(|_| Failure::Silent)??;
        Ok(this)
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        while !self.session.is_started() {
            self.events()?;
            self.write(&|_| {}).await?;
            if !self.session.is_started() {
                self.socket.readable().await?;
                self.read()?;
            }
        }
        Ok(())
    }

    /// The codecs that the server says it takes.
    pub(super) fn announced(&self) -> &FourCcs {
        self.session.announced()
    }

    /// Sends until the stream ends; says how it ended. `tell` hears how it goes.
    pub(super) async fn send(&mut self, source: &Source, tell: Tell<'_>) -> Result<&'static str, Failure> {
        let mut subscription = Subscription::new(&source.feed, Lag::Skip(LAG_MAX), Arc::new(Signal::new()));
        let value = source.feed.get();
        let info = |point: Option<patchbay_bus::Point>| point.and_then(|p| p.track.info()).map(|(info, _)| info);
        (self.video.info, self.audio.info) = (info(value.video), info(value.audio));
        self.metadata()?;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut event = tokio::select! {
                _ = look.tick() => {
                    tell(self.look(source)?);
                    continue;
                }
                readable = self.socket.readable() => {
                    readable?;
                    self.read()?;
                    self.events()?;
                    self.write(tell).await?;
                    continue;
                }
                event = subscription.next() => Some(event),
            };
            while let Some(next) = event {
                if let Event::End(reason) = next {
                    self.write(tell).await?;
                    return Ok(reason.code());
                }
                self.take(next, source)?;
                if self.session.pending_output() > WRITE_AT {
                    break;
                }
                event = subscription.poll();
            }
            self.write(tell).await?;
        }
    }

    /// Says goodbye.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        self.session.finish();
        self.write(&|_| {}).await?;
        socket::close(&self.socket).await;
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
                self.progress.lost = Some(Instant::now());
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
        track.last = track.last.max(wire::millis(frame.dts, epoch));
        let last = track.last;
        self.send_body(kind, last)?;
        Ok(self.body.len())
    }

    fn send_body(&mut self, kind: Kind, millis: i64) -> Result<(), Failure> {
        // Wraps after 49.7 days, as the field does.
        let timestamp = millis as u32;
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

    async fn write(&mut self, tell: Tell<'_>) -> Result<(), Failure> {
        let output = self.session.take_output();
        if !output.is_empty() {
            self.unsent.push(output);
        }
        if self.unsent.is_empty() {
            return Ok(());
        }
        let (socket, progress) = (&self.socket, &mut self.progress);
        // What is acknowledged decides: a slow server may take long until there is room for more.
        let mut writing = pin!(socket::write_all(socket, &mut self.unsent, Duration::MAX));
        loop {
            match timeout(LOOK_EVERY, &mut writing).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => match progress.stalled(socket) {
                    stalled if stalled >= STALL => return Err(Failure::Wedged),
                    stalled if stalled >= SLOW => tell(Health::Slow),
                    _ => {}
                },
            }
        }
    }

    fn look(&mut self, source: &Source) -> Result<Health, Failure> {
        let stalled = self.progress.stalled(&self.socket);
        let value = source.feed.get();
        Ok(match stalled {
            _ if stalled >= STALL => return Err(Failure::Wedged),
            _ if stalled >= SLOW => Health::Slow,
            _ if self.progress.lost.is_some_and(|at| at.elapsed() < LOSS_SHOWN) => Health::Losing,
            _ if value.video.is_none() && value.audio.is_none() => Health::Sourceless,
            _ => Health::Good,
        })
    }
}

impl Progress {
    /// How long nothing of what waits has been acknowledged.
    fn stalled(&mut self, socket: &Socket) -> Duration {
        let (acknowledged, queued) = socket.acknowledged();
        if queued == 0 || acknowledged != self.acknowledged {
            (self.acknowledged, self.since) = (acknowledged, Instant::now());
        }
        self.since.elapsed()
    }
}

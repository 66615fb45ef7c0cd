//! [`Sender`]: one connection to a server that we publish to.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use patchbay_bus::{Event, Feed, Lag, Signal, Subscription, now};
use patchbay_contract::Counters;
use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::advice::Advice;
use crate::outgoing::{Destination, Failure, Peer, Target};
use crate::proto::client::Mode;
use crate::proto::fourcc::FourCcs;
use crate::socket::{self, Socket};
use crate::wire;

/// A server that acknowledges no byte of what waits for it for this long is gone.
const STALL: Duration = Duration::from_millis(4_500);
/// One that does not for this long is slow.
const SLOW: Duration = Duration::from_millis(1_500);
/// How long a push that lost frames is called degraded.
const LOSS_SHOWN: Duration = Duration::from_secs(10);
/// How often its progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a stream is sent before anything is said of it: by then it has all its tracks.
const ADVISE_AFTER: Duration = Duration::from_secs(5);
/// Behind the stream by more than this: go on with the newest group.
const LAG_MAX: Duration = Duration::from_secs(5);
/// Bytes that are collected before they are written.
const WRITE_AT: usize = 64 << 10;

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
/// Who hears what there is to say of the stream.
pub(super) type Advise<'a> = &'a (dyn Fn(Vec<String>) + Sync);

/// Whether what was written arrives.
struct Progress {
    acknowledged: u64,
    since: Instant,
    lost: Option<Instant>,
}

/// A connection that may publish.
pub(super) struct Sender {
    peer: Peer,
    /// The rest of what is being written, also when that is broken off.
    unsent: Vec<Bytes>,
    progress: Progress,
    advice: Advice,
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
        // After we gave it up, the kernel is to do so as well. A comfort.
        let prepare = |stream: &TcpStream| _ = SockRef::from(stream).set_tcp_user_timeout(Some(2 * STALL));
        let peer = Peer::connect(to, target, Mode::Publish, dialled, prepare).await?;
        let progress = Progress { acknowledged: 0, since: Instant::now(), lost: None };
        let (advice, video, audio) = (Advice::default(), Track::default(), Track::default());
        Ok(Self { peer, unsent: Vec::new(), progress, advice, body: BytesMut::new(), video, audio, epoch: None })
    }

    /// The codecs that the server says it takes.
    pub(super) fn announced(&self) -> &FourCcs {
        self.peer.session.announced()
    }

    /// Sends until the stream ends; says how it ended. `tell` hears how it goes, `advise` what would be better.
    pub(super) async fn send(&mut self, source: &Source, tell: Tell<'_>, advise: Advise<'_>) -> Result<&'static str, Failure> {
        let begun = Instant::now();
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
                    if begun.elapsed() >= ADVISE_AFTER && let Some(news) = self.news(source) {
                        advise(news);
                    }
                    continue;
                }
                readable = self.peer.socket.readable() => {
                    readable?;
                    self.heard()?;
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
                if self.peer.session.pending_output() > WRITE_AT {
                    break;
                }
                event = subscription.poll();
            }
            self.write(tell).await?;
        }
    }

    /// Says goodbye.
    pub(super) async fn finish(mut self) -> Result<(), Failure> {
        self.peer.session.finish();
        self.write(&|_| {}).await?;
        socket::close(&self.peer.socket).await;
        Ok(())
    }

    fn take(&mut self, event: Event, source: &Source) -> Result<(), Failure> {
        match event {
            Event::Info(kind, info) => {
                if kind == Kind::Video {
                    self.advice.cut();
                }
                let track = self.track(kind);
                let news = track.info.as_ref() != Some(&info);
                track.info = Some(info);
                if news {
                    self.metadata()?;
                }
                self.header(kind)
            }
            Event::Frame(kind, frame) => {
                if kind == Kind::Video {
                    self.advice.frame(&frame);
                }
                let size = self.frame(kind, &frame)?;
                source.counters.frame(size, (now() - frame.arrival).as_nanos());
                Ok(())
            }
            Event::Gap(kind, frames) => {
                if kind == Kind::Video {
                    self.advice.cut();
                }
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
        Ok(self.peer.session.send_metadata(metadata.to_value())?)
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
            Kind::Video => self.peer.session.send_video(timestamp, &self.body)?,
            Kind::Audio => self.peer.session.send_audio(timestamp, &self.body)?,
        }
        Ok(())
    }

    /// What the server says while it takes the stream matters only where it ends it.
    fn heard(&mut self) -> Result<(), Failure> {
        self.peer.read()?;
        while self.peer.poll()?.is_some() {}
        Ok(())
    }

    async fn write(&mut self, tell: Tell<'_>) -> Result<(), Failure> {
        let output = self.peer.session.take_output();
        if !output.is_empty() {
            self.unsent.push(output);
        }
        if self.unsent.is_empty() {
            return Ok(());
        }
        let (socket, progress) = (&self.peer.socket, &mut self.progress);
        // What is acknowledged decides: a slow server may take long until there is room for more.
        let mut writing = pin!(socket::write_all(socket, &mut self.unsent, Duration::MAX));
        loop {
            match timeout(LOOK_EVERY, &mut writing).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => match progress.stalled(socket) {
                    stalled if stalled >= STALL => return Err(Failure::Wedged(STALL)),
                    stalled if stalled >= SLOW => tell(Health::Slow),
                    _ => {}
                },
            }
        }
    }

    /// What there is to say of the tracks that are sent, unless the source is away.
    fn news(&mut self, source: &Source) -> Option<Vec<String>> {
        let value = source.feed.get();
        let (video, audio) = (value.video.and(self.video.info.as_deref()), value.audio.and(self.audio.info.as_deref()));
        if video.is_none() && audio.is_none() {
            return None;
        }
        self.advice.news(video, audio)
    }

    fn look(&mut self, source: &Source) -> Result<Health, Failure> {
        let stalled = self.progress.stalled(&self.peer.socket);
        let value = source.feed.get();
        Ok(match stalled {
            _ if stalled >= STALL => return Err(Failure::Wedged(STALL)),
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

//! A hub on a real bus that passes what a sink takes, and peers to run against a gateway.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod client;
pub mod media;
pub mod nginx;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use patchbay_bus::{Bus, Change, Feed, FeedValue, Observer, Point, StreamName};
use patchbay_contract::{
    Answer, Caller, Cause, Closer, Code, Counters, Gateway as _, Hub, Leg, PlayRequest, Publication, PublishRequest, Refusal, SessionId,
};
use patchbay_media::Kind;
use patchbay_rtmp::{Config, Gateway};
use patchbay_rules::{EndpointKind, Sink};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Viewing {
    id: SessionId,
    stream: StreamName,
    sink: Sink,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
    cancelled: CancellationToken,
}

/// What the hub has seen.
#[derive(Default)]
pub struct Seen {
    legs: Vec<Viewing>,
    next_id: SessionId,
    publications: Vec<CancellationToken>,
    draining: bool,
    /// How long it takes to decide on a publisher.
    pub thinks: Duration,
    /// Who asked for anything.
    pub callers: Vec<Caller>,
    /// How sessions ended: what they were, and why.
    pub causes: Vec<(&'static str, Cause)>,
}

/// The hub.
pub struct TestHub {
    pub bus: Arc<Bus>,
    seen: Arc<Mutex<Seen>>,
    /// Publishing needs it, if set.
    pub key: Option<String>,
}

struct Repoint {
    bus: std::sync::Weak<Bus>,
    seen: Arc<Mutex<Seen>>,
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn point(bus: &Bus, leg: &Viewing) {
    let Some(stream) = bus.get(&leg.stream) else { return };
    let pick = |kind| {
        let track = stream.track(kind)?;
        let (info, epoch) = track.info()?;
        leg.sink.refuses(&info).is_none().then_some(Point { track, epoch })
    };
    leg.feed.set(FeedValue { video: pick(Kind::Video), audio: pick(Kind::Audio), ended: None });
}

impl Observer for Repoint {
    fn changed(&self, stream: &StreamName, change: Change) {
        let Some(bus) = self.bus.upgrade() else { return };
        for leg in lock(&self.seen).legs.iter().filter(|l| l.stream == *stream) {
            match change {
                Change::Ended(reason) => leg.feed.set(FeedValue { ended: Some(reason), ..leg.feed.get() }),
                _ => point(&bus, leg),
            }
        }
    }
}

impl TestHub {
    pub fn new(key: Option<&str>) -> Arc<Self> {
        let (bus, seen) = (Bus::new(), Arc::new(Mutex::new(Seen::default())));
        bus.observe(Arc::new(Repoint { bus: Arc::downgrade(&bus), seen: seen.clone() }));
        Arc::new(Self { bus, seen, key: key.map(str::to_owned) })
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// Why sessions of this role ended.
    pub fn causes(&self, role: &str) -> Vec<&'static str> {
        self.seen().causes.iter().filter(|(r, _)| *r == role).map(|(_, c)| c.code).collect()
    }

    /// What the viewers that are there are, in their order.
    pub fn kinds(&self) -> Vec<EndpointKind> {
        self.seen().legs.iter().map(|l| l.sink.kind).collect()
    }

    /// Counters of the viewers that are there.
    pub fn viewers(&self) -> Vec<Arc<Counters>> {
        self.seen().legs.iter().map(|l| l.counters.clone()).collect()
    }

    /// Asks all viewers to leave.
    pub fn kick_viewers(&self) {
        self.seen().legs.iter().for_each(|leg| leg.cancelled.cancel());
    }

    /// Asks everybody to leave, because the process is about to stop.
    pub fn drain(&self) {
        self.seen().draining = true;
        self.seen().publications.iter().for_each(CancellationToken::cancel);
        self.kick_viewers();
    }

    fn closer(&self, role: &'static str, id: SessionId) -> Closer {
        let seen = self.seen.clone();
        Box::new(move |cause, _| {
            let mut seen = lock(&seen);
            seen.legs.retain(|l| l.id != id);
            seen.causes.push((role, cause));
        })
    }

    fn next_id(&self, caller: &Caller) -> SessionId {
        let mut seen = self.seen();
        seen.callers.push(caller.clone());
        seen.next_id += 1;
        seen.next_id
    }

    /// Waits until the stream has `tracks` tracks.
    pub async fn wait_live(&self, name: &str, tracks: usize) {
        let name: StreamName = name.parse().unwrap();
        wait_for(&format!("{name} with {tracks} tracks"), Duration::from_secs(10), || {
            self.bus.get(&name).is_some_and(|s| s.tracks().len() >= tracks)
        })
        .await;
    }
}

impl Hub for TestHub {
    fn publish(&self, request: PublishRequest) -> Answer<'_, Publication> {
        Box::pin(async move {
            let thinks = self.seen().thinks;
            tokio::time::sleep(thinks).await;
            if self.key.is_some() && self.key.as_deref() != request.caller.credentials.token() {
                return Err(Refusal::new(Code::Unauthorized, format!("publishing {} needs its key", request.stream)));
            }
            let publisher = self.bus.publish(request.stream.clone())?;
            let id = self.next_id(&request.caller);
            let cancelled = CancellationToken::new();
            self.seen().publications.push(cancelled.clone());
            Ok(Publication::new(id, publisher, Arc::default(), cancelled, self.closer("publish", id)))
        })
    }

    fn play(&self, request: PlayRequest) -> Answer<'_, Leg> {
        Box::pin(async move {
            if !request.wait && self.bus.get(&request.stream).is_none() {
                return Err(Refusal::new(Code::StreamNotFound, format!("nobody publishes {} now", request.stream)));
            }
            let id = self.next_id(&request.caller);
            let (feed, counters, cancelled): (Arc<Feed>, Arc<Counters>, _) = (Arc::default(), Arc::default(), CancellationToken::new());
            let leg = Leg::new(id, request.stream.clone(), feed.clone(), counters.clone(), cancelled.clone(), self.closer("play", id));
            let viewing = Viewing { id, stream: request.stream, sink: request.sink, feed, counters, cancelled };
            point(&self.bus, &viewing);
            self.seen().legs.push(viewing);
            Ok(leg)
        })
    }

    fn is_draining(&self) -> bool {
        self.seen().draining
    }

    fn kind_of(&self, _: &StreamName, usual: EndpointKind) -> EndpointKind {
        usual
    }
}

/// A gateway that runs, with its HTTP routes served.
pub struct Running {
    pub hub: Arc<TestHub>,
    pub rtmp: SocketAddr,
    pub http: SocketAddr,
    pub rtmps: Option<SocketAddr>,
    pub shutdown: CancellationToken,
    pub run: tokio::task::JoinHandle<()>,
}

impl Running {
    pub async fn start(config: Config, key: Option<&str>) -> Self {
        let hub = TestHub::new(key);
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let gateway = Gateway::bind(config, hub.clone()).await.unwrap();
        let (rtmp, rtmps, shutdown) = (gateway.local_addr(), gateway.tls_addr(), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        let routes = gateway.clone().routes();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let running = gateway.run(shutdown.clone());
        let run = tokio::spawn(async move { running.await.unwrap() });
        Self { hub, rtmp, rtmps, http, shutdown, run }
    }

    pub fn rtmp_url(&self, stream: &str) -> String {
        format!("rtmp://{}/{stream}", self.rtmp)
    }
}

/// Polls `done` until it holds.
pub async fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + limit;
    while !done() {
        assert!(tokio::time::Instant::now() < until, "timed out waiting for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

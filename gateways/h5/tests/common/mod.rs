//! A hub on a real bus that passes what a sink takes, a WebSocket client, and media.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod socket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use patchbay_bus::{Bus, Change, Feed, FeedValue, Observer, Point, StreamName};
use patchbay_contract::{
    Answer, Caller, Cause, Closer, Code, Counters, Gateway as _, Hub, Leg, PlayRequest, Publication, PublishRequest, Refusal, SessionId,
};
use patchbay_h5::{Config, Gateway};
use patchbay_media::Kind;
use patchbay_rules::{EndpointKind, Sink};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Viewing {
    id: SessionId,
    stream: StreamName,
    sink: Sink,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
}

/// What the hub has seen.
#[derive(Default)]
pub struct Seen {
    legs: Vec<Viewing>,
    next_id: SessionId,
    /// Who asked for anything, and as what.
    pub callers: Vec<(Caller, EndpointKind)>,
    /// How sessions ended: what they were, and why.
    pub causes: Vec<(&'static str, Cause)>,
}

/// The hub.
pub struct TestHub {
    pub bus: Arc<Bus>,
    seen: Arc<Mutex<Seen>>,
    /// Publishing needs it, if set.
    key: Option<String>,
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

    /// Counters of the viewers that are there, in the order they came.
    pub fn viewers(&self) -> Vec<Arc<Counters>> {
        self.seen().legs.iter().map(|l| l.counters.clone()).collect()
    }

    fn closer(&self, role: &'static str, id: SessionId) -> Closer {
        let seen = self.seen.clone();
        Box::new(move |cause, _| {
            let mut seen = lock(&seen);
            seen.legs.retain(|l| l.id != id);
            seen.causes.push((role, cause));
        })
    }

    fn next_id(&self, caller: &Caller, kind: EndpointKind) -> SessionId {
        let mut seen = self.seen();
        seen.callers.push((caller.clone(), kind));
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
            if self.key.is_some() && self.key.as_deref() != request.caller.credentials.token() {
                return Err(Refusal::new(Code::Unauthorized, format!("publishing {} needs its key", request.stream)));
            }
            let publisher = self.bus.publish(request.stream.clone())?;
            let id = self.next_id(&request.caller, request.kind);
            let cancelled = CancellationToken::new();
            Ok(Publication::new(id, publisher, Arc::default(), cancelled, self.closer("publish", id)))
        })
    }

    fn play(&self, request: PlayRequest) -> Answer<'_, Leg> {
        Box::pin(async move {
            if !request.wait && self.bus.get(&request.stream).is_none() {
                return Err(Refusal::new(Code::StreamNotFound, format!("nobody publishes {} now", request.stream)));
            }
            let id = self.next_id(&request.caller, request.sink.kind);
            let (feed, counters): (Arc<Feed>, Arc<Counters>) = Default::default();
            let closer = self.closer("play", id);
            let leg = Leg::new(id, request.stream.clone(), feed.clone(), counters.clone(), CancellationToken::new(), closer);
            let viewing = Viewing { id, stream: request.stream, sink: request.sink, feed, counters };
            point(&self.bus, &viewing);
            self.seen().legs.push(viewing);
            Ok(leg)
        })
    }

    fn kind_of(&self, _: &StreamName, usual: EndpointKind) -> EndpointKind {
        usual
    }
}

/// A gateway that runs, with its routes served.
pub struct Running {
    pub hub: Arc<TestHub>,
    pub http: SocketAddr,
    pub shutdown: CancellationToken,
    pub run: tokio::task::JoinHandle<()>,
}

impl Running {
    pub async fn start(config: Config, key: Option<&str>) -> Self {
        let hub = TestHub::new(key);
        let (gateway, shutdown) = (Gateway::new(config, hub.clone()), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        let routes = gateway.clone().routes().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let running = gateway.run(shutdown.clone());
        let run = tokio::spawn(async move { running.await.unwrap() });
        Self { hub, http, shutdown, run }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/h5/{path}", self.http)
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

/// A folder for this test binary's files.
pub fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("h5-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    })
}

/// A transport stream of `seconds` made by FFmpeg: 320x180 at 25 fps with a key picture twice a second, and a tone.
pub fn made(name: &str, seconds: &str, codecs: &[&str]) -> PathBuf {
    let path = folder().join(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=25", "-f", "lavfi", "-i", "sine=r=44100"]);
    command.args(["-t", seconds, "-pix_fmt", "yuv420p", "-g", "12", "-ac", "2"]).args(codecs).args(["-f", "mpegts"]).arg(&path);
    assert!(command.status().expect("ffmpeg is installed").success());
    path
}

/// What jsmpeg plays; 8 s.
pub fn mpeg1() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| made("mpeg1.ts", "8", &["-c:v", "mpeg1video", "-b:v", "500k", "-bf", "0", "-c:a", "mp2", "-b:a", "96k"]))
}

/// A process that dies with the test.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Process {
    /// Waits for it to end by itself.
    pub async fn ended(&mut self) -> bool {
        for _ in 0..1_000 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.success();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

/// FFmpeg publishes `file` in real time, once.
pub fn publish(file: &std::path::Path, url: &str) -> Process {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-i"]).arg(file).args([
        "-map",
        "0",
        "-c",
        "copy",
        "-muxdelay",
        "0.001",
        "-f",
        "mpegts",
        url,
    ]);
    Process(command.stdin(Stdio::null()).spawn().expect("ffmpeg is installed"))
}

/// Runs a program to its end, in 20 seconds at most.
pub async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "2", "20", program]).args(args).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

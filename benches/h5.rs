//! One RTMP source, many jsmpeg viewers: the transcode beside FFmpeg's of the same, the viewers beside a plain WebSocket
//! broadcast of the same messages, and one viewer that reads at half the rate.
//!
//!     cargo bench --bench h5 -- [FLV-FILE] [transcode] [viewers] [throttled]      (default fixtures/out/baseline-720p.flv, all)
//!
//! Only the processes compared are measured (utime + stime of /proc), always in the same seconds; the viewers are in this one.

#[path = "../gateways/h5/tests/common/socket.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod socket;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use bytes::Bytes;
use patchbay_h5::ts::{CLOCK_HZ, Demuxer};
use patchbay_media::Kind;
use serde_json::Value;
use socket::Socket;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::sleep;

const HTTP: u16 = 18_580;
const RTMP: u16 = 18_535;
const UDP: u16 = 18_500;
const FLOOR: u16 = 18_581;
const PATH: &str = "/h5/live/s";
/// What this program is called with to be the plain broadcast.
const AS_FLOOR: &str = "--as-plain-broadcast";
/// What can be measured alone.
const PARTS: [&str; 3] = ["transcode", "viewers", "throttled"];
const VIEWERS: usize = 100;
const WARM_UP: Duration = Duration::from_secs(3);
/// Seconds of one measurement, and how many there are of each kind; the median counts.
const WINDOW: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// A process that does not outlive this one.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
    }

    /// Milliseconds of CPU so far.
    fn cpu_ms(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        10.0 * [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<f64>().ok()).sum::<f64>()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn patchbay() -> Running {
    let ports =
        [format!("http.listen=127.0.0.1:{HTTP}"), format!("rtmp.listen=127.0.0.1:{RTMP}"), format!("webrtc.listen=127.0.0.1:{UDP}")];
    let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
    Running::start(command.arg("run").args(ports.iter().flat_map(|port| ["--set", port])))
}

fn source(file: &str) -> Running {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-f", "flv"]);
    Running::start(command.arg(format!("rtmp://127.0.0.1:{RTMP}/live/s")))
}

/// FFmpeg makes of the same file what patchbay makes for jsmpeg.
fn ffmpeg(file: &str, kbps: &str) -> Running {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-threads", "1", "-re", "-stream_loop", "-1", "-i", file]);
    command.args(["-c:v", "mpeg1video", "-threads", "1", "-bf", "0", "-g", "60", "-flags", "+low_delay+cgop", "-strict", "unofficial"]);
    command.args(["-sc_threshold", "1000000000", "-b:v", kbps, "-maxrate", kbps, "-bufsize", kbps]);
    Running::start(command.args(["-c:a", "mp2", "-b:a", "128k", "-ar", "44100", "-ac", "2", "-f", "mpegts", "-y", "/dev/null"]))
}

/// The plain broadcast: one reader of patchbay, and what it reads to everybody. Nothing is skipped, paced or counted.
async fn plain_broadcast() {
    let (sender, _) = broadcast::channel::<Bytes>(64);
    let everybody = sender.clone();
    tokio::spawn(async move {
        let mut socket = Socket::open(address(HTTP), PATH, "").await;
        while let Some(message) = socket.binary().await {
            _ = everybody.send(message.into());
        }
    });
    let app = axum::Router::new().route(PATH, axum::routing::get(serve_plainly)).with_state(sender);
    let listener = tokio::net::TcpListener::bind(address(FLOOR)).await.expect("the port is free");
    axum::serve(listener, app).await.expect("it serves");
}

async fn serve_plainly(State(sender): State<broadcast::Sender<Bytes>>, upgrade: WebSocketUpgrade) -> Response {
    let mut messages = sender.subscribe();
    upgrade.on_upgrade(async move |mut socket| {
        while let Ok(message) = messages.recv().await {
            if socket.send(Message::Binary(message)).await.is_err() {
                return;
            }
        }
    })
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// What viewers received.
#[derive(Default)]
struct Totals {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// `count` viewers; they leave when this is dropped.
async fn watch(port: u16, count: usize, totals: &Arc<Totals>) -> JoinSet<()> {
    let mut viewers = JoinSet::new();
    for _ in 0..count {
        let mut socket = Socket::open(address(port), PATH, "").await;
        let totals = totals.clone();
        viewers.spawn(async move {
            while let Some(message) = socket.binary().await {
                totals.messages.fetch_add(1, Ordering::Relaxed);
                totals.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
            }
        });
    }
    viewers
}

/// CPU of each process in one window, milliseconds per second.
async fn measure<const N: usize>(processes: [&Running; N]) -> [f64; N] {
    sleep(WARM_UP).await;
    let (before, begin) = (processes.map(Running::cpu_ms), Instant::now());
    sleep(WINDOW).await;
    let seconds = begin.elapsed().as_secs_f64();
    let after = processes.map(Running::cpu_ms);
    std::array::from_fn(|i| (after[i] - before[i]) / seconds)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn api(path: &str) -> Value {
    ureq::get(format!("http://127.0.0.1:{HTTP}{path}")).call().expect("the API answers").body_mut().read_json().expect("JSON")
}

fn renditions() -> Vec<Value> {
    api("/v1/streams")["streams"][0]["renditions"].as_array().cloned().unwrap_or_default()
}

/// CPU of decoder and encoders by patchbay's own account, milliseconds.
fn renditions_cpu_ms() -> f64 {
    renditions().iter().filter_map(|r| r["cpu_ms"].as_f64()).sum()
}

/// The transcode for one viewer beside FFmpeg's.
async fn transcode(server: &Running, file: &str) {
    let totals = Arc::new(Totals::default());
    let (mut ours, mut account, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let [idle] = measure([server]).await;
        let _viewer = watch(HTTP, 1, &totals).await;
        let other = ffmpeg(file, "4000k");
        sleep(Duration::from_secs(1)).await;
        let (before, begin) = (renditions_cpu_ms(), Instant::now());
        let [one, ffmpeg] = measure([server, &other]).await;
        account.push((renditions_cpu_ms() - before) / begin.elapsed().as_secs_f64());
        ours.push(one - idle);
        theirs.push(ffmpeg);
    }
    let targets: Vec<_> = renditions().iter().map(|r| r["target"].as_str().unwrap_or_default().to_owned()).collect();
    let (ours, account, theirs) = (median(ours), median(account), median(theirs));
    println!(
        "transcode, ms CPU/s: patchbay {ours:.1} (codecs alone {account:.1}), ffmpeg {theirs:.1}, ratio {:.2}; {targets:?}",
        ours / theirs
    );
}

/// A hundred viewers beside the plain broadcast to as many.
async fn viewers(server: &Running) {
    let floor = Running::start(Command::new(std::env::current_exe().expect("a path")).arg(AS_FLOOR));
    sleep(Duration::from_secs(1)).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (here, there) = (Arc::new(Totals::default()), Arc::new(Totals::default()));
    // The broadcast's own reader is patchbay's first viewer.
    for _ in 0..ROUNDS {
        let few = (watch(HTTP, 1, &here).await, watch(FLOOR, 1, &there).await);
        let [server_few, floor_few] = measure([server, &floor]).await;
        drop(few);
        let many = watch(HTTP, VIEWERS, &here).await;
        let [server_many, _] = measure([server, &floor]).await;
        let counted = (renditions().len(), api("/v1/pairs")["pairs"].as_array().map_or(0, Vec::len));
        assert_eq!(counted, (2, VIEWERS + 1), "one video and one audio encoder for all");
        drop(many);
        let many = watch(FLOOR, VIEWERS, &there).await;
        let [_, floor_many] = measure([server, &floor]).await;
        drop(many);
        ours.push((server_many - server_few) / (VIEWERS - 1) as f64);
        theirs.push((floor_many - floor_few) / (VIEWERS - 1) as f64);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("viewers, ms CPU per viewer-second: patchbay {ours:.3}, plain broadcast {theirs:.3}, ratio {:.2}", ours / theirs);
    let per = |totals: &Totals| totals.bytes.load(Ordering::Relaxed) / totals.messages.load(Ordering::Relaxed).max(1);
    println!("  bytes per message: {} and {}", per(&here), per(&there));
}

/// A viewer that reads what it gets.
struct Follower {
    /// The newest time stamp of a picture that a viewer at full rate has.
    newest: Arc<AtomicI64>,
    /// Of one that does not: bytes per second, and how far behind each of its pictures was, milliseconds.
    slow: Option<(f64, Arc<Mutex<Vec<f64>>>)>,
}

impl Follower {
    async fn run(self) {
        let mut socket = Socket::open(address(HTTP), PATH, "").await;
        let (mut demuxer, mut units) = (Demuxer::new(), Vec::new());
        while let Some(message) = socket.binary().await {
            // As on a link of this rate: what it was idle before counts for nothing.
            if let Some((rate, _)) = self.slow {
                sleep(Duration::from_secs_f64(message.len() as f64 / rate)).await;
            }
            demuxer.push(&message, &mut units);
            for unit in units.drain(..).filter(|unit| unit.stream_type.kind() == Kind::Video) {
                self.picture(unit.pts.unwrap_or(0) as i64);
            }
        }
    }

    fn picture(&self, pts: i64) {
        match &self.slow {
            None => self.newest.store(pts, Ordering::Relaxed),
            Some((_, behind)) => {
                let ticks = self.newest.load(Ordering::Relaxed) - pts;
                behind.lock().expect("not poisoned").push(1e3 * ticks as f64 / f64::from(CLOCK_HZ));
            }
        }
    }
}

/// Bytes of one viewer in a second.
async fn rate() -> f64 {
    let totals = Arc::new(Totals::default());
    let _viewer = watch(HTTP, 1, &totals).await;
    sleep(WARM_UP).await;
    let before = totals.bytes.load(Ordering::Relaxed);
    sleep(Duration::from_secs(5)).await;
    (totals.bytes.load(Ordering::Relaxed) - before) as f64 / 5.0
}

/// One viewer at half the rate among others.
async fn throttled() {
    let half = rate().await / 2.0;
    let (newest, behind): (Arc<AtomicI64>, Arc<Mutex<Vec<f64>>>) = Default::default();
    let mut followers = JoinSet::new();
    followers.spawn(Follower { newest: newest.clone(), slow: None }.run());
    sleep(Duration::from_secs(1)).await;
    followers.spawn(Follower { newest, slow: Some((half, behind.clone())) }.run());
    let totals = Arc::new(Totals::default());
    let _others = watch(HTTP, 10, &totals).await;
    sleep(WARM_UP).await;
    // It was given the group so far when it joined.
    behind.lock().expect("not poisoned").clear();
    sleep(2 * WINDOW).await;
    let behind = behind.lock().expect("not poisoned").clone();
    let worst = behind.iter().copied().fold(0.0, f64::max);
    let pairs = api("/v1/pairs")["pairs"].as_array().cloned().unwrap_or_default();
    let mut skipped: Vec<u64> = pairs.iter().filter_map(|pair| pair["skipped"].as_u64()).collect();
    skipped.sort_unstable();
    let own = skipped.pop().unwrap_or(0);
    println!(
        "one viewer at half rate ({:.0} kbit/s): {} pictures in {} s, behind {:.0} ms in the middle, {worst:.0} ms at worst; {own} frames skipped for it, {} for {} others",
        half * 8e-3,
        behind.len(),
        2 * WINDOW.as_secs(),
        median(behind),
        skipped.iter().sum::<u64>(),
        skipped.len(),
    );
    assert!(own > 0 && worst < 1_000.0 && skipped.iter().all(|n| *n == 0), "{skipped:?}");
}

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == AS_FLOOR) {
        return plain_broadcast().await;
    }
    let chosen = |part: &str| arguments.iter().any(|a| a == part) || !arguments.iter().any(|a| PARTS.contains(&a.as_str()));
    let file = arguments.iter().find(|a| a.ends_with(".flv")).map_or("fixtures/out/baseline-720p.flv", String::as_str);
    assert!(std::path::Path::new(file).exists(), "{file} is missing; run fixtures/make.sh all");
    let server = patchbay();
    while tokio::net::TcpStream::connect(address(HTTP)).await.is_err() {
        sleep(Duration::from_millis(50)).await;
    }
    let _source = source(file);
    sleep(Duration::from_secs(3)).await;
    if chosen(PARTS[0]) {
        transcode(&server, file).await;
    }
    if chosen(PARTS[1]) {
        viewers(&server).await;
    }
    if chosen(PARTS[2]) {
        throttled().await;
    }
}

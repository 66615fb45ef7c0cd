//! Hours with real sources and many viewers behind networks that change: what grows, what drifts, what is lost.
//!
//!     SOAK_SECONDS=3600 SOAK_SOURCES=5 SOAK_VIEWERS=20 SOAK_ROW=60 cargo bench --bench soak
//!
//! Every minute (`SOAK_ROW` seconds) another network, and a row, of the server's process alone and of what viewers got; every
//! five minutes a look with Chromium. Each source has an RTMP, an HTTP-FLV and a jsmpeg player, and WHEP viewers behind that
//! network (tests/impair). Rows and looks are also lines of JSON in target/soak.

#[path = "../../gateways/h5/tests/common/socket.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod socket;
#[path = "../support/mod.rs"]
mod support;

mod pictures;
mod probe;
mod seen;
mod sources;
mod table;
mod viewers;

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use patchbay_impair::{DirectionStats, Proxy, Setting};
use seen::{Window, middle};
use serde_json::{Value, json};
use sources::{FPS, Source};
use support::hub::Hub;
use support::process::{Figures, figures};
use table::{Group, Row};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use viewers::{Player, Viewer};

/// Stands for the server's address; the proxy has the server's port there.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Until everybody is in.
const WARM_UP: Duration = Duration::from_secs(12);
/// One after the other, in both directions.
const NETWORKS: [&str; 7] = [
    "",
    "loss=1 delay=10",
    "loss=5 delay=10",
    "delay=20 jitter=40",
    "rate=700 delay=10",
    "loss=2 burst=8 delay=10",
    "reorder=5 hold=20 delay=10",
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

struct Soak {
    hub: Arc<Hub>,
    proxy: Proxy,
    sources: Vec<Source>,
    viewers: Vec<Viewer>,
    begin: Instant,
    /// Where the lines of JSON go.
    file: File,
}

/// What only grows, at the begin of a window.
struct Mark {
    at: Instant,
    hub: Figures,
    clients: Figures,
    down: DirectionStats,
    away_ms: Vec<u64>,
}

impl Soak {
    async fn start() -> Self {
        let hub = Arc::new(Hub::start(&[]));
        let (count, each) = (number("SOAK_SOURCES", 5) as usize, number("SOAK_VIEWERS", 20) as usize);
        let seconds = Duration::from_secs(number("SOAK_SECONDS", 3_600));
        let target = ([127, 0, 0, 1], hub.udp).into();
        let proxy = Proxy::udp((OUTSIDE, hub.udp).into(), target, Setting::default(), 1).await.expect("the proxy listens");
        let sources: Vec<_> = (0..count).map(|n| Source::start(&hub, n, (seconds / 3).min(LOOK_EVERY * 3 / 5))).collect();
        sleep(Duration::from_secs(3)).await;
        let mut viewers = Vec::new();
        for n in 0..each {
            let player = [Player::Rtmp, Player::Flv, Player::Jsmpeg].get(n).copied().unwrap_or(Player::Whep);
            let start = |(number, source): (usize, &Source)| Viewer::start(hub.clone(), player, number, source.stream.clone(), OUTSIDE);
            viewers.extend(sources.iter().enumerate().map(start));
            sleep(Duration::from_millis(100)).await;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("soak");
        std::fs::create_dir_all(&folder).expect("a folder under target");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let path = folder.join(format!("{now}.jsonl"));
        let kinds: Vec<_> = sources.iter().map(|s| format!("{:?}", s.kind)).collect();
        println!("{} sources ({}), {each} viewers each; {}", count, kinds.join(", "), path.display());
        Self { hub, proxy, sources, viewers, begin: Instant::now(), file: File::create(path).expect("a file under target") }
    }

    fn mark(&self) -> Mark {
        Mark {
            at: Instant::now(),
            hub: self.hub.figures(),
            clients: figures(std::process::id()),
            down: self.proxy.stats().down,
            away_ms: self.sources.iter().map(|s| s.away_ms.load(Ordering::Relaxed)).collect(),
        }
    }

    fn windows(&self) -> Vec<Window> {
        self.viewers.iter().map(|v| v.seen.lock().expect("not poisoned").take()).collect()
    }

    /// Closes the window that began with `mark`.
    fn row(&mut self, mark: &Mark, network: &str) -> String {
        let (now, windows) = (self.mark(), self.windows());
        let seconds = (now.at - mark.at).as_secs_f64();
        // What a source sent while it was there.
        let expected = |source: usize| FPS as f64 * (seconds - (now.away_ms[source] - mark.away_ms[source]) as f64 / 1e3);
        let group = |wanted: &dyn Fn(&Viewer) -> bool| {
            let of = self.viewers.iter().zip(&windows).filter(|(viewer, _)| wanted(viewer));
            Group::of(of.map(|(viewer, window)| (window, expected(viewer.source))))
        };
        let per_minute = |after: Duration, before: Duration| (after - before).as_secs_f64() * 60.0 / seconds;
        let pairs = self.hub.rows("/v1/pairs", "pairs");
        let [received, lost] = [now.down.received - mark.down.received, now.down.lost + now.down.full - mark.down.lost - mark.down.full];
        let (whep, tcp) = (group(&|v| v.player == Player::Whep), group(&|v| v.player != Player::Whep));
        let row = Row {
            seconds: self.begin.elapsed().as_secs_f64(),
            network: if network.is_empty() { "clean" } else { network },
            cpu_s: per_minute(now.hub.cpu, mark.hub.cpu),
            rss_mib: now.hub.rss_kib as f64 / 1_024.0,
            descriptors: now.hub.descriptors,
            threads: now.hub.threads,
            whep: &whep,
            tcp: &tcp,
            estimate_kbps: middle(pairs.iter().filter_map(|p| p["bandwidth_kbps"].as_f64()).collect()).unwrap_or(f64::NAN),
            lost_pct: 100.0 * lost as f64 / received.max(1) as f64,
            clients_cpu_s: per_minute(now.clients.cpu, mark.clients.cpu),
        };
        let mut line = row.json();
        line["sources"] = self
            .sources
            .iter()
            .enumerate()
            .map(|(n, source)| {
                let of = |player: Player| group(&|v| v.source == n && v.player == player).json();
                let [whep, rtmp, flv, jsmpeg] = [Player::Whep, Player::Rtmp, Player::Flv, Player::Jsmpeg].map(of);
                json!({ "kind": format!("{:?}", source.kind), "whep": whep, "rtmp": rtmp, "flv": flv, "jsmpeg": jsmpeg })
            })
            .collect();
        line["overflowed"] = (now.down.overflowed - mark.down.overflowed).into();
        line["sessions"] = self.hub.rows("/v1/sessions", "sessions").len().into();
        let text = row.line();
        self.record(&line);
        text
    }

    fn record(&mut self, line: &Value) {
        writeln!(self.file, "{line}").expect("it is written");
    }
}

/// Row after row, for so long.
async fn run(mut soak: Soak, seconds: Duration) {
    println!("{}", Row::head());
    let row = Duration::from_secs(number("SOAK_ROW", 60));
    let (looks, mut looked) = mpsc::channel::<Value>(8);
    let mut next_look = Duration::ZERO;
    for network in NETWORKS.iter().cycle() {
        if soak.begin.elapsed() + row / 2 > seconds {
            break;
        }
        soak.proxy.set(Setting::both(network.parse().expect("a profile")));
        let mark = soak.mark();
        if soak.begin.elapsed() >= next_look {
            next_look += LOOK_EVERY;
            let (looks, url) = (looks.clone(), soak.hub.url(&format!("/whep/{}", soak.sources[0].stream)));
            tokio::task::spawn_blocking(move || looks.blocking_send(probe::look(&url)));
        }
        sleep(row.min(seconds.saturating_sub(soak.begin.elapsed()))).await;
        println!("{}", soak.row(&mark, network));
        while let Ok(look) = looked.try_recv() {
            println!("       Chromium: {look}");
            soak.record(&json!({ "seconds": soak.begin.elapsed().as_secs_f64(), "chromium": look }));
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let seconds = Duration::from_secs(number("SOAK_SECONDS", 3_600));
    let mut terminate = signal(SignalKind::terminate()).expect("a handler");
    let mut soak = Soak::start().await;
    sleep(WARM_UP).await;
    soak.windows();
    soak.begin = Instant::now();
    // Ended early, it still takes its processes with it.
    tokio::select! {
        () = run(soak, seconds) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

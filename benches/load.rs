//! One RTMP source, many viewers: CPU and memory of the server per viewer, beside the floors of docs/performance.md.
//!
//!     cargo bench --bench load -- [FLV-FILE] [mute]      (default fixtures/out/baseline-720p.flv)
//!
//! The WHEP viewers give reports and feedback as browsers do; with `mute` they count datagrams and answer STUN only.
//! Only the server's process is measured (utime + stime of /proc). `LOAD_VIEWERS` is a list such as `rtmp:50,whep:100`.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use patchbay_rtmp::proto::client::Mode;
use str0m::media::Direction;
use support::hub::{Hub, publish};
use support::rtmp::Rtmp;
use support::webrtc::{Manner, Peer, Traffic};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Seconds each load is measured for, after a warm-up.
const WINDOW: Duration = Duration::from_secs(12);
const WARM_UP: Duration = Duration::from_secs(4);
const LOADS: &str = "rtmp:50,whep:10,whep:50,whep:100";

/// What viewers received, and how many are in.
#[derive(Default)]
struct Totals {
    traffic: Arc<Traffic>,
    connected: AtomicU64,
}

async fn watch(endpoint: String, manner: Manner, totals: Arc<Totals>) {
    let mut peer = Peer::join(endpoint, Direction::RecvOnly, manner, None).await.expect("it is let in");
    peer.traffic = totals.traffic.clone();
    let mut counted = false;
    while peer.next().await.is_some() {
        if peer.connected && !std::mem::replace(&mut counted, true) {
            totals.connected.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Plays over RTMP; once it is let in, the bytes are only counted.
async fn play(url: String, totals: Arc<Totals>) {
    let mut client = Rtmp::open(&url, Mode::Play).await.expect("it is let in");
    totals.connected.fetch_add(1, Ordering::Relaxed);
    while let Ok(bytes) = client.read().await {
        totals.traffic.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

struct Row {
    cpu_ms_per_s: f64,
    rss_kib: u64,
    datagrams: f64,
    megabits: f64,
    /// How long frames stay inside, smoothed, for each viewer; in order.
    delays_ms: Vec<f64>,
}

async fn measure(hub: &Hub, totals: &Totals, want: u64) -> Row {
    let begin = Instant::now();
    while totals.connected.load(Ordering::Relaxed) < want && begin.elapsed() < Duration::from_secs(90) {
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(totals.connected.load(Ordering::Relaxed), want, "every viewer connects");
    sleep(WARM_UP).await;
    let count = || [&totals.traffic.datagrams, &totals.traffic.bytes].map(|n| n.load(Ordering::Relaxed) as f64);
    let (figures, [datagrams, bytes], begin) = (hub.figures(), count(), Instant::now());
    sleep(WINDOW).await;
    let (after, [datagrams_after, bytes_after], seconds) = (hub.figures(), count(), begin.elapsed().as_secs_f64());
    let pairs = hub.rows("/v1/pairs", "pairs");
    let mut delays_ms: Vec<f64> = pairs.iter().filter_map(|pair| pair["added_delay_ms"].as_f64()).collect();
    delays_ms.sort_by(f64::total_cmp);
    Row {
        cpu_ms_per_s: (after.cpu - figures.cpu).as_secs_f64() * 1e3 / seconds,
        rss_kib: after.rss_kib,
        datagrams: (datagrams_after - datagrams) / seconds,
        megabits: (bytes_after - bytes) * 8e-6 / seconds,
        delays_ms,
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let manner = if arguments.iter().any(|a| a == "mute") { Manner::Mute } else { Manner::Packets };
    let file = arguments.iter().find(|a| a.ends_with(".flv")).map_or("fixtures/out/baseline-720p.flv", String::as_str);
    let loads = std::env::var("LOAD_VIEWERS").unwrap_or_else(|_| LOADS.into());
    let hub = Hub::start(&[]);
    let _source = publish(file, "flv", &hub.rtmp_url("live/s"));
    sleep(Duration::from_secs(3)).await;
    let idle = measure(&hub, &Totals::default(), 0).await;
    println!("source alone: {:.1} ms CPU/s, {} KiB", idle.cpu_ms_per_s, idle.rss_kib);
    println!(
        "{:>6} {:>8} {:>14} {:>12} {:>14} {:>10} {:>12} {:>14} renditions",
        "kind", "viewers", "ms CPU/s all", "ms/viewer-s", "datagrams/s", "Mbit/s", "KiB/viewer", "p99 inside, ms"
    );
    for (n, load) in loads.split(',').enumerate() {
        if n > 0 {
            sleep(Duration::from_secs(22)).await; // those before left without a goodbye: until they are missed
        }
        let (kind, count) = load.split_once(':').and_then(|(kind, n)| Some((kind, n.parse::<u64>().ok()?))).expect("KIND:VIEWERS");
        let (totals, mut viewers) = (Arc::new(Totals::default()), JoinSet::new());
        for _ in 0..count {
            match kind {
                "whep" => viewers.spawn(watch(hub.url("/whep/live/s"), manner, totals.clone())),
                _ => viewers.spawn(play(hub.rtmp_url("live/s"), totals.clone())),
            };
        }
        let row = measure(&hub, &totals, count).await;
        let distinct: HashSet<_> = hub.renditions().iter().map(|r| r["target"].to_string()).collect();
        println!(
            "{kind:>6} {count:>8} {:>14.1} {:>12.3} {:>14.0} {:>10.1} {:>12.0} {:>14.1} {distinct:?}",
            row.cpu_ms_per_s,
            (row.cpu_ms_per_s - idle.cpu_ms_per_s) / count as f64,
            row.datagrams,
            row.megabits,
            row.rss_kib.saturating_sub(idle.rss_kib) as f64 / count as f64,
            row.delays_ms.get((row.delays_ms.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN),
        );
        viewers.shutdown().await;
    }
}

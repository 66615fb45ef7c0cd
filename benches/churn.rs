//! Clients that come and go: what they leave behind in the server. Nothing may grow.
//!
//!     CHURN_CYCLES=20000 cargo bench --bench churn      (default 2000)
//!
//! A cycle is an RTMP publisher, an RTMP player, a WHIP publisher and a WHEP viewer, each until it is let in (RTMP) or has
//! finished ICE and DTLS (WebRTC). Every second one of each leaves without a goodbye. Some cycles run at a time. The server
//! is read when it is at rest again.

mod support;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_rtmp::proto::client::Mode;
use str0m::media::Direction;
use support::hub::{Hub, publish};
use support::process::Figures;
use support::rtmp::Rtmp;
use support::webrtc::{Manner, Peer};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Cycles between two readings.
const STEP: usize = 1_000;
/// Cycles at a time.
const AT_ONCE: usize = 6;
/// Longest wait for any one client to be let in.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for the peers that left without a goodbye to be missed.
const SETTLE: Duration = Duration::from_secs(60);

/// Is let in over RTMP, and leaves.
async fn rtmp(url: &str, mode: Mode, goodbye: bool) {
    let mut client = Rtmp::open(url, mode).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    if mode == Mode::Publish {
        client.session.send_audio(0, &[0xaf, 0, 0x12, 0x10]).expect("it publishes");
        client.session.send_audio(0, &[0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c]).expect("it publishes");
    }
    if goodbye {
        client.session.finish();
    }
    _ = client.flush().await;
}

/// Connects over WebRTC, and leaves.
async fn webrtc(endpoint: String, direction: Direction, goodbye: bool) {
    let mut peer = Peer::join(endpoint, direction, Manner::Packets, None).await.expect("it is let in");
    while !peer.connected {
        peer.next().await.expect("it is let in");
    }
    if goodbye {
        peer.leave().await.expect("200");
    }
}

async fn cycle(hub: Arc<Hub>, n: usize) {
    let goodbye = n.is_multiple_of(2);
    let all = async {
        rtmp(&hub.rtmp_url(&format!("churn/rtmp{n}")), Mode::Publish, goodbye).await;
        rtmp(&hub.rtmp_url("live/s"), Mode::Play, goodbye).await;
        webrtc(hub.url(&format!("/whip/churn/whip{n}")), Direction::SendOnly, goodbye).await;
        webrtc(hub.url("/whep/live/s"), Direction::RecvOnly, goodbye).await;
    };
    timeout(4 * PATIENCE, all).await.unwrap_or_else(|_| panic!("cycle {n} stands still"));
}

/// These cycles, some at a time.
async fn run(hub: &Arc<Hub>, numbers: Range<usize>) {
    let mut running = JoinSet::new();
    for n in numbers {
        if running.len() >= AT_ONCE {
            running.join_next().await.expect("it runs").expect("no client is refused");
        }
        running.spawn(cycle(hub.clone(), n));
    }
    running.join_all().await;
}

/// One reading of the server.
struct Reading {
    figures: Figures,
    /// By the API, and by the metrics.
    sessions: (usize, f64),
}

impl Reading {
    fn take(hub: &Hub) -> Self {
        Self { figures: hub.figures(), sessions: (hub.rows("/v1/sessions", "sessions").len(), hub.metric("patchbay_sessions")) }
    }

    /// Once every session that was not there before has ended.
    async fn at_rest(hub: &Hub, before: &Self) -> Self {
        let begin = Instant::now();
        loop {
            let reading = Self::take(hub);
            if reading.sessions == before.sessions {
                return reading;
            }
            assert!(begin.elapsed() < SETTLE, "sessions (API, metrics) stay: {:?}", reading.sessions);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn print(&self, label: &str, seconds: f64) {
        let (Figures { cpu, rss_kib, threads, descriptors }, (listed, counted)) = (self.figures, self.sessions);
        println!(
            "{label:>8} {seconds:>8.0} {:>8.1} {rss_kib:>9} {descriptors:>12} {threads:>8} {listed:>9} {counted:>8}",
            cpu.as_secs_f64()
        );
    }
}

/// Growth per reading over the second half (least squares); the first half fills caches and pools.
fn slope(readings: &[f64]) -> f64 {
    let half = &readings[readings.len() / 2..];
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / half.len() as f64;
    let (x, y) = (mean(&mut (0..half.len()).map(|i| i as f64)), mean(&mut half.iter().copied()));
    let (mut both, mut square) = (0.0, 0.0);
    for (i, reading) in half.iter().enumerate() {
        both += (i as f64 - x) * (reading - y);
        square += (i as f64 - x).powi(2);
    }
    both / square.max(1.0)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let cycles: usize = std::env::var("CHURN_CYCLES").map_or(2_000, |n| n.parse().expect("CHURN_CYCLES is a number"));
    // Those that left without a goodbye are to be gone before they are too many.
    let hub = Arc::new(Hub::start(&["webrtc.idle_timeout_s=5", "limits.publisher_grace_s=2", "log.level=warn"]));
    let _source = publish("fixtures/out/baseline-360p.flv", "flv", &hub.rtmp_url("live/s"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let step = STEP.min((cycles / 10).max(1));
    println!(
        "{:>8} {:>8} {:>8} {:>9} {:>12} {:>8} {:>9} {:>8}",
        "cycles", "seconds", "CPU s", "RSS KiB", "descriptors", "threads", "sessions", "metrics"
    );
    let base = Reading::take(&hub);
    base.print("at rest", 0.0);
    let (mut readings, begin) = (Vec::new(), Instant::now());
    for first in (0..cycles).step_by(step) {
        let numbers = first..cycles.min(first + step);
        let label = numbers.end.to_string();
        run(&hub, numbers).await;
        let reading = Reading::at_rest(&hub, &base).await;
        reading.print(&label, begin.elapsed().as_secs_f64());
        readings.push(reading);
    }
    let grows = |of: fn(&Figures) -> f64| slope(&readings.iter().map(|r| of(&r.figures)).collect::<Vec<_>>()) * 100.0 / step as f64;
    println!(
        "per 100 cycles, second half: {:+.0} bytes, {:+.2} descriptors, {:+.2} threads",
        grows(|f| f.rss_kib as f64 * 1_024.0),
        grows(|f| f.descriptors as f64),
        grows(|f| f.threads as f64)
    );
    let end = readings.last().expect("a reading");
    assert!(end.figures.descriptors <= base.figures.descriptors + 8, "every descriptor is closed");
    assert!(end.figures.threads <= base.figures.threads + 8, "every thread has ended");
}

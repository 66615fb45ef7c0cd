//! What one WHEP viewer costs: CPU time of the media thread per forwarded packet, by number of viewers.
//!
//! One 720p30-like source (7 packets per picture, 50 audio packets per second) in process, one worker, viewers that
//! answer as a browser does (reports and transport feedback), whose own cost is not counted. On loopback the sender's CPU time includes the receive softirq.

#[path = "../tests/webrtc/support/client.rs"]
mod client;
#[path = "../tests/webrtc/support/hub.rs"]
mod hub;
#[path = "../tests/webrtc/support/wire.rs"]
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use patchbay_bus::{Publisher, TrackWriter};
use patchbay_contract::Gateway as _;
use patchbay_media::h264::ParameterSets;
use patchbay_media::{AudioShape, Codec, Frame, MediaTime, TrackInfo};
use patchbay_webrtc::{Config, Gateway};
use str0m::media::Direction;
use tokio_util::sync::CancellationToken;

const VIEWERS: [usize; 3] = [10, 50, 100];
const MEASURED: Duration = Duration::from_secs(5);
/// Bandwidth estimation has found its level by then.
const SETTLE: Duration = Duration::from_secs(4);
/// µs per packet: floors of GSO with AES-GCM and with AES-CM, and what SRS spends.
const FLOORS: &str = "floor 1.8 (GCM+GSO) / 3.6 (CM+GSO); SRS 13-15";

/// x264, High, 1280x720.
const SPS: &[u8] =
    &[0x67, 0x64, 0, 0x1f, 0xac, 0xd9, 0x40, 0x50, 0x05, 0xbb, 0x01, 0x10, 0, 0, 3, 0, 0x10, 0, 0, 3, 3, 0xc0, 0xf1, 0x83, 0x19, 0x60];
const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

struct Source {
    _publisher: Publisher,
    video: TrackWriter,
    audio: TrackWriter,
}

impl Source {
    fn new(hub: &hub::PassHub) -> Self {
        let sets = ParameterSets { sps: vec![Bytes::from_static(SPS)], pps: vec![Bytes::from_static(PPS)] };
        let publisher = hub.bus.publish("live/bench".parse().unwrap()).unwrap();
        let video = publisher.add_track(sets.track_info().unwrap());
        let shape = AudioShape { sample_rate: 48_000, channels: 2 };
        let audio = publisher.add_track(TrackInfo::audio(Codec::Opus, Bytes::new(), shape));
        Self { _publisher: publisher, video, audio }
    }

    /// Pushes in real time until told to stop: 30 pictures and 50 audio packets per second.
    fn play(mut self, stop: &AtomicBool) {
        let picture = |key: bool| {
            let len = if key { 35_000 } else { 8_100 };
            let mut unit = vec![if key { 0x65 } else { 0x41 }; len];
            unit.splice(0..0, u32::try_from(len).unwrap().to_be_bytes());
            Bytes::from(unit)
        };
        let (key, delta, sound) = (picture(true), picture(false), Bytes::from(vec![0xfc; 160]));
        let (mut pictures, mut sounds, began) = (0i64, 0i64, patchbay_bus::now());
        while !stop.load(Ordering::Relaxed) {
            let frame =
                |pts, key, payload| Frame { pts, dts: pts, duration: MediaTime::ZERO, key, loss: 0, arrival: patchbay_bus::now(), payload };
            let (next_picture, next_sound) = (began + MediaTime::from_ticks(pictures, 30), began + MediaTime::from_ticks(sounds, 50));
            std::thread::sleep((next_picture.min(next_sound) - patchbay_bus::now()).to_duration());
            if next_picture <= next_sound {
                let is_key = pictures % 60 == 0;
                self.video.push(frame(next_picture, is_key, if is_key { key.clone() } else { delta.clone() }));
                pictures += 1;
            } else {
                self.audio.push(frame(next_sound, true, sound.clone()));
                sounds += 1;
            }
        }
    }
}

/// CPU time of the threads whose name begins with `name`.
fn thread_cpu(name: &str) -> Duration {
    let mut total = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").starts_with(name) {
            total += read("schedstat").split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0u64);
        }
    }
    Duration::from_nanos(total)
}

fn main() {
    let hub = hub::PassHub::new();
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), workers: 1, ..Config::default() };
    let gateway = Gateway::bind(config, hub.clone()).unwrap();
    let shutdown = CancellationToken::new();
    let (send, receive) = std::sync::mpsc::channel();
    let stop = shutdown.clone();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            let running = tokio::spawn(gateway.clone().run(stop.clone()));
            let routes = gateway.routes().into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, routes).with_graceful_shutdown(async move { stop.cancelled().await }).await.unwrap();
            running.await.unwrap().unwrap();
        });
    });
    let url = format!("http://{}/whep/live/bench", receive.recv().unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let source = Source::new(&hub);
    let playing = std::thread::spawn({
        let over = over.clone();
        move || source.play(&over)
    });
    println!("{FLOORS} us per packet");
    println!("{:>8} {:>10} {:>12} {:>18} {:>10}", "viewers", "packets/s", "us/packet", "ms/viewer-second", "RSS MiB");
    for count in VIEWERS {
        measure(&url, count);
    }
    over.store(true, Ordering::Relaxed);
    playing.join().unwrap();
    shutdown.cancel();
    server.join().unwrap();
}

fn measure(url: &str, count: usize) {
    let mut clients: Vec<client::Client> = Vec::new();
    for _ in 0..count {
        clients.push(client::Client::open(url, Direction::RecvOnly));
        // Who waits for his packets is taken for a slow link.
        while !clients.iter().all(|client| client.connected) {
            clients.iter_mut().for_each(|client| _ = client.turn());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let mut drain = |until: Instant| {
        let mut packets = 0;
        while Instant::now() < until {
            packets += clients.iter_mut().map(client::Client::turn).sum::<usize>();
            std::thread::sleep(Duration::from_millis(1));
        }
        packets
    };
    drain(Instant::now() + SETTLE);
    let (cpu, began) = (thread_cpu("webrtc-"), Instant::now());
    let sent = drain(began + MEASURED) as f64;
    let (cpu, took) = (thread_cpu("webrtc-") - cpu, began.elapsed().as_secs_f64());
    println!(
        "{count:>8} {:>10.0} {:>12.2} {:>18.2} {:>10.1}",
        sent / took,
        cpu.as_secs_f64() * 1e6 / sent,
        cpu.as_secs_f64() * 1e3 / took / count as f64,
        rss_mib(),
    );
    clients.iter().for_each(|client| assert_eq!(client.delete(), 200));
}

fn rss_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * 4_096.0 / f64::from(1 << 20)
}

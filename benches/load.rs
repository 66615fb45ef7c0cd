//! One RTMP source, many viewers: CPU and memory of the server per viewer, beside the floors of docs/performance.md.
//!
//!     cargo bench --bench load -- [FLV-FILE]      (default fixtures/out/baseline-720p.flv)
//!
//! The WHEP viewers are blind: full ICE and DTLS-SRTP, then they count datagrams and answer STUN, without decrypting.
//! Only the server's process is measured (utime + stime of /proc).

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use patchbay_rtmp::proto::client::{ClientSession, Mode};
use patchbay_rtmp::proto::url::RtmpUrl;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

const HTTP: u16 = 18_480;
const RTMP: u16 = 18_435;
const UDP: u16 = 18_400;
/// Seconds each load is measured for, after a warm-up.
const WINDOW: Duration = Duration::from_secs(12);
const WARM_UP: Duration = Duration::from_secs(4);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Clone, Copy)]
struct Usage {
    cpu: Duration,
    rss_kib: u64,
}

impl Server {
    fn start() -> Self {
        let ports =
            [format!("http.listen=127.0.0.1:{HTTP}"), format!("rtmp.listen=127.0.0.1:{RTMP}"), format!("webrtc.listen=127.0.0.1:{UDP}")];
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.arg("run").args(ports.iter().flat_map(|p| ["--set", p])).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(command.spawn().expect("patchbay starts"));
        while TcpStream::connect(("127.0.0.1", HTTP)).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn usage(&self) -> Usage {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap_or_default();
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<u64>().ok()).sum();
        let rss = read("status").lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        Usage { cpu: Duration::from_millis(ticks * 10), rss_kib: rss }
    }
}

struct Viewer {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    /// Once connected, only STUN and DTLS are looked at.
    connected: bool,
}

impl Viewer {
    fn join() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        let address = socket.local_addr().expect("an address");
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        let mut api = rtc.sdp_api();
        api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let (offer, pending) = api.apply().expect("an offer");
        let url = format!("http://127.0.0.1:{HTTP}/whep/live/s");
        let mut response = ureq::post(url).header("content-type", "application/sdp").send(offer.to_sdp_string()).expect("201");
        let answer = response.body_mut().read_to_string().expect("an answer");
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).expect("SDP")).expect("accepted");
        Self { rtc, socket, address, connected: false }
    }

    /// Takes what has arrived and sends what is due; returns datagrams and bytes of media.
    fn turn(&mut self, buffer: &mut [u8]) -> (u64, u64) {
        let (mut datagrams, mut bytes) = (0, 0);
        while let Ok((n, source)) = self.socket.recv_from(buffer) {
            let media = buffer[0] >= 128;
            if media {
                datagrams += 1;
                bytes += n as u64;
            }
            if media && self.connected {
                continue;
            }
            if let Ok(contents) = buffer[..n].try_into() {
                let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
                let _ = self.rtc.handle_input(Input::Receive(Instant::now(), receive));
            }
        }
        let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
        while let Ok(output) = self.rtc.poll_output() {
            match output {
                Output::Timeout(_) => break,
                Output::Transmit(t) => _ = self.socket.send_to(&t.contents, t.destination),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(_) => {}
            }
        }
        (datagrams, bytes)
    }
}

#[derive(Default)]
struct Totals {
    datagrams: AtomicU64,
    bytes: AtomicU64,
    connected: AtomicU64,
    stop: AtomicBool,
}

/// Joins viewers up to `count` in one thread that then serves them all.
fn watch(count: usize, totals: Arc<Totals>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut viewers, mut buffer): (Vec<Viewer>, _) = (Vec::new(), vec![0; 2_048]);
        while !totals.stop.load(Ordering::Relaxed) {
            if viewers.len() < count {
                viewers.push(Viewer::join());
            }
            for viewer in &mut viewers {
                let (datagrams, bytes) = viewer.turn(&mut buffer);
                totals.datagrams.fetch_add(datagrams, Ordering::Relaxed);
                totals.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            totals.connected.store(viewers.iter().filter(|v| v.connected).count() as u64, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(4));
        }
    })
}

/// Plays over RTMP; after the handshake the bytes are only counted.
fn play_rtmp(totals: Arc<Totals>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let url = RtmpUrl::parse(&format!("rtmp://127.0.0.1:{RTMP}/live/s")).expect("a URL");
        let mut session = ClientSession::new(url, Mode::Play, 4_096, 1);
        let mut socket = TcpStream::connect(("127.0.0.1", RTMP)).expect("connected");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let mut buffer = vec![0; 65_536];
        while !totals.stop.load(Ordering::Relaxed) {
            if !session.is_started() {
                let _ = socket.write_all(&session.take_output());
            }
            let Ok(n) = socket.read(&mut buffer) else { continue };
            if n == 0 {
                return;
            }
            totals.bytes.fetch_add(n as u64, Ordering::Relaxed);
            if !session.is_started() {
                session.receive(Bytes::copy_from_slice(&buffer[..n]));
                while let Ok(Some(_)) = session.poll() {}
                if session.is_started() {
                    totals.connected.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    })
}

struct Row {
    cpu_ms_per_s: f64,
    rss_kib: u64,
    datagrams: f64,
    megabits: f64,
}

fn measure(server: &Server, totals: &Totals, want: u64) -> Row {
    let begin = Instant::now();
    while totals.connected.load(Ordering::Relaxed) < want && begin.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(totals.connected.load(Ordering::Relaxed), want, "every viewer connects");
    std::thread::sleep(WARM_UP);
    let count = || (totals.datagrams.load(Ordering::Relaxed), totals.bytes.load(Ordering::Relaxed));
    let (usage, (datagrams, bytes), begin) = (server.usage(), count(), Instant::now());
    std::thread::sleep(WINDOW);
    let (after, (datagrams_after, bytes_after), seconds) = (server.usage(), count(), begin.elapsed().as_secs_f64());
    Row {
        cpu_ms_per_s: (after.cpu - usage.cpu).as_secs_f64() * 1e3 / seconds,
        rss_kib: after.rss_kib,
        datagrams: (datagrams_after - datagrams) as f64 / seconds,
        megabits: (bytes_after - bytes) as f64 * 8e-6 / seconds,
    }
}

fn renditions() -> Vec<String> {
    let mut response = ureq::get(format!("http://127.0.0.1:{HTTP}/v1/streams")).call().expect("the API answers");
    let all: serde_json::Value = response.body_mut().read_json().expect("JSON");
    let names =
        |s: &serde_json::Value| s["renditions"].as_array().into_iter().flatten().map(|r| r["target"].to_string()).collect::<Vec<_>>();
    all["streams"].as_array().into_iter().flatten().flat_map(names).collect()
}

fn main() {
    let file = std::env::args().nth(1).filter(|a| !a.starts_with("--")).unwrap_or_else(|| "fixtures/out/baseline-720p.flv".into());
    let server = Server::start();
    let mut source = Command::new("ffmpeg");
    source.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", &file, "-c", "copy", "-f", "flv"]);
    let mut source = source.arg(format!("rtmp://127.0.0.1:{RTMP}/live/s")).stdin(Stdio::null()).spawn().expect("ffmpeg runs");
    std::thread::sleep(Duration::from_secs(3));
    let idle = measure(&server, &Totals::default(), 0);
    println!("source alone: {:.1} ms CPU/s, {} KiB", idle.cpu_ms_per_s, idle.rss_kib);
    println!(
        "{:>6} {:>8} {:>14} {:>12} {:>14} {:>10} {:>16} renditions",
        "kind", "viewers", "ms CPU/s all", "ms/viewer-s", "datagrams/s", "Mbit/s", "KiB/viewer"
    );
    for (kind, count) in [("rtmp", 50), ("whep", 10), ("whep", 50), ("whep", 100)] {
        let totals = Arc::new(Totals::default());
        let threads: Vec<_> = match kind {
            "whep" => vec![watch(count, totals.clone())],
            _ => (0..count).map(|_| play_rtmp(totals.clone())).collect(),
        };
        let row = measure(&server, &totals, count as u64);
        let distinct: HashSet<_> = renditions().into_iter().collect();
        println!(
            "{kind:>6} {count:>8} {:>14.1} {:>12.3} {:>14.0} {:>10.1} {:>16.0} {distinct:?}",
            row.cpu_ms_per_s,
            (row.cpu_ms_per_s - idle.cpu_ms_per_s) / count as f64,
            row.datagrams,
            row.megabits,
            (row.rss_kib.saturating_sub(idle.rss_kib)) as f64 / count as f64,
        );
        totals.stop.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|t| _ = t.join());
        std::thread::sleep(Duration::from_secs(22)); // the viewers leave without a goodbye: until they are missed
    }
    let _ = source.kill();
    let _ = source.wait();
}

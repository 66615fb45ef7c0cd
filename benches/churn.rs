//! Clients that come and go: what each hundred of them leaves behind in the server. Nothing may grow.
//!
//!     cargo bench --bench churn -- [CYCLES]      (default 2000)
//!
//! A cycle is an RTMP publisher, an RTMP player, a WHIP publisher and a WHEP viewer, each until it is let in (RTMP) or has
//! finished ICE and DTLS (WebRTC). Every second one of each leaves without a goodbye.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use patchbay_rtmp::proto::client::{ClientSession, Mode};
use patchbay_rtmp::proto::url::RtmpUrl;
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

const HTTP: u16 = 18_580;
const RTMP: u16 = 18_535;
const UDP: u16 = 18_500;
/// Cycles between two readings.
const STEP: usize = 100;
/// Longer than any peer that left without a goodbye is waited for.
const SETTLE: Duration = Duration::from_secs(30);

/// The server and its source.
struct Running {
    server: Child,
    source: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.source, &mut self.server] {
            _ = child.kill();
            _ = child.wait();
        }
    }
}

/// What the server holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    rss_kib: u64,
    descriptors: usize,
    threads: u64,
    sessions: u64,
}

impl Running {
    fn start() -> Self {
        let settings = [
            format!("http.listen=127.0.0.1:{HTTP}"),
            format!("rtmp.listen=127.0.0.1:{RTMP}"),
            format!("webrtc.listen=127.0.0.1:{UDP}"),
            // Those that left without a goodbye are to be gone before they are too many.
            "webrtc.idle_timeout_s=5".into(),
            "limits.publisher_grace_s=2".into(),
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.arg("run").args(settings.iter().flat_map(|s| ["--set", s]));
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("patchbay starts");
        while TcpStream::connect(("127.0.0.1", HTTP)).is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut source = Command::new("ffmpeg");
        source.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", "fixtures/out/baseline-360p.flv", "-c", "copy"]);
        source.args(["-f", "flv", &format!("rtmp://127.0.0.1:{RTMP}/live/s")]);
        let source = source.stdin(Stdio::null()).spawn().expect("ffmpeg runs");
        std::thread::sleep(Duration::from_secs(3));
        Self { server, source }
    }

    fn held(&self) -> Held {
        let id = self.server.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the server runs");
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        let mut response = ureq::get(format!("http://127.0.0.1:{HTTP}/metrics")).call().expect("metrics");
        let metrics = response.body_mut().read_to_string().expect("text");
        let sessions = metrics.lines().filter(|l| l.starts_with("patchbay_sessions{"));
        Held {
            rss_kib: field("VmRSS:"),
            threads: field("Threads:"),
            descriptors: std::fs::read_dir(format!("/proc/{id}/fd")).expect("the server runs").count(),
            sessions: sessions.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum(),
        }
    }
}

/// Is let in over RTMP, and leaves.
fn rtmp(mode: Mode, stream: &str, goodbye: bool) {
    let url = RtmpUrl::parse(&format!("rtmp://127.0.0.1:{RTMP}/{stream}")).expect("a URL");
    let mut session = ClientSession::new(url, mode, 4_096, 1);
    let mut socket = TcpStream::connect(("127.0.0.1", RTMP)).expect("connected");
    let mut buffer = vec![0; 65_536];
    while !session.is_started() {
        socket.write_all(&session.take_output()).expect("sent");
        let n = socket.read(&mut buffer).expect("answered");
        assert!(n > 0, "{stream} was refused");
        session.receive(Bytes::copy_from_slice(&buffer[..n]));
        while session.poll().expect("the protocol").is_some() {}
    }
    if mode == Mode::Publish {
        session.send_audio(0, &[0xaf, 0, 0x12, 0x10]).expect("it publishes");
        session.send_audio(0, &[0xaf, 1, 0x21, 0x10, 4, 0x60, 0x8c, 0x1c]).expect("it publishes");
    }
    if goodbye {
        session.finish();
    }
    _ = socket.write_all(&session.take_output());
}

/// Connects over WebRTC, and leaves.
fn webrtc(endpoint: &str, direction: Direction, goodbye: bool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    let mut rtc = Rtc::builder().build(Instant::now());
    rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
    let mut api = rtc.sdp_api();
    api.add_media(MediaKind::Audio, direction, None, None, None);
    api.add_media(MediaKind::Video, direction, None, None, None);
    let (offer, pending) = api.apply().expect("an offer");
    let url = format!("http://127.0.0.1:{HTTP}/{endpoint}");
    let mut response = ureq::post(url).header("content-type", "application/sdp").send(offer.to_sdp_string()).expect("201");
    let session = response.headers()["location"].to_str().expect("a URL").to_owned();
    let answer = response.body_mut().read_to_string().expect("an answer");
    rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).expect("SDP")).expect("accepted");
    let begin = Instant::now();
    while !turn(&mut rtc, &socket, address) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{endpoint} does not connect");
    }
    if goodbye {
        ureq::delete(format!("http://127.0.0.1:{HTTP}{session}")).call().expect("200");
    }
}

/// Sends what is due and takes what has come; whether it is connected.
fn turn(rtc: &mut Rtc, socket: &UdpSocket, address: SocketAddr) -> bool {
    let (mut connected, mut buffer) = (false, [0; 2_048]);
    loop {
        match rtc.poll_output().expect("the stack runs") {
            Output::Timeout(_) => break,
            Output::Transmit(t) => _ = socket.send_to(&t.contents, t.destination),
            Output::Event(Event::Connected) => connected = true,
            Output::Event(_) => {}
        }
    }
    socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
    if let Ok((n, source)) = socket.recv_from(&mut buffer)
        && let Ok(contents) = buffer[..n].try_into()
    {
        let receive = Receive { proto: Protocol::Udp, source, destination: address, contents };
        rtc.handle_input(Input::Receive(Instant::now(), receive)).expect("the stack runs");
    }
    rtc.handle_input(Input::Timeout(Instant::now())).expect("the stack runs");
    connected
}

fn cycle(n: usize) {
    let goodbye = n.is_multiple_of(2);
    rtmp(Mode::Publish, &format!("churn/rtmp{n}"), goodbye);
    rtmp(Mode::Play, "live/s", goodbye);
    webrtc(&format!("whip/churn/whip{n}"), Direction::SendOnly, goodbye);
    webrtc("whep/live/s", Direction::RecvOnly, goodbye);
}

/// Growth per step of the second half of the readings (least squares); the first half fills caches and pools.
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

fn main() {
    let cycles: usize = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(2_000);
    let running = Running::start();
    let idle = running.held();
    println!(
        "at rest: {idle:?}\n{:>7} {:>9} {:>12} {:>8} {:>9} {:>8}",
        "cycles", "RSS KiB", "descriptors", "threads", "sessions", "seconds"
    );
    let (mut readings, begin) = (Vec::new(), Instant::now());
    for n in 0..cycles {
        cycle(n);
        if (n + 1).is_multiple_of(STEP) {
            let held = running.held();
            let Held { rss_kib, descriptors, threads, sessions } = held;
            println!("{:>7} {rss_kib:>9} {descriptors:>12} {threads:>8} {sessions:>9} {:>8.0}", n + 1, begin.elapsed().as_secs_f64());
            readings.push(held);
        }
    }
    std::thread::sleep(SETTLE);
    println!("{} s later: {:?}", SETTLE.as_secs(), running.held());
    let grows = |of: fn(&Held) -> f64| slope(&readings.iter().map(of).collect::<Vec<_>>());
    println!(
        "per {STEP} cycles: {:+.1} KiB, {:+.2} descriptors, {:+.2} threads",
        grows(|h| h.rss_kib as f64),
        grows(|h| h.descriptors as f64),
        grows(|h| h.threads as f64)
    );
}

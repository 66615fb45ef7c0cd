//! A thousand connections of each kind that never say what they want: honest clients notice nothing, and all of them are gone
//! in time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use patchbay_rtmp::proto::client::{ClientSession, Mode};
use patchbay_rtmp::proto::url::RtmpUrl;

use crate::support::{Patchbay, turn, wait_for};

const EACH: usize = 1_000;
/// Patience for sessions that were let in and stay silent is configured to that; the others' is shorter by default.
const CONFIG: &str = "[h5]\nidle_timeout_s = 8\n";
/// What an honest client may lose.
const DELAY_MAX: Duration = Duration::from_millis(50);
/// What all of them together may cost, KiB.
const MEMORY_MAX: u64 = 160 << 10;

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("connected")
}

/// Sends `hello` and keeps the connection.
fn held(port: u16, hello: impl Fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
    let open = |i| {
        let mut socket = connect(port);
        // One that made room for others is closed already.
        _ = socket.write_all(&hello(i));
        socket
    };
    (0..EACH).map(open).collect()
}

/// C0 and C1.
fn rtmp_hello() -> Vec<u8> {
    let mut hello = vec![0; 1 + 1_536];
    hello[0] = 3;
    hello
}

fn idle_socket(i: usize) -> Vec<u8> {
    format!(
        "GET /h5/live/idle{i}?publish=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// From the first SYN to a publisher that was let in.
fn publish_time(hub: &Patchbay) -> Duration {
    let begin = Instant::now();
    let url = RtmpUrl::parse(&hub.rtmp_url("live/honest")).expect("a URL");
    let (mut session, mut socket) = (ClientSession::new(url, Mode::Publish, 4_096, 1), connect(hub.rtmp));
    let mut buffer = [0; 4_096];
    while !session.is_started() {
        socket.write_all(&session.take_output()).expect("sent");
        let read = socket.read(&mut buffer).expect("answered");
        assert!(read > 0, "an honest client is let in");
        session.receive(Bytes::copy_from_slice(&buffer[..read]));
        while session.poll().expect("the protocol").is_some() {}
    }
    session.finish();
    let took = begin.elapsed();
    _ = socket.write_all(&session.take_output());
    took
}

fn http_time(hub: &Patchbay) -> Duration {
    let (begin, mut answer) = (Instant::now(), String::new());
    let mut socket = connect(hub.http);
    socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("asked");
    socket.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    begin.elapsed()
}

/// The best of some, which says what the server needs rather than how busy the machine is.
fn best(time: impl Fn() -> Duration) -> Duration {
    let times = (0..8).map(|_| {
        std::thread::sleep(Duration::from_millis(30));
        time()
    });
    times.min().expect("some")
}

fn descriptors(hub: &Patchbay) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", hub.id())).expect("it runs").count()
}

#[test]
fn connections_that_want_nothing_disturb_nobody_and_go() {
    let _turn = turn();
    let hub = Patchbay::start(CONFIG);
    let honest = || (best(|| publish_time(&hub)), best(|| http_time(&hub)));
    let (before, memory, files) = (honest(), hub.memory_kib(), descriptors(&hub));
    let begin = Instant::now();
    let silent = held(hub.rtmp, |_| Vec::new());
    let shaken = held(hub.rtmp, |_| rtmp_hello());
    let headless = held(hub.http, |i| if i % 2 == 0 { Vec::new() } else { b"GET /healthz HTT".to_vec() });
    let idle = held(hub.http, idle_socket);
    // The HTTP ones; of the others the newest few hundred.
    wait_for("them to be accepted", Duration::from_secs(5), || (descriptors(&hub) >= files + 2 * EACH).then_some(()));
    let (during, cost) = (honest(), hub.memory_kib().saturating_sub(memory));
    assert!(during.0 <= before.0 + DELAY_MAX && during.1 <= before.1 + DELAY_MAX, "{before:?} has become {during:?}");
    assert!(cost < MEMORY_MAX, "{cost} KiB");
    wait_for("all of them to be gone", Duration::from_secs(20), || (descriptors(&hub) <= files + 2).then_some(()));
    println!(
        "{} connections: publish {:?} -> {:?}, GET {:?} -> {:?}, {cost} KiB, gone after {:?}",
        4 * EACH,
        before.0,
        during.0,
        before.1,
        during.1,
        begin.elapsed()
    );
    assert!(begin.elapsed() < Duration::from_secs(18), "gone after {:?}", begin.elapsed());
    drop((silent, shaken, headless, idle));
    honest();
}

/// An offer of sound alone; who made it never sends a packet.
const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 40:0F:88:08:0F:57:A6:B4:2D:EB:2F:30:66:B8:4E:66:6B:3D:B1:63:8A:33:63:B8:F9:6B:A8:6C:62:16:72:D0\r\n\
    a=setup:actpass\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n";

#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let hub = Patchbay::start("");
    let mut socket = connect(hub.http);
    let head = "POST /whip/live/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\nContent-Length: 60000\r\n\r\nv=0\r\n";
    socket.write_all(head.as_bytes()).expect("sent");
    socket.set_read_timeout(Some(Duration::from_secs(14))).expect("a timeout");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered and closed");
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"request_timeout\""), "{answer}");
}

#[test]
fn whip_sessions_that_never_connect_are_bounded_and_go() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let memory = hub.memory_kib();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let post = |i: usize| {
        let url = hub.url(&format!("/whip/live/never{i}"));
        agent.post(url).header("content-type", "application/sdp").send(OFFER).expect("answered").status().as_u16()
    };
    let before = best(|| http_time(&hub));
    let answers: Vec<u16> = (0..EACH).map(post).collect();
    assert!(answers.iter().all(|status| *status == 201), "{answers:?}");
    let half_open = || hub.get("/v1/sessions")["sessions"].as_array().expect("sessions").len();
    wait_for("the oldest to make room", Duration::from_secs(2), || (half_open() <= 512).then_some(()));
    let during = best(|| http_time(&hub));
    assert!(during <= before + DELAY_MAX, "{before:?} has become {during:?}");
    let cost = hub.memory_kib().saturating_sub(memory);
    assert!(cost < MEMORY_MAX, "{cost} KiB");
    println!("{EACH} WHIP sessions that never connect: GET {before:?} -> {during:?}, {cost} KiB");
    wait_for("all of them to be gone", Duration::from_secs(20), || (hub.log().matches("never_connected").count() >= EACH).then_some(()));
}

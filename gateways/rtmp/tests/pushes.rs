//! Pushes that people leave running, to servers that misbehave: wedged, gone, refusing, closing at random; and over TLS.

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::client::Client;
use common::media::{self, baseline, largest_step, long_group, probe, publish};
use common::nginx::Nginx;
use common::{Running, wait_for};
use patchbay_outbound::Policy;
use patchbay_rtmp::Config;
use patchbay_rtmp::proto::client::Mode;
use patchbay_rtmp::proto::server::{Event, Refusal, ServerConfig, ServerSession};
use patchbay_rtmp::push::{Destination, Push, State, Target};
use patchbay_rules::EndpointKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

/// Two cores carry one source; tests that have one take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn target(url: &str) -> Target {
    Target::parse(url).unwrap()
}

fn to(url: &str) -> Destination {
    Destination::new(target(url), Policy::ALL)
}

fn push(gateway: &Running, to: Destination) -> Push {
    Push::start(gateway.hub.clone(), "live/demo".parse().unwrap(), EndpointKind::Cdn, to)
}

async fn wait_state(push: &Push, state: State, limit: Duration) -> Duration {
    let begun = Instant::now();
    wait_for(&format!("{state:?}, not {:?}", push.status()), limit, || push.status().state == state).await;
    begun.elapsed()
}

async fn with_source() -> (Running, media::Running, MutexGuard<'static, ()>) {
    let turn = TURN.lock().await;
    let gateway = Running::start(Config::default(), None).await;
    let source = publish(baseline(), &gateway.rtmp_url("live/demo"));
    gateway.hub.wait_live("live/demo", 2).await;
    (gateway, source, turn)
}

/// A server of our own making, which shows what it gets.
struct Peer {
    stream: TcpStream,
    session: ServerSession,
    input: BytesMut,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self { stream, session: ServerSession::new(ServerConfig::default(), 7), input: BytesMut::new() }
    }

    /// The next event; `None` when the client has closed.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.session.poll().expect("a client that keeps the rules") {
                return Some(event);
            }
            let output = self.session.take_output();
            self.stream.write_all(&output).await.ok()?;
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
            self.session.receive(self.input.split().freeze());
        }
    }

    /// Until the client asks to publish, which is not answered yet.
    async fn asked(&mut self) {
        loop {
            match self.next().await.expect("a client that stays") {
                Event::Connect(_) => self.session.accept().unwrap(),
                Event::Publish { .. } => return,
                _ => {}
            }
        }
    }

    async fn yes(&mut self) {
        self.session.accept().unwrap();
        let output = self.session.take_output();
        self.stream.write_all(&output).await.unwrap();
    }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtmp://{}/live/out", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_everything_and_reads_nothing_is_left_within_five_seconds() {
    let (gateway, _source, _turn) = with_source().await;
    let (listener, url) = listener().await;
    let wedged = tokio::spawn(async move {
        let mut peer = Peer::new(listener.accept().await.unwrap().0);
        peer.asked().await;
        peer.yes().await;
        (peer, listener)
    });
    let push = push(&gateway, to(&url));
    let (_peer, listener) = wedged.await.unwrap();
    wait_state(&push, State::Live, Duration::from_secs(5)).await;
    // The peer's kernel takes some for it; the time counts from its last acknowledgement, which is when we are told degraded.
    wait_state(&push, State::Degraded, Duration::from_secs(20)).await;
    let took = wait_state(&push, State::Backoff, Duration::from_secs(5)).await;
    assert!(push.status().detail.starts_with("the server takes no more data"), "{:?}", push.status());
    eprintln!("left {took:?} after it was seen to be slow");
    let back = Instant::now();
    let mut peer = Peer::new(listener.accept().await.unwrap().0);
    peer.asked().await;
    peer.yes().await;
    let first = loop {
        match peer.next().await.unwrap() {
            Event::Video { payload, .. } if payload[1] == 1 => break payload,
            _ => {}
        }
    };
    assert_eq!(first[0], 0x17, "it resumes at a key frame");
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
}

/// What a player of the stream here gets, frame by frame, until it is told to stop.
async fn watch(gateway: &Running, stop: CancellationToken) -> tokio::task::JoinHandle<Vec<u32>> {
    let mut client = Client::started(gateway.rtmp, "live/demo", Mode::Play).await.unwrap();
    tokio::spawn(async move {
        let mut stamps = Vec::new();
        while let Some((timestamp, _)) = stop.run_until_cancelled(client.video_frame()).await {
            stamps.push(timestamp);
        }
        stamps
    })
}

/// `DOWN_SECONDS` says for how long; the pauses between attempts grow with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_down_has_the_stream_within_two_seconds() {
    let down = Duration::from_secs(std::env::var("DOWN_SECONDS").map_or(6, |text| text.parse().expect("seconds")));
    let (gateway, _source, _turn) = with_source().await;
    let nginx = Nginx::start("down").await;
    let address = nginx.address;
    let push = push(&gateway, to(&nginx.url("live/out")));
    wait_state(&push, State::Live, Duration::from_secs(5)).await;
    let done = CancellationToken::new();
    let viewer = watch(&gateway, done.clone()).await;

    drop(nginx);
    tokio::time::sleep(down).await;
    assert_eq!(push.status().state, State::Backoff, "{:?}", push.status());
    let nginx = Nginx::start_at("down", address).await;
    let back = Instant::now();
    wait_state(&push, State::Live, Duration::from_secs(2)).await;
    let mut player = Client::started(nginx.address, "live/out", Mode::Play).await.unwrap();
    let (mut last, first) = player.video_frame().await;
    eprintln!("down for {down:?}: {:?} after it is back it has a picture; {:?}", back.elapsed(), push.status());
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    assert_eq!(first[0], 0x17, "it resumes at a key frame");
    for _ in 0..60 {
        let (timestamp, _) = player.video_frame().await;
        assert!((last..=last + 100).contains(&timestamp), "from {last} to {timestamp}");
        last = timestamp;
    }
    done.cancel();
    let stamps = viewer.await.unwrap();
    let longest = stamps.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(longest <= 100 && stamps.len() as u64 > 25 * down.as_secs(), "{} pictures, {longest} ms apart", stamps.len());
}

/// One that answers and says no, or hangs up, has its pauses: 1, 2, 4 and more seconds at the longest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_up_is_not_dialled_every_second() {
    let (gateway, _source, _turn) = with_source().await;
    let (listener, url) = listener().await;
    let slow = Duration::from_secs(4)..=Duration::from_secs(30);
    let _push = push(&gateway, Destination { pauses: slow, ..to(&url) });
    let mut dials = 0;
    let counting = async {
        loop {
            drop(listener.accept().await.unwrap());
            dials += 1;
        }
    };
    _ = tokio::time::timeout(Duration::from_millis(3_500), counting).await;
    assert!((1..=2).contains(&dials), "{dials} dials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_broken_connections_cost_one_stamp_nowhere() {
    let (gateway, _source, _turn) = with_source().await;
    let (listener, url) = listener().await;
    let quick = Duration::from_millis(1)..=Duration::from_millis(20);
    let push = push(&gateway, Destination { pauses: quick, ..to(&url) });
    let mut longest = Duration::ZERO;
    for round in 0..100u64 {
        let begun = Instant::now();
        let mut peer = Peer::new(tokio::time::timeout(Duration::from_secs(3), listener.accept()).await.expect("it comes back").unwrap().0);
        longest = longest.max(begun.elapsed());
        peer.asked().await;
        peer.yes().await;
        // Somewhere: in the first header, between pictures, in the middle of one.
        let (messages, mut last, mut pictures) = (round * 7 % 23, [0u32; 2], 0);
        for _ in 0..messages {
            let (kind, timestamp) = match peer.next().await.expect("no end from its side") {
                Event::Video { timestamp, payload, .. } => {
                    if payload[1] == 1 {
                        pictures += 1;
                        assert!(pictures > 1 || payload[0] == 0x17, "round {round} begins with no key frame");
                    }
                    (0, timestamp)
                }
                Event::Audio { timestamp, .. } => (1, timestamp),
                _ => continue,
            };
            assert!(timestamp >= last[kind], "round {round}: a stamp steps back from {} to {timestamp}", last[kind]);
            last[kind] = timestamp;
        }
    }
    eprintln!("100 reconnects, the longest pause {longest:?}");
    assert!(push.status().connects >= 99, "{:?}", push.status());
    assert_eq!(gateway.hub.causes("publish"), [] as [&str; 0], "the publisher noticed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_is_shown_in_the_servers_words_without_the_key() {
    let (gateway, _source, _turn) = with_source().await;
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        loop {
            let mut peer = Peer::new(listener.accept().await.unwrap().0);
            peer.asked().await;
            peer.session.reject(Refusal::Denied, "key secret-key is over its quota").unwrap();
            while peer.next().await.is_some() {}
        }
    });
    let push = push(&gateway, to(&url.replace("/out", "/secret-key")));
    wait_state(&push, State::Rejected, Duration::from_secs(5)).await;
    let detail = push.status().detail;
    assert!(detail.contains("key *** is over its quota"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_says_what_services_ask_for_and_the_stream_does_not_give() {
    let (gateway, _first, _turn) = with_source().await;
    let nginx = Nginx::start("advice").await;
    let _source = publish(long_group(), &gateway.rtmp_url("live/long"));
    let long = Push::start(gateway.hub.clone(), "live/long".parse().unwrap(), EndpointKind::Cdn, to(&nginx.url("live/long")));
    let usual = push(&gateway, to(&nginx.url("live/usual")));
    let said = |push: &Push| push.status().advice.join("; ");
    wait_for("the advice", Duration::from_secs(20), || said(&long).starts_with("a key frame every 4 s;")).await;
    assert_eq!(long.status().state, State::Live);
    assert_eq!((usual.status().state, said(&usual).as_str()), (State::Live, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backup_serves_until_the_primary_is_back() {
    let (gateway, _source, _turn) = with_source().await;
    let (dead, url) = listener().await;
    let address: SocketAddr = dead.local_addr().unwrap();
    drop(dead);
    let nginx = Nginx::start("backup").await;
    let quick = Duration::from_millis(10)..=Duration::from_millis(50);
    let backup = Some(target(&nginx.url("live/spare")));
    let push = push(&gateway, Destination { backup, backup_hold: Duration::from_secs(1), pauses: quick, ..to(&url) });
    wait_state(&push, State::Live, Duration::from_secs(5)).await;
    let status = push.status();
    assert!(status.on_backup && status.failures == 3, "{status:?}");
    let (streams, packets) = probe(&nginx.url("live/spare")).await;
    assert!(streams.contains("codec_name=h264") && largest_step(&packets, 0) <= 100, "{streams}");

    let primary = TcpListener::bind(address).await.unwrap();
    let mut peer = Peer::new(tokio::time::timeout(Duration::from_secs(3), primary.accept()).await.unwrap().unwrap().0);
    peer.asked().await;
    assert!(push.status().on_backup, "the backup is kept until the primary takes the stream");
    peer.yes().await;
    while !matches!(peer.next().await, Some(Event::Video { .. })) {}
    wait_for("the primary", Duration::from_secs(3), || !push.status().on_backup).await;
    assert_eq!((push.status().state, push.status().connects), (State::Live, 2));
}

/// A second gateway drains and sends the push to a third, at a key frame and without a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_goes_where_a_server_that_stops_sends_it() {
    let (gateway, _source, _turn) = with_source().await;
    let third = Running::start(Config::default(), None).await;
    let reconnect_url = Some(format!("rtmp://{}", third.rtmp));
    let second = Running::start(Config { reconnect_url, ..Config::default() }, None).await;
    let push = push(&gateway, Destination { elsewhere: Policy::ALL, ..to(&second.rtmp_url("live/out")) });
    second.hub.wait_live("live/out", 2).await;
    let begun = Instant::now();
    second.hub.drain();
    third.hub.wait_live("live/out", 2).await;
    eprintln!("at the third {:?} after the second began to drain", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(push.target().to_string(), format!("rtmp://{}/live/***", third.rtmp));
    wait_state(&push, State::Live, Duration::from_secs(2)).await;
    assert_eq!((push.status().connects, push.status().failures), (2, 0), "{:?}", push.status());
    assert_eq!(second.hub.causes("publish"), ["draining"]);
    let (streams, packets) = probe(&third.rtmp_url("live/out")).await;
    assert!(streams.contains("codec_name=h264") && largest_step(&packets, 0) <= 100, "{streams}");
    // It counts for that connection only.
    third.shutdown.cancel();
    wait_for("the way back", Duration::from_secs(5), || push.target().to_string() == format!("rtmp://{}/live/***", second.rtmp)).await;
}

/// To a host of which the operator said nothing, to no RTMP server at all, and to another application of the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_not_sent_to_hosts_that_nobody_allowed() {
    let (gateway, _source, _turn) = with_source().await;
    let ((listener, url), (inside, _)) = (listener().await, listener().await);
    let pauses = Duration::from_millis(600)..=Duration::from_millis(600);
    // The operator named the machine, but not by its address.
    let push = push(&gateway, Destination { pauses, ..to(&url.replace("127.0.0.1", "localhost")) });
    let address = format!("rtmp://{}/live", inside.local_addr().unwrap());
    for (tc_url, detail) in [(&*address, "outbound.allow"), ("http://a/b", "scheme is neither"), ("/other", "")] {
        let mut peer = Peer::new(listener.accept().await.unwrap().0);
        peer.asked().await;
        peer.yes().await;
        assert!(peer.session.request_reconnect(Some(tc_url), "go"));
        while peer.next().await.is_some() {}
        wait_for(detail, Duration::from_secs(3), || push.status().detail.contains(detail)).await;
    }
    let mut peer = Peer::new(listener.accept().await.unwrap().0);
    let Some(Event::Connect(connect)) = peer.next().await else { panic!("no connect") };
    assert_eq!(connect.app, "other");
    let dialled = tokio::time::timeout(Duration::from_millis(200), inside.accept()).await;
    assert!(dialled.is_err(), "not even dialled");
}

/// A certificate for this machine that vouches for itself, and its key.
fn certificate(name: &str) -> (PathBuf, PathBuf) {
    let [cert, key] = ["cert", "key"].map(|what| media::folder().join(format!("{name}-{what}.pem")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=x"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    command.arg("-out").arg(&cert).arg("-keyout").arg(&key);
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cert, key)
}

async fn with_tls(name: &str) -> (Running, PathBuf) {
    let (cert, key) = certificate(name);
    let tls = Some("127.0.0.1:0".parse().unwrap());
    let config = Config { tls_listen: tls, tls_cert_file: Some(cert.clone()), tls_key_file: Some(key), ..Config::default() };
    (Running::start(config, None).await, cert)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_publishes_and_plays_with_tls_and_a_push_goes_on_with_it() {
    let _turn = TURN.lock().await;
    let (gateway, cert) = with_tls("server").await;
    let rtmps = format!("rtmps://{}/live", gateway.rtmps.unwrap());
    let _source = publish(baseline(), &format!("{rtmps}/demo"));
    gateway.hub.wait_live("live/demo", 2).await;
    let (streams, packets) = probe(&format!("{rtmps}/demo")).await;
    assert!(streams.contains("codec_name=h264") && streams.contains("codec_name=aac"), "{streams}");
    assert!(largest_step(&packets, 0) <= 70 && largest_step(&packets, 1) <= 70);

    let stranger = push(&gateway, to(&format!("{rtmps}/stranger")));
    wait_state(&stranger, State::Backoff, Duration::from_secs(5)).await;
    assert!(stranger.status().detail.starts_with("TLS: invalid peer certificate"), "{:?}", stranger.status());
    let known = push(&gateway, Destination { ca_file: Some(cert), ..to(&format!("{rtmps}/pushed")) });
    wait_state(&known, State::Live, Duration::from_secs(5)).await;
    let (streams, packets) = probe(&gateway.rtmp_url("live/pushed")).await;
    assert!(streams.contains("codec_name=h264") && largest_step(&packets, 0) <= 100, "{streams}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_at_the_tls_port_are_let_go_and_a_new_certificate_is_taken() {
    let (gateway, cert) = with_tls("renewed").await;
    let address = gateway.rtmps.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(&[3; 1537]).await.unwrap();
    let mut answer = Vec::new();
    _ = tokio::time::timeout(Duration::from_secs(3), plain.read_to_end(&mut answer)).await.expect("closed at once");
    assert!(answer.len() < 100, "no RTMP without TLS");
    let mut silent = TcpStream::connect(address).await.unwrap();
    _ = tokio::time::timeout(Duration::from_secs(7), silent.read_to_end(&mut answer)).await.expect("closed in time");

    let serial = async || {
        let line = format!("openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509 -noout -serial");
        String::from_utf8_lossy(&media::run(5, "bash", &["-c", &line]).await.stdout).into_owned()
    };
    let first = serial().await;
    assert!(first.starts_with("serial="), "{first}");
    assert_eq!(certificate("renewed").0, cert);
    let until = Instant::now() + Duration::from_secs(20);
    while serial().await == first {
        assert!(Instant::now() < until, "still the old certificate");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

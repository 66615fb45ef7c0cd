//! What the gateway does with peers that no program can be made to be: late, slow, silent, rude.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::client::Client;
use common::media::{baseline, long_group, publish};
use common::{Running, wait_for};
use patchbay_rtmp::Config;
use patchbay_rtmp::proto::Error;
use patchbay_rtmp::proto::client::{ClientEvent, Mode};
use patchbay_rules::EndpointKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_the_newest_groups_key_frame_at_once() {
    let gateway = Running::start(Config::default(), None).await;
    let _publisher = publish(long_group(), &gateway.rtmp_url("live/long"));
    gateway.hub.wait_live("live/long", 2).await;
    // Into the middle of a group of four seconds.
    sleep(Duration::from_millis(1_500)).await;
    let begun = Instant::now();
    let mut player = Client::started(gateway.rtmp, "live/long", Mode::Play).await.unwrap();
    let mut order = Vec::new();
    let first = loop {
        match player.next().await.unwrap() {
            Some(ClientEvent::Data { data, .. }) => order.push(data.name),
            Some(ClientEvent::Video { payload, timestamp }) if payload[1] == 1 => break (timestamp, payload),
            Some(ClientEvent::Video { .. }) => order.push("avcC".into()),
            Some(ClientEvent::Audio { payload, .. }) if payload[1] == 0 => order.push("asc".into()),
            other => panic!("{other:?} before the first picture"),
        }
    };
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(order, ["|RtmpSampleAccess", "onMetaData", "avcC", "asc"]);
    assert_eq!((first.0, first.1[0]), (0, 0x17), "the epoch is the first viewer's first key frame");
    // The rest of the group comes in one go.
    let (last, _) = timeout(Duration::from_millis(500), async {
        let mut last = player.video_frame().await;
        while last.0 < 1_200 {
            last = player.video_frame().await;
        }
        last
    })
    .await
    .expect("the group so far comes at once");
    assert!(last >= 1_200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_stops_reading_is_cut() {
    let gateway = Running::start(Config { slow_cut_s: 2, ..Config::default() }, None).await;
    let mut source = Client::started(gateway.rtmp, "live/fat", Mode::Publish).await.unwrap();
    let feeder = tokio::spawn(async move { feed_fat(&mut source).await });
    gateway.hub.wait_live("live/fat", 1).await;
    let mut slow = Client::started(gateway.rtmp, "live/fat", Mode::Play).await.unwrap();
    slow.video_frame().await;
    wait_for("the cut", Duration::from_secs(12), || gateway.hub.causes("play") == ["too_slow"]).await;
    feeder.abort();
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_is_kicked_amid_a_message_gets_the_rest_and_a_goodbye() {
    let gateway = Running::start(Config { slow_cut_s: 60, lag_max_ms: 60_000, ..Config::default() }, None).await;
    let mut source = Client::started(gateway.rtmp, "live/fat", Mode::Publish).await.unwrap();
    let feeder = tokio::spawn(async move { feed_fat(&mut source).await });
    gateway.hub.wait_live("live/fat", 1).await;
    let mut player = Client::started(gateway.rtmp, "live/fat", Mode::Play).await.unwrap();
    player.video_frame().await;
    // Until nothing more fits into the connection.
    sleep(Duration::from_secs(2)).await;
    gateway.hub.kick_viewers();
    let last = timeout(Duration::from_secs(5), async {
        let mut last = None;
        while let Some(event) = player.next().await.expect("whole messages only") {
            last = Some(event);
        }
        last
    });
    assert_eq!(last.await.expect("closed"), Some(ClientEvent::Ended));
    assert_eq!(gateway.hub.causes("play"), ["kicked"]);
    feeder.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_end_peers_are_sent_elsewhere_and_have_time_to_go() {
    let reconnect_url = Some("rtmp://other:1936".into());
    let gateway = Running::start(Config { reconnect_url, lag_max_ms: 60_000, ..Config::default() }, None).await;
    let mut source = Client::started(gateway.rtmp, "live/fat", Mode::Publish).await.unwrap();
    source.session.send_video(0, &avcc()).unwrap();
    source.session.send_video(0, &picture(true)).unwrap();
    source.flush().await;
    gateway.hub.wait_live("live/fat", 1).await;
    let mut player = Client::started(gateway.rtmp, "live/fat", Mode::Play).await.unwrap();
    player.video_frame().await;
    gateway.hub.drain();
    let request = ClientEvent::ReconnectRequest { tc_url: Some("rtmp://other:1936/live".into()) };
    assert_eq!(source.next().await.unwrap().as_ref(), Some(&request));
    assert_eq!(player.next().await.unwrap(), Some(request));
    // Until they leave they are served as before.
    source.session.send_video(40, &picture(false)).unwrap();
    source.flush().await;
    assert_eq!(player.video_frame().await.0, 40);
    drop(player);
    wait_for("the player's leave", Duration::from_secs(2), || gateway.hub.causes("play") == ["closed"]).await;
    // Who stays all the same is let go.
    let begun = Instant::now();
    let error = source.next().await.expect_err("told that it ends");
    assert!(matches!(&error, Error::Refused { code, .. } if code == "NetStream.Publish.Denied"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(gateway.hub.causes("publish"), ["draining"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateways_end_waits_for_nobody_who_was_asked_to_leave() {
    let gateway = Running::start(Config::default(), None).await;
    let mut source = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.unwrap();
    gateway.hub.drain();
    assert_eq!(source.next().await.unwrap(), Some(ClientEvent::ReconnectRequest { tc_url: None }));
    gateway.shutdown.cancel();
    let begun = Instant::now();
    source.next().await.expect_err("told that it ends");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_takes_long_is_not_the_peers_silence() {
    let gateway = Running::start(Config { handshake_timeout_s: 1, ..Config::default() }, None).await;
    gateway.hub.seen().thinks = Duration::from_millis(2_500);
    let begun = Instant::now();
    let mut source = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.expect("let in");
    assert!(begun.elapsed() >= Duration::from_millis(2_500));
    // Done with that stream it is as silent as anybody.
    source.session.finish();
    source.flush().await;
    let silent = timeout(Duration::from_secs(3), async { while let Ok(Some(_)) = source.next().await {} });
    silent.await.expect("closed in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_that_reads_slowly_skips_to_newer_groups() {
    let gateway = Running::start(Config { lag_max_ms: 500, slow_cut_s: 60, ..Config::default() }, None).await;
    let mut source = Client::started(gateway.rtmp, "live/fat", Mode::Publish).await.unwrap();
    let feeder = tokio::spawn(async move { feed_fat(&mut source).await });
    gateway.hub.wait_live("live/fat", 1).await;
    let mut slow = Client::started(gateway.rtmp, "live/fat", Mode::Play).await.unwrap();
    slow.video_frame().await;
    sleep(Duration::from_secs(4)).await;
    let counters = gateway.hub.viewers().remove(0);
    // Reading on, it finds a hole in the stamps, and a key frame behind it.
    let (mut before, _) = slow.video_frame().await;
    let payload = loop {
        let (timestamp, payload) = slow.video_frame().await;
        if timestamp - before > 500 {
            break payload;
        }
        before = timestamp;
    };
    assert_eq!(payload[0], 0x17, "a key frame follows the hole");
    assert!(counters.skipped.load(std::sync::atomic::Ordering::Relaxed) > 0);
    feeder.abort();
}

/// The header of a 320x180 Baseline stream as the test media have it.
fn avcc() -> Bytes {
    let file = std::fs::read(baseline()).unwrap();
    let at = file.windows(5).position(|w| w == [0x17, 0, 0, 0, 0]).unwrap();
    let size = u32::from_be_bytes([0, file[at - 10], file[at - 9], file[at - 8]]) as usize;
    Bytes::copy_from_slice(&file[at..at + size])
}

/// A picture of 200 kB.
fn picture(key: bool) -> Vec<u8> {
    let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
    body.extend(200_000u32.to_be_bytes());
    body.push(if key { 0x65 } else { 0x41 });
    body.resize(9 + 200_000, 0x55);
    body
}

/// 25 pictures of 200 kB a second, each fifth a key frame: 5 MB/s, more than socket buffers hold for long.
async fn feed_fat(source: &mut Client) {
    source.session.send_video(0, &avcc()).unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(40));
    for i in 0u32.. {
        ticks.tick().await;
        let key = i % 5 == 0;
        source.session.send_video(i * 40, &picture(key)).unwrap();
        source.flush().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asks_for_nothing_is_closed_in_time() {
    let gateway = Running::start(Config { handshake_timeout_s: 1, ..Config::default() }, None).await;
    let mut silent = TcpStream::connect(gateway.rtmp).await.unwrap();
    let begun = Instant::now();
    let read = timeout(Duration::from_secs(4), silent.read(&mut [0; 16])).await.expect("closed in time");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_drips_is_closed_in_time() {
    let gateway = Running::start(Config { handshake_timeout_s: 1, ..Config::default() }, None).await;
    let mut stream = TcpStream::connect(gateway.rtmp).await.unwrap();
    let drip =
        async { while stream.write_all(&[3]).await.is_ok() && timeout(Duration::from_millis(50), stream.read_u8()).await.is_err() {} };
    timeout(Duration::from_secs(4), drip).await.expect("the deadline is for all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_of_too_many_half_open_connections_makes_room() {
    let gateway = Running::start(Config { half_open_max: 2, ..Config::default() }, None).await;
    let _live = Client::started(gateway.rtmp, "live/live", Mode::Publish).await.unwrap();
    let mut first = TcpStream::connect(gateway.rtmp).await.unwrap();
    let mut second = TcpStream::connect(gateway.rtmp).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let _honest = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.unwrap();
    let read = timeout(Duration::from_secs(1), first.read(&mut [0; 16])).await.expect("closed at once");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(timeout(Duration::from_millis(200), second.read(&mut [0; 16])).await.is_err(), "there was room for it");
    assert!(gateway.hub.causes("publish").is_empty(), "who publishes is not half-open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_reach_the_peer_with_code_and_words() {
    let gateway = Running::start(Config::default(), Some("secret")).await;
    let refused = |result: Result<Client, Error>| match result {
        Err(Error::Refused { code, description, .. }) => (code, description),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("let in"),
    };
    let (code, words) = refused(Client::started(gateway.rtmp, "live/a", Mode::Publish).await);
    assert_eq!((&*code, &*words), ("NetStream.Publish.Denied", "unauthorized: publishing live/a needs its key"));
    let _publisher = Client::started(gateway.rtmp, "live/a?key=secret", Mode::Publish).await.unwrap();
    let (code, words) = refused(Client::started(gateway.rtmp, "live/a?token=secret", Mode::Publish).await);
    assert_eq!((&*code, &*words), ("NetStream.Publish.BadName", "stream_busy: stream live/a has a publisher already"));
    let (code, words) = refused(Client::started(gateway.rtmp, "live/..", Mode::Play).await);
    assert_eq!(code, "NetStream.Play.StreamNotFound");
    assert!(words.starts_with("bad_stream_name: "), "{words}");
    for mode in [Mode::Publish, Mode::Play] {
        let (code, words) = refused(Client::started(gateway.rtmp, "live/b?key=secret&kind=phone", mode).await);
        assert!(code.ends_with(".Failed"), "{code}");
        assert!(words.starts_with("bad_request: ?kind=\"phone\" is none of rtmp, miniprogram, cdn"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_says_its_kind_in_the_query() {
    let gateway = Running::start(Config::default(), None).await;
    let _players = [
        Client::started(gateway.rtmp, "live/a", Mode::Play).await.unwrap(),
        Client::started(gateway.rtmp, "live/a?kind=miniprogram", Mode::Play).await.unwrap(),
        Client::started(gateway.rtmp, "live/a?kind=cdn", Mode::Play).await.unwrap(),
    ];
    assert_eq!(gateway.hub.kinds(), [EndpointKind::Rtmp, EndpointKind::Miniprogram, EndpointKind::Cdn]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goodbye_and_a_lost_connection_are_told_apart_and_players_learn_the_end() {
    let gateway = Running::start(Config::default(), None).await;
    let mut source = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.unwrap();
    let mut player = Client::started(gateway.rtmp, "live/a", Mode::Play).await.unwrap();
    source.session.finish();
    source.flush().await;
    let end = timeout(Duration::from_secs(2), async {
        while let Some(event) = player.next().await.unwrap() {
            if event == ClientEvent::Ended {
                return true;
            }
        }
        false
    });
    assert_eq!(end.await, Ok(true));
    let closed = timeout(Duration::from_secs(2), async { while player.next().await.unwrap().is_some() {} });
    closed.await.expect("the connection is closed");
    wait_for("both ends", Duration::from_secs(2), || gateway.hub.seen().causes.len() == 2).await;
    assert_eq!((gateway.hub.causes("publish"), gateway.hub.causes("play")), (vec!["closed"], vec!["publisher_finished"]));

    let lost = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.unwrap();
    drop(lost);
    wait_for("the loss", Duration::from_secs(2), || gateway.hub.causes("publish") == ["closed", "connection_lost"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_publisher_is_given_up() {
    let gateway = Running::start(Config { idle_timeout_s: 1, ..Config::default() }, None).await;
    let _silent = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.unwrap();
    wait_for("the timeout", Duration::from_secs(4), || gateway.hub.causes("publish") == ["timeout"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_every_connection_and_then_the_gateway() {
    let gateway = Running::start(Config::default(), None).await;
    let _publisher = Client::started(gateway.rtmp, "live/a", Mode::Publish).await.unwrap();
    let _player = Client::started(gateway.rtmp, "live/a", Mode::Play).await.unwrap();
    let _silent = TcpStream::connect(gateway.rtmp).await.unwrap();
    gateway.shutdown.cancel();
    timeout(Duration::from_secs(4), gateway.run).await.expect("in time").unwrap();
    assert_eq!(gateway.hub.causes("publish"), ["draining"]);
    assert_eq!(gateway.hub.causes("play").len(), 1);
    assert!(TcpStream::connect(gateway.rtmp).await.is_err(), "the port is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_says_what_is_not_there() {
    let gateway = Running::start(Config::default(), None).await;
    for (path, code) in [
        ("/flv/live/none", "stream_not_found"),
        ("/flv/live/none.flv", "stream_not_found"),
        ("/flv/a//b", "bad_stream_name"),
        ("/flv/live/none?kind=phone", "bad_request"),
    ] {
        let answer = http_get(&gateway, path, "").await;
        let status = if code.starts_with("bad_") { "400" } else { "404" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("application/problem+json") && answer.contains(code), "{path}: {answer}");
        assert!(answer.to_lowercase().contains("access-control-allow-origin: *"), "{path}: {answer}");
    }
}

async fn http_get(gateway: &Running, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Takes the binary messages of a WebSocket apart (RFC 6455 §5.2; a server does not mask).
async fn websocket_bytes(stream: &mut TcpStream, wanted: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < wanted {
        let opcode = stream.read_u8().await.unwrap();
        let len = match stream.read_u8().await.unwrap() {
            126 => u64::from(stream.read_u16().await.unwrap()),
            127 => stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        assert_eq!(opcode, 0x82, "whole binary messages only");
        let mut message = vec![0; len as usize];
        stream.read_exact(&mut message).await.unwrap();
        bytes.extend(message);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_carries_the_same_bytes_as_http() {
    let gateway = Running::start(Config::default(), None).await;
    let _publisher = publish(baseline(), &gateway.rtmp_url("live/demo"));
    gateway.hub.wait_live("live/demo", 2).await;
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let upgrade =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    stream.write_all(format!("GET /flv/live/demo.flv HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    let file = common::media::folder().join("ws.flv");
    let bytes = timeout(Duration::from_secs(10), websocket_bytes(&mut stream, 60_000)).await.unwrap();
    assert_eq!(bytes[..9], *b"FLV\x01\x05\0\0\0\x09");
    std::fs::write(&file, &bytes).unwrap();
    let (streams, packets) = common::media::probe(file.to_str().unwrap()).await;
    assert!(streams.contains("codec_name=h264") && streams.contains("codec_name=aac"), "{streams}");
    assert!(common::media::largest_step(&packets, 0) <= 70);
    assert_eq!(gateway.hub.seen().callers.last().unwrap().protocol, "ws-flv");
    drop(stream);
    wait_for("the leg's end", Duration::from_secs(3), || gateway.hub.causes("play") == ["closed"]).await;
}

//! The gateway between FFmpeg and viewers, on a real bus.

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::socket::{Message, Socket};
use common::{Process, Running, folder, made, mpeg1, publish, run, wait_for};
use patchbay_h5::Config;
use patchbay_h5::ts::{Demuxer, PACKET, Pes};
use patchbay_media::{Codec, Kind};
use patchbay_rules::EndpointKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

fn pictures(bytes: &[u8]) -> Vec<Pes> {
    let (mut demuxer, mut out) = (Demuxer::new(), Vec::new());
    demuxer.push(bytes, &mut out);
    demuxer.finish(&mut out);
    out.retain(|pes| pes.stream_type.kind() == Kind::Video);
    out
}

/// Begins with tables, a sequence header and an intra picture.
fn assert_begins_well(bytes: &[u8]) {
    let pid = |n: usize| u16::from_be_bytes([bytes[n * PACKET + 1] & 0x1f, bytes[n * PACKET + 2]]);
    assert_eq!((pid(0), pid(1), pid(2)), (0, 0x1000, 0x100));
    assert_eq!(pictures(bytes)[0].data[..4], [0, 0, 1, 0xb3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mpeg_1_from_ffmpeg_reaches_a_viewer_that_decodes_every_frame() {
    let gateway = Running::start(Config::default(), None).await;
    let source = made("short.ts", "3", &["-c:v", "mpeg1video", "-b:v", "500k", "-bf", "0", "-c:a", "mp2", "-b:a", "96k"]);
    let mut viewer = Socket::open(gateway.http, "/h5/live/a.jsmpeg?wait=1", "Sec-WebSocket-Protocol: null\r\n").await;
    assert!(viewer.head.starts_with("HTTP/1.1 101 "), "{}", viewer.head);
    assert!(viewer.head.to_lowercase().contains("sec-websocket-protocol: null"), "{}", viewer.head);
    assert!(!viewer.head.to_lowercase().contains("permessage-deflate"), "{}", viewer.head);
    let mut ffmpeg = publish(&source, &gateway.url("live/a"));
    let bytes = viewer.rest().await;
    assert!(ffmpeg.ended().await, "ffmpeg is content with the answer");
    assert_begins_well(&bytes);
    assert!(pictures(&bytes).len() >= 74, "{} of 75 pictures", pictures(&bytes).len());
    let file = folder().join("received.ts");
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    let entries =
        ["-v", "error", "-count_frames", "-show_entries", "stream=codec_name,width,sample_rate,nb_read_frames", "-of", "compact", file];
    let probe = run("ffprobe", &entries).await;
    let text = String::from_utf8_lossy(&probe.stdout).into_owned();
    assert!(text.contains("codec_name=mpeg1video|width=320") || text.contains("codec_name=mpeg2video|width=320"), "{text}");
    assert!(text.contains("codec_name=mp2|sample_rate=44100"), "{text}");
    let errors = run("ffmpeg", &["-nostdin", "-v", "warning", "-xerror", "-i", file, "-f", "null", "-"]).await;
    assert!(errors.status.success() && errors.stderr.is_empty(), "{}", String::from_utf8_lossy(&errors.stderr));
    let sound = text.lines().find(|l| l.contains("mp2")).and_then(|l| l.split("nb_read_frames=").nth(1)).unwrap();
    assert!(sound.trim().parse::<u32>().unwrap() >= 108, "{text}");
    wait_for("both ends", Duration::from_secs(3), || gateway.hub.seen().causes.len() == 2).await;
    assert_eq!((gateway.hub.causes("publish"), gateway.hub.causes("play")), (vec!["closed"], vec!["publisher_finished"]));
    let seen = gateway.hub.seen();
    assert!(seen.callers.iter().all(|(caller, kind)| caller.protocol == "h5" && *kind == EndpointKind::H5 && caller.peer.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_ffmpeg_sends_in_a_transport_stream_gets_onto_the_bus() {
    let gateway = Running::start(Config::default(), None).await;
    let x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "300k"];
    for (name, codecs, video, audio) in [
        ("h264", [&x264[..], &["-bf", "2", "-c:a", "aac"]].concat(), Codec::H264, Codec::Aac),
        ("mpeg2", vec!["-c:v", "mpeg2video", "-bf", "2", "-c:a", "mp2"], Codec::Mpeg2, Codec::Mp2),
        ("mp3", vec!["-c:v", "mpeg1video", "-c:a", "libmp3lame"], Codec::Mpeg1, Codec::Mp3),
    ] {
        let file = made(&format!("{name}.ts"), "2", &codecs);
        let _ffmpeg = publish(&file, &gateway.url(name));
        gateway.hub.wait_live(name, 2).await;
        let stream = gateway.hub.bus.get(&name.parse().unwrap()).unwrap();
        let (picture, sound) = (stream.track(Kind::Video).unwrap(), stream.track(Kind::Audio).unwrap());
        let count = || (picture.totals(), sound.totals());
        wait_for("the frames", Duration::from_secs(6), || picture.totals().0 == 50 && sound.totals().0 >= 70).await;
        assert_eq!((count().0.2, count().1.2), (0, 0), "nothing is lost");
        let (picture, sound) = (picture.info().unwrap().0, sound.info().unwrap().0);
        assert_eq!((picture.codec, sound.codec), (video, audio), "{name}");
        let shape = picture.video_shape().unwrap();
        assert_eq!((shape.width, shape.height, shape.frame_rate), (320, 180, Some(25.0)), "{name}");
        assert_eq!(shape.reorder_frames > 0, name != "mp3", "{name}: {picture}");
        assert_eq!((sound.audio_shape().unwrap().sample_rate, sound.audio_shape().unwrap().channels), (44_100, 2));
    }
}

/// Sends `bytes` as a chunked body.
async fn post(gateway: &Running, path: &str, headers: &str, chunks: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let head = format!("POST /h5/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in chunks {
        // The server may have answered already.
        _ = stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await;
        _ = stream.write_all(&[chunk, &b"\r\n"[..]].concat()).await;
        // Some five times real time.
        sleep(Duration::from_millis(10)).await;
    }
    _ = stream.write_all(b"0\r\n\r\n").await;
    let mut answer = Vec::new();
    _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_body_costs_the_pictures_it_hits() {
    let gateway = Running::start(Config::default(), None).await;
    let file = std::fs::read(made("damaged.ts", "2", &["-c:v", "mpeg1video", "-b:v", "500k", "-c:a", "mp2"])).unwrap();
    let mut viewer = Socket::open(gateway.http, "/h5/live/a?wait=1", "").await;
    let viewer = tokio::spawn(async move { viewer.rest().await });
    let mut parts: Vec<&[u8]> = file.chunks(5_000).collect();
    parts.insert(parts.len() / 3, &[0x47; 777]);
    parts.insert(parts.len() * 2 / 3, &[0x55; 3]);
    let answer = post(&gateway, "live/a", "", &parts).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = pictures(&viewer.await.unwrap());
    assert!((44..50).contains(&seen.len()), "{} of 50 pictures", seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_transport_stream_is_refused_with_words() {
    let gateway = Running::start(Config::default(), None).await;
    let junk = vec![0x47; 200_000];
    let answer = post(&gateway, "live/a", "", &[&junk[..]; 8]).await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("no transport stream"), "{answer}");
    wait_for("the end", Duration::from_secs(2), || gateway.hub.causes("publish") == ["protocol_error"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_needs_the_key_in_query_or_header() {
    let gateway = Running::start(Config::default(), Some("secret")).await;
    let file = std::fs::read(made("tiny.ts", "0.4", &["-c:v", "mpeg1video", "-c:a", "mp2"])).unwrap();
    let status = |answer: String| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    assert_eq!(status(post(&gateway, "live/a", "", &[&file]).await), "401");
    assert_eq!(status(post(&gateway, "live/a?key=wrong", "", &[&file]).await), "401");
    assert_eq!(status(post(&gateway, "live/a?key=secret", "", &[&file]).await), "200");
    assert_eq!(status(post(&gateway, "live/a", "Authorization: Bearer secret\r\n", &[&file]).await), "200");
    assert_eq!(status(post(&gateway, "live/../a?key=secret", "", &[&file]).await), "400");
    let refused = Socket::open(gateway.http, "/h5/live/a?publish=1", "").await;
    assert!(refused.head.starts_with("HTTP/1.1 401 "), "{}", refused.head);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_publishes_too() {
    let gateway = Running::start(Config::default(), None).await;
    let file = std::fs::read(mpeg1()).unwrap();
    let mut source = Socket::open(gateway.http, "/h5/live/a?publish=1", "").await;
    for piece in file[..300_000].chunks(10_000) {
        source.send(0x82, piece).await;
    }
    gateway.hub.wait_live("live/a", 2).await;
    source.send(0x88, &[]).await;
    wait_for("the end", Duration::from_secs(2), || gateway.hub.causes("publish") == ["closed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_says_what_is_not_there() {
    let gateway = Running::start(Config::default(), None).await;
    let none = Socket::open(gateway.http, "/h5/live/none", "").await;
    assert!(none.head.starts_with("HTTP/1.1 404 ") && none.head.contains("access-control-allow-origin: *"), "{}", none.head);
    let mut plain = TcpStream::connect(gateway.http).await.unwrap();
    plain.write_all(b"GET /h5/live/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("WebSocket"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_bounded_and_silent_publishers_given_up() {
    let gateway = Running::start(Config { sessions_max: 1, idle_timeout_s: 1, ..Config::default() }, None).await;
    let _silent = Socket::open(gateway.http, "/h5/live/a?publish=1", "").await;
    let second = Socket::open(gateway.http, "/h5/live/b?publish=1", "").await;
    assert!(second.head.starts_with("HTTP/1.1 503 "), "{}", second.head);
    wait_for("the timeout", Duration::from_secs(4), || gateway.hub.causes("publish") == ["timeout"]).await;
}

async fn looping(gateway: &Running) -> Process {
    let ffmpeg = publish(mpeg1(), &gateway.url("live/a"));
    gateway.hub.wait_live("live/a", 2).await;
    ffmpeg
}

/// How far behind the newest picture on the bus the picture of `stamp` is, milliseconds.
fn behind(stamp: u64) -> i64 {
    patchbay_bus::now().as_millis() - (stamp / 90) as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_at_half_rate_stays_less_than_a_second_behind_and_others_lose_nothing() {
    let gateway = Running::start(Config::default(), None).await;
    let _source = looping(&gateway).await;
    let (mut slow, mut quick) = (Socket::open(gateway.http, "/h5/live/a", "").await, Socket::open(gateway.http, "/h5/live/a", "").await);
    let reader = tokio::spawn(async move { pictures(&quick.rest().await) });
    let half_rate = std::fs::metadata(mpeg1()).unwrap().len() as f64 / 8.0 / 2.0;
    let (begun, mut read, mut worst, mut seen) = (Instant::now(), 0, 0, 0);
    let mut demuxer = Demuxer::new();
    while begun.elapsed() < Duration::from_millis(5_500) {
        let Ok(Some(bytes)) = timeout(Duration::from_secs(1), slow.binary()).await else { continue };
        read += bytes.len();
        let due = Duration::from_secs_f64(read as f64 / half_rate);
        sleep(due.saturating_sub(begun.elapsed())).await;
        let mut out = Vec::new();
        demuxer.push(&bytes, &mut out);
        for pes in out.iter().filter(|pes| pes.stream_type.kind() == Kind::Video) {
            seen += 1;
            worst = worst.max(behind(pes.pts.unwrap()));
        }
    }
    let slow_counters = gateway.hub.viewers().remove(0);
    let quick = reader.await.unwrap();
    println!("{worst} ms behind, {seen} seen");
    assert!(worst < 1_000, "{worst} ms behind");
    assert!(seen > 20 && slow_counters.skipped.load(Ordering::Relaxed) > 10, "{seen} seen");
    assert!(slow_counters.rtt_us.load(Ordering::Relaxed) > 0);
    let steps: Vec<_> = quick.windows(2).map(|p| (p[1].pts.unwrap() - p[0].pts.unwrap()) / 90).collect();
    assert!(steps.len() > 100 && steps.iter().all(|ms| (30..50).contains(ms)), "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_stops_reading_is_cut() {
    let gateway = Running::start(Config { slow_cut_s: 1, ..Config::default() }, None).await;
    let _source = looping(&gateway).await;
    let mut stuck = Socket::open(gateway.http, "/h5/live/a", "").await;
    while !matches!(stuck.next().await, Some(Message::Ping(_))) {}
    let begun = Instant::now();
    wait_for("the cut", Duration::from_secs(5), || gateway.hub.causes("play") == ["too_slow"]).await;
    assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_joiner_gets_a_picture_at_once() {
    let gateway = Running::start(Config::default(), None).await;
    let _source = looping(&gateway).await;
    let _first = Socket::open(gateway.http, "/h5/live/a", "").await;
    sleep(Duration::from_millis(700)).await;
    let begun = Instant::now();
    let mut late = Socket::open(gateway.http, "/h5/live/a", "").await;
    let bytes = late.binary().await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_begins_well(&bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_every_session_and_then_the_gateway() {
    let gateway = Running::start(Config::default(), None).await;
    let mut source = looping(&gateway).await;
    let mut viewer = Socket::open(gateway.http, "/h5/live/a", "").await;
    viewer.binary().await.unwrap();
    gateway.shutdown.cancel();
    timeout(Duration::from_secs(4), gateway.run).await.expect("in time").unwrap();
    assert_eq!(gateway.hub.causes("publish"), ["draining"]);
    assert_eq!(gateway.hub.causes("play").len(), 1);
    let refused = Socket::open(gateway.http, "/h5/live/a", "").await;
    assert!(refused.head.starts_with("HTTP/1.1 503 "), "{}", refused.head);
    source.ended().await;
}

//! Publishers whose stamps wrap, jump or stand still: nobody is disconnected, what players get goes on, and sound stays with its
//! pictures.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use patchbay_rtmp::proto::client::{ClientSession, Mode};
use patchbay_rtmp::proto::url::RtmpUrl;

use crate::changing::{Tag, tags};
use crate::support::{Client, Patchbay, Probe, Watching, fixture, probe, turn};

/// When stamps jump, and how long before a wrap they begin, milliseconds of media.
const EVENT: i64 = 8_000;
const HOUR: i64 = 3_600_000;
/// What a player sees for so long has the event in it.
const WATCHED_S: u32 = 9;
/// How far the distance of sound and picture may be from that of the source, seconds.
const LIPS_MAX: f64 = 0.04;

/// What a stamp becomes, milliseconds.
type Stamp = fn(i64) -> i64;

/// A publisher that sends a file in real time with the stamps that `stamp` makes of the file's.
struct Stamping {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Stamping {
    fn publish(tags: &[Tag], url: &str, stamp: Stamp) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tags, url, stopped) = (tags.to_vec(), RtmpUrl::parse(url).expect("a URL"), stop.clone());
        Self { stop, thread: std::thread::spawn(move || send(&tags, url, stamp, &stopped)) }
    }

    /// Asserts that it was never disconnected.
    #[track_caller]
    fn finish(self) {
        assert!(!self.thread.is_finished(), "the publisher goes on until it is told to stop");
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic").expect("it was never disconnected");
    }
}

fn send(tags: &[Tag], url: RtmpUrl, stamp: Stamp, stopped: &AtomicBool) -> std::io::Result<()> {
    let mut socket = TcpStream::connect((&*url.host, url.port))?;
    let mut session = ClientSession::new(url, Mode::Publish, 4_096, 1);
    let mut buffer = [0; 4_096];
    while !session.is_started() {
        socket.write_all(&session.take_output())?;
        let read = socket.read(&mut buffer)?;
        session.receive(Bytes::copy_from_slice(&buffer[..read]));
        while session.poll().map_err(std::io::Error::other)?.is_some() {}
    }
    let begin = Instant::now();
    for tag in tags.iter().take_while(|_| !stopped.load(Ordering::Relaxed)) {
        let due = Duration::from_millis(tag.time.max(0) as u64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
        // The wire has 32 bits.
        let at = stamp(tag.time) as u32;
        let sent = if tag.is_audio() { session.send_audio(at, &tag.body) } else { session.send_video(at, &tag.body) };
        sent.map_err(std::io::Error::other)?;
        socket.write_all(&session.take_output())?;
    }
    Ok(())
}

/// Time between two packets of a kind in the file, seconds.
fn period(tags: &[Tag], audio: bool) -> f64 {
    let times: Vec<_> = tags.iter().filter(|tag| tag.is_audio() == audio && !tag.is_header()).map(|tag| tag.time).collect();
    (times[times.len() - 1] - times[0]) as f64 / 1e3 / (times.len() - 1) as f64
}

/// How much the distance between sound and picture changes while `seen` is played, seconds. Nothing is lost on the way, so
/// the n-th packet is the n-th of the source.
fn lips(seen: &Probe, periods: [f64; 2]) -> f64 {
    let error = |stamps: Vec<f64>, period: f64| -> Vec<(f64, f64)> {
        let first = stamps[0];
        stamps.into_iter().enumerate().map(|(n, at)| (at, at - first - n as f64 * period)).collect()
    };
    let (video, audio) = (error(seen.dts("video"), periods[0]), error(seen.dts("audio"), periods[1]));
    let mut worst: f64 = 0.0;
    for (at, error) in video {
        let next = audio.partition_point(|(heard, _)| *heard <= at);
        if let Some((_, heard)) = next.checked_sub(1).map(|i| audio[i]) {
            worst = worst.max((error - heard).abs());
        }
    }
    worst
}

#[test]
fn stamps_that_wrap_jump_or_stand_still_disconnect_nobody() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let tags = tags(&std::fs::read(fixture("baseline-360p.flv")).expect("the fixture"));
    let periods = [period(&tags, false), period(&tags, true)];
    let cases: [(&str, Stamp); 5] = [
        ("wrap24", |t| (1 << 24) - EVENT + t),
        ("wrap32", |t| (1 << 32) - EVENT + t),
        ("ahead", |t| if t < EVENT { t } else { t + HOUR }),
        ("back", |t| if t < EVENT { t + 2 * HOUR } else { t + HOUR }),
        ("zero", |_| 0),
    ];
    let url = |name: &str| format!("live/{name}");
    let sources = cases.map(|(name, stamp)| Stamping::publish(&tags, &hub.rtmp_url(&url(name)), stamp));
    cases.iter().for_each(|(name, _)| hub.wait_live(&url(name)));
    // Stamps of zero are believed for a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let whep = cases
        .map(|(name, _)| (name, Watching::start(Client::Aiortc, &["whep", &hub.url(&format!("/whep/{}", url(name))), "--stamp", "n"])));
    std::thread::scope(|scope| {
        let watch = |name: &'static str, url: String| scope.spawn(move || (name, probe(&url, WATCHED_S)));
        let rtmp = cases.map(|(name, _)| watch(name, hub.rtmp_url(&url(name))));
        let flv = cases.map(|(name, _)| watch(name, hub.url(&format!("/flv/{}.flv", url(name)))));
        for seen in rtmp.into_iter().chain(flv) {
            let (name, seen) = seen.join().expect("ffprobe plays to its end");
            let lips = lips(&seen, periods);
            println!("{name}: {} pictures, sound moves by {:.0} ms at most", seen.dts("video").len(), lips * 1e3);
            assert!(seen.dts("video").len() > 200, "{name} was played through");
            for kind in ["video", "audio"] {
                seen.assert_continuous(kind, 0.25);
            }
            assert!(lips <= LIPS_MAX, "{name}: sound and picture part by {:.0} ms", lips * 1e3);
        }
    });
    for (name, seen) in whep.map(|(name, watching)| (name, watching.report())) {
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{name}: {seen}");
        assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{name}: {seen}");
        println!("{name} by WHEP: {} {}", seen["stamps"]["shownPct"], seen["lipSyncMs"]);
    }
    sources.into_iter().for_each(Stamping::finish);
}

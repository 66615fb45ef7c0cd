//! Viewers of a real bus.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use patchbay_bus::{Bus, EndReason, Feed, FeedValue, Point, Publisher, TrackWriter, now};
use patchbay_contract::{Counters, Leg};
use patchbay_media::{AudioShape, Codec, Frame, Kind, MediaTime, TrackInfo, VideoShape};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ts::{Demuxer, PACKET};

const LAG: Duration = Duration::from_millis(500);

struct Source {
    publisher: Publisher,
    video: TrackWriter,
    audio: TrackWriter,
    begun: MediaTime,
}

impl Source {
    fn new() -> Self {
        let publisher = Bus::new().publish("live/a".parse().unwrap()).unwrap();
        let video = publisher.add_track(TrackInfo::video(Codec::Mpeg1, Bytes::new(), VideoShape::default()));
        let audio = AudioShape { sample_rate: 44_100, channels: 2 };
        let audio = publisher.add_track(TrackInfo::audio(Codec::Mp2, Bytes::new(), audio));
        Self { publisher, video, audio, begun: now() }
    }

    fn push(&mut self, kind: Kind, ms: i64, key: bool, name: &str) {
        let dts = self.begun + MediaTime::from_millis(ms);
        let payload = Bytes::copy_from_slice(name.as_bytes());
        let frame = Frame { pts: dts, dts, duration: MediaTime::ZERO, key, loss: 0, arrival: now(), payload };
        match kind {
            Kind::Video => self.video.push(frame),
            Kind::Audio => self.audio.push(frame),
        }
    }

    fn picture(&mut self, ms: i64, key: bool, name: &str) {
        self.push(Kind::Video, ms, key, name);
    }

    fn sound(&mut self, ms: i64, name: &str) {
        self.push(Kind::Audio, ms, true, name);
    }

    fn value(&self, video: bool, audio: bool) -> FeedValue {
        let point = |w: &TrackWriter| Some(Point { track: w.track().clone(), epoch: w.track().info().unwrap().1 });
        FeedValue { video: point(&self.video).filter(|_| video), audio: point(&self.audio).filter(|_| audio), ended: None }
    }
}

struct Watching {
    viewer: Viewer,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
}

fn watch(source: &Source, muxes: &Arc<Muxes>) -> Watching {
    let (feed, counters): (Arc<Feed>, Arc<Counters>) = Default::default();
    feed.set(source.value(true, true));
    let stream = source.publisher.stream().name().clone();
    let leg = Leg::new(1, stream, feed.clone(), counters.clone(), CancellationToken::new(), Box::new(|_, _| {}));
    Watching { viewer: Viewer::new(leg, muxes.clone(), LAG), feed, counters }
}

impl Watching {
    async fn pieces(&mut self) -> Vec<Bytes> {
        let mut pieces = Vec::new();
        let ready = timeout(Duration::from_secs(3), self.viewer.ready(&mut pieces)).await;
        assert_eq!(ready, Ok(Ready::Send));
        pieces
    }

    /// The payloads of all frames until `last` was seen.
    async fn until(&mut self, last: &str) -> Vec<String> {
        let (mut demuxer, mut out) = (Demuxer::new(), Vec::new());
        while !out.iter().any(|pes: &crate::ts::Pes| pes.data[..] == *last.as_bytes()) {
            for piece in self.pieces().await {
                assert_eq!(piece.len() % PACKET, 0, "whole packets");
                demuxer.push(&piece, &mut out);
            }
            // Nothing is held back for more: everything is in whole packets.
            demuxer.finish(&mut out);
        }
        out.iter().map(|pes| String::from_utf8_lossy(&pes.data).into_owned()).collect()
    }
}

#[tokio::test]
async fn two_viewers_share_one_mux_and_its_bytes_and_the_last_one_ends_it() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key0");
    let (mut one, mut two) = (watch(&source, &muxes), watch(&source, &muxes));
    let (from_one, from_two) = (one.pieces().await, two.pieces().await);
    assert_eq!(from_one[0].as_ptr(), from_two[0].as_ptr(), "the same memory");
    assert_eq!((muxes.count(), source.video.track().reader_count()), (1, 1));
    drop((one, two));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((muxes.count(), source.video.track().reader_count()), (0, 0));
}

#[tokio::test]
async fn a_joiner_begins_with_tables_and_the_newest_key_picture() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key0");
    source.picture(40, false, "more1");
    source.picture(80, true, "key2");
    source.sound(90, "sound");
    source.picture(120, false, "more3");
    let first = watch(&source, &muxes).pieces().await.remove(0);
    let pid = |n: usize| u16::from_be_bytes([first[n * PACKET + 1] & 0x1f, first[n * PACKET + 2]]);
    assert_eq!((pid(0), pid(1), pid(2)), (0, 0x1000, 0x100));
    let seen = watch(&source, &muxes).until("more3").await;
    assert_eq!(seen, ["key2", "sound", "more3"]);
}

#[tokio::test]
async fn a_track_that_comes_late_is_taken_in_without_a_new_key_picture_and_without_repeats() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    (0..20).for_each(|i| source.picture(i * 40, i == 0, &format!("picture{i:02}")));
    let mut viewer = watch(&source, &muxes);
    viewer.feed.set(source.value(true, false));
    viewer.until("picture19").await;
    viewer.feed.set(source.value(true, true));
    source.sound(780, "sound20");
    source.picture(800, false, "picture20");
    // No tables yet for this demuxer: raw bytes are looked at.
    let mut text = String::new();
    while !text.contains("picture20") {
        viewer.pieces().await.iter().for_each(|p| text.push_str(&String::from_utf8_lossy(p)));
    }
    assert!(text.contains("sound20") && !text.contains("picture19"));
}

#[tokio::test]
async fn a_viewer_that_lags_skips_whole_groups_and_others_do_not_notice() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key00");
    let (mut slow, mut quick) = (watch(&source, &muxes), watch(&source, &muxes));
    slow.until("key00").await;
    quick.until("key00").await;
    for i in 1..24 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        let key = i % 6 == 0;
        source.picture(i * 40, key, &format!("{}{i:02}", if key { "key" } else { "more" }));
        quick.pieces().await;
    }
    let seen = slow.until("more23").await;
    assert_eq!(seen, ["key18", "more19", "more20", "more21", "more22", "more23"]);
    let skipped = |w: &Watching| w.counters.skipped.load(Ordering::Relaxed);
    assert_eq!((skipped(&slow), skipped(&quick)), (17, 0));
    assert_eq!(quick.counters.frames.load(Ordering::Relaxed), 24);
}

#[tokio::test]
async fn sound_alone_can_be_joined_and_comes_without_pictures() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::from_millis(20))));
    source.sound(0, "sound0");
    let mut viewer = watch(&source, &muxes);
    viewer.feed.set(source.value(false, true));
    viewer.until("sound0").await;
    (1..9).for_each(|i| source.sound(i * 100, &format!("sound{i}")));
    assert!(String::from_utf8_lossy(&viewer.pieces().await.concat()).contains("sound4"));
    // The rest waits for company.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let mut late = watch(&source, &muxes);
    late.feed.set(source.value(false, true));
    assert_eq!(late.until("sound8").await, ["sound5", "sound6", "sound7", "sound8"]);
}

#[tokio::test]
async fn the_rest_of_an_ended_stream_is_sent_before_its_end() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key0");
    let mut viewer = watch(&source, &muxes);
    viewer.until("key0").await;
    source.picture(40, false, "last1");
    let value = source.value(true, true);
    source.video.end(EndReason::Finished);
    source.audio.end(EndReason::Finished);
    viewer.feed.set(FeedValue { ended: Some(EndReason::Finished), ..value });
    assert!(!viewer.pieces().await.is_empty());
    let mut nothing = Vec::new();
    let end = timeout(Duration::from_secs(2), viewer.viewer.ready(&mut nothing));
    assert_eq!(end.await, Ok(Ready::Ended(EndReason::Finished)));
    assert_eq!(viewer.counters.frames.load(Ordering::Relaxed), 2);
}

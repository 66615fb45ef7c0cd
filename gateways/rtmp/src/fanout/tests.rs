//! Viewers of a real bus.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use patchbay_bus::{Bus, EndReason, Feed, FeedValue, Point, Publisher, TrackWriter, now};
use patchbay_contract::{Counters, Leg};
use patchbay_media::{AudioShape, Codec, Frame, MediaTime, TrackInfo, VideoShape};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;

const LAG: Duration = Duration::from_secs(3);

struct Source {
    publisher: Publisher,
    video: TrackWriter,
    audio: TrackWriter,
    begun: MediaTime,
}

impl Source {
    fn new() -> Self {
        let publisher = Bus::new().publish("live/a".parse().unwrap()).unwrap();
        let shape = VideoShape { width: 320, height: 180, ..VideoShape::default() };
        let video = publisher.add_track(TrackInfo::video(Codec::H264, Bytes::from_static(b"config one"), shape));
        let audio = AudioShape { sample_rate: 48_000, channels: 2 };
        let audio = publisher.add_track(TrackInfo::audio(Codec::Aac, Bytes::from_static(&[0x11, 0x90]), audio));
        Self { publisher, video, audio, begun: now() }
    }

    fn frame(&self, ms: i64, key: bool, payload: &str) -> Frame {
        let dts = self.begun + MediaTime::from_millis(ms);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        Frame { pts: dts, dts, duration: MediaTime::ZERO, key, loss: 0, arrival: dts, payload }
    }

    fn picture(&mut self, ms: i64, key: bool, name: &str) {
        let frame = self.frame(ms, key, name);
        self.video.push(frame);
    }

    fn sound(&mut self, ms: i64, name: &str) {
        let frame = self.frame(ms, true, name);
        self.audio.push(frame);
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

fn watch(source: &Source, muxes: &Arc<Muxes>, form: Form) -> Watching {
    let (feed, counters): (Arc<Feed>, Arc<Counters>) = Default::default();
    feed.set(source.value(true, true));
    let stream = source.publisher.stream().name().clone();
    let leg = Leg::new(1, stream, feed.clone(), counters.clone(), CancellationToken::new(), Box::new(|_, _| {}));
    Watching { viewer: Viewer::new(leg, muxes.clone(), form, LAG), feed, counters }
}

impl Watching {
    /// Everything until `last` was seen.
    async fn until(&mut self, last: &str) -> String {
        let mut seen = String::new();
        let read = async {
            while !seen.contains(last) {
                let mut pieces = Vec::new();
                assert_eq!(self.viewer.ready(&mut pieces).await, Ready::Send);
                seen.extend(pieces.iter().map(|p| String::from_utf8_lossy(p).into_owned()));
            }
        };
        timeout(Duration::from_secs(3), read).await.unwrap_or_else(|_| panic!("no {last}"));
        seen
    }
}

fn order(text: &str, parts: &[&str]) {
    let at: Vec<_> = parts.iter().map(|part| text.find(part).unwrap_or_else(|| panic!("{part} is missing"))).collect();
    assert!(at.is_sorted(), "{parts:?} at {at:?}");
}

#[tokio::test]
async fn two_viewers_share_one_mux_and_its_bytes_and_the_last_one_ends_it() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key0");
    source.sound(0, "sound0");
    let (mut one, mut two) = (watch(&source, &muxes, Form::Flv), watch(&source, &muxes, Form::Flv));
    let (mut from_one, mut from_two) = (Vec::new(), Vec::new());
    assert_eq!((one.viewer.ready(&mut from_one).await, two.viewer.ready(&mut from_two).await), (Ready::Send, Ready::Send));
    assert_eq!(from_one[1].as_ptr(), from_two[1].as_ptr(), "the same memory");
    assert_eq!((muxes.count(), source.video.track().reader_count()), (1, 1));
    let rtmp = Form::Rtmp { chunk_size: 4_096, stream_id: 1 };
    let mut three = watch(&source, &muxes, rtmp);
    three.until("key0").await;
    assert_eq!((muxes.count(), source.video.track().reader_count()), (2, 2));
    drop((one, two, three));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((muxes.count(), source.video.track().reader_count()), (0, 0));
}

#[tokio::test]
async fn headers_come_first_and_again_when_they_change() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key0");
    source.sound(0, "sound0");
    let mut viewer = watch(&source, &muxes, Form::Flv);
    let seen = viewer.until("sound0").await;
    order(&seen, &["onMetaData", "config one", "key0", "sound0"]);
    source.picture(40, false, "more1");
    let seen = viewer.until("more1").await;
    assert!(!seen.contains("config") && !seen.contains("onMetaData"));
    let info = source.video.track().info().unwrap().0;
    source.video.set_info(TrackInfo { config: Bytes::from_static(b"config two"), ..(*info).clone() });
    source.picture(80, true, "key2");
    order(&viewer.until("key2").await, &["config two", "key2"]);
}

#[tokio::test]
async fn a_track_that_comes_late_is_taken_in_without_a_new_key_frame_and_without_repeats() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    (0..20).for_each(|i| source.picture(i * 40, i == 0, &format!("picture{i:02}")));
    let mut viewer = watch(&source, &muxes, Form::Flv);
    viewer.feed.set(source.value(true, false));
    viewer.until("picture19").await;
    assert_eq!(viewer.viewer.kinds(), (true, false));
    viewer.feed.set(source.value(true, true));
    source.sound(780, "sound20");
    source.picture(800, false, "picture20");
    source.sound(820, "sound21");
    source.picture(840, false, "picture21");
    let seen = viewer.until("picture21").await;
    order(&seen, &["onMetaData", "picture20", "sound21", "picture21"]);
    assert!(!seen.contains("picture19"), "nothing is repeated");
    assert_eq!(viewer.viewer.kinds(), (true, true));
}

#[tokio::test]
async fn other_pictures_are_taken_over_at_their_key_frame_and_stamps_go_on() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    (0..20).for_each(|i| source.picture(i * 40, i == 0, &format!("old{i:02}")));
    let mut viewer = watch(&source, &muxes, Form::Flv);
    viewer.until("old19").await;
    let info = source.video.track().info().unwrap().0;
    let new = source.publisher.add_track((*info).clone());
    let old = std::mem::replace(&mut source.video, new);
    viewer.feed.set(source.value(true, true));
    source.picture(760, false, "late");
    source.picture(900, true, "new00");
    let mut pieces = Vec::new();
    while !pieces.iter().any(|p: &Bytes| p.windows(5).any(|w| w == b"new00")) {
        assert_eq!(viewer.viewer.ready(&mut pieces).await, Ready::Send);
    }
    let tag = pieces.last().unwrap();
    assert_eq!(u32::from_be_bytes([0, tag[4], tag[5], tag[6]]), 900, "one epoch for all muxes of a stream");
    drop(old);
}

#[tokio::test]
async fn the_rest_of_an_ended_stream_is_sent_before_its_end() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::ZERO)));
    source.picture(0, true, "key0");
    let mut viewer = watch(&source, &muxes, Form::Flv);
    viewer.until("key0").await;
    source.picture(40, false, "last1");
    let value = source.value(true, true);
    source.video.end(EndReason::Finished);
    source.audio.end(EndReason::Finished);
    viewer.feed.set(FeedValue { ended: Some(EndReason::Finished), ..value });
    viewer.until("last1").await;
    let mut nothing = Vec::new();
    let end = timeout(Duration::from_secs(2), viewer.viewer.ready(&mut nothing));
    assert_eq!(end.await, Ok(Ready::Ended(EndReason::Finished)));
    assert_eq!(viewer.counters.frames.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn sound_waits_a_moment_for_company_and_pictures_never() {
    let (mut source, muxes) = (Source::new(), Arc::new(Muxes::new(Duration::from_millis(100))));
    source.picture(0, true, "key0");
    let mut viewer = watch(&source, &muxes, Form::Flv);
    viewer.until("key0").await;
    let begun = std::time::Instant::now();
    source.sound(10, "alone");
    viewer.until("alone").await;
    assert!(begun.elapsed() >= Duration::from_millis(95), "{:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    source.sound(30, "company");
    source.picture(40, false, "picture1");
    viewer.until("picture1").await;
    assert!(begun.elapsed() < Duration::from_millis(80), "{:?}", begun.elapsed());
}

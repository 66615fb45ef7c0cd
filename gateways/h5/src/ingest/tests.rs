//! Transport streams in, frames and descriptions out.

use std::sync::Arc;

use bytes::BytesMut;
use patchbay_bus::{Bus, Item, Lag, Signal, Start, Stream};
use patchbay_contract::{Counters, Publication};
use patchbay_media::Codec;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ts::{Muxer, StreamType, Unit};

/// 640x360 at 25 fps, and 320x180 at 30 fps.
const LARGE: [u8; 12] = [0, 0, 1, 0xb3, 0x28, 0x01, 0x68, 0x13, 0xff, 0xff, 0xe0, 0x18];
const SMALL: [u8; 12] = [0, 0, 1, 0xb3, 0x14, 0x00, 0xb4, 0x15, 0xff, 0xff, 0xe0, 0x18];
const SLICE: [u8; 8] = [0, 0, 1, 1, 9, 9, 9, 9];

struct Bench {
    ingest: Ingest,
    stream: Arc<Stream>,
    counters: Arc<Counters>,
    muxer: Muxer,
    out: BytesMut,
}

fn picture(coding: u8) -> Vec<u8> {
    [&[0, 0, 1, 0, 0, coding << 3 | 7, 0xff, 0xf8][..], &SLICE].concat()
}

fn key(header: &[u8]) -> Vec<u8> {
    [header, &picture(1)].concat()
}

impl Bench {
    fn new(video: StreamType, audio: StreamType) -> Self {
        let publisher = Bus::new().publish("live/a".parse().unwrap()).unwrap();
        let (stream, counters) = (publisher.stream().clone(), Arc::new(Counters::default()));
        let publication = Publication::new(1, publisher, counters.clone(), CancellationToken::new(), Box::new(|_, _| {}));
        let (mut muxer, mut out) = (Muxer::new(Some(video), Some(audio)), BytesMut::new());
        muxer.write_tables(&mut out);
        Self { ingest: Ingest::new(publication), stream, counters, muxer, out }
    }

    fn mpeg() -> Self {
        Self::new(StreamType::Mpeg2Video, StreamType::Mpeg1Audio)
    }

    /// Stamps in milliseconds.
    fn write(&mut self, kind: Kind, pts: u64, dts: u64, payload: &[u8]) {
        self.muxer.write(&Unit { kind, pts: pts * 90, dts: dts * 90, key: false, payload }, &mut self.out);
        let bytes = self.out.split();
        self.ingest.push(&bytes, MediaTime::from_millis(1_000 + dts as i64)).unwrap();
    }

    fn video(&mut self, ms: u64, payload: &[u8]) {
        self.write(Kind::Video, ms, ms, payload);
    }

    fn items(&self, kind: Kind) -> Vec<Item> {
        let track = self.stream.track(kind).expect("a track");
        let mut reader = track.read(Start::From(MediaTime::ZERO), Lag::Keep, Arc::new(Signal::new()));
        std::iter::from_fn(|| reader.poll()).collect()
    }

    fn lost(&self) -> u64 {
        self.counters.lost.load(Ordering::Relaxed)
    }
}

/// (pts in milliseconds, bytes, key), or (width, reorder depth, false) of a description.
fn story(items: &[Item]) -> Vec<(i64, usize, bool)> {
    let each = items.iter().map(|item| match item {
        Item::Frame(f) => (f.pts.as_millis(), f.payload.len(), f.key),
        Item::Info(info) => info.video_shape().map_or((-1, 0, false), |s| (s.width.into(), s.reorder_frames.into(), false)),
        other => panic!("{other:?}"),
    });
    each.collect()
}

#[test]
fn pictures_of_mpeg_1_come_out_one_by_one_and_described() {
    let mut bench = Bench::mpeg();
    bench.video(0, &key(&LARGE));
    bench.video(40, &picture(2));
    assert_eq!(story(&bench.items(Kind::Video)), [(640, 0, false), (1_000, 28, true), (1_040, 16, false)]);
    let info = bench.stream.track(Kind::Video).unwrap().info().unwrap().0;
    assert_eq!((info.codec, info.video_shape().unwrap().frame_rate), (Codec::Mpeg1, Some(25.0)));
}

#[test]
fn several_pictures_of_a_packet_are_a_frame_time_apart() {
    let mut bench = Bench::mpeg();
    bench.video(0, &[key(&LARGE), picture(2), picture(2)].concat());
    assert_eq!(story(&bench.items(Kind::Video))[1..], [(1_000, 28, true), (1_040, 16, false), (1_080, 16, false)]);
}

#[test]
fn an_intra_picture_without_its_sequence_header_is_given_the_last_one() {
    let mut bench = Bench::mpeg();
    bench.video(0, &key(&LARGE));
    bench.video(40, &picture(1));
    let items = bench.items(Kind::Video);
    let Some(Item::Frame(frame)) = items.last() else { panic!("{items:?}") };
    assert!(frame.key && frame.payload[..] == key(&LARGE)[..]);
}

#[test]
fn another_size_takes_effect_with_its_key_picture() {
    let mut bench = Bench::mpeg();
    bench.video(0, &key(&LARGE));
    bench.video(40, &key(&SMALL));
    let expected = [(640, 0, false), (1_000, 28, true), (320, 0, false), (1_040, 28, true)];
    assert_eq!(story(&bench.items(Kind::Video)), expected);
}

#[test]
fn b_pictures_are_declared_at_the_next_key_picture() {
    let mut bench = Bench::mpeg();
    bench.write(Kind::Video, 40, 0, &key(&LARGE));
    bench.write(Kind::Video, 120, 40, &picture(2));
    bench.write(Kind::Video, 80, 80, &picture(3));
    bench.write(Kind::Video, 160, 120, &key(&LARGE));
    let story = story(&bench.items(Kind::Video));
    assert_eq!((story[0], story[4]), ((640, 0, false), (640, 1, false)));
    assert_eq!(story[1..4].iter().map(|s| s.0).collect::<Vec<_>>(), [1_040, 1_120, 1_080]);
}

#[test]
fn pictures_before_the_first_key_picture_are_left_out_and_counted() {
    let mut bench = Bench::mpeg();
    bench.video(0, &picture(2));
    bench.video(40, b"no start code at all");
    assert!(bench.stream.tracks().is_empty());
    assert_eq!(bench.lost(), 2);
    bench.video(80, &key(&LARGE));
    let Some(Item::Frame(first)) = bench.items(Kind::Video).into_iter().nth(1) else { panic!("no frame") };
    assert_eq!(first.loss, 2);
}

#[test]
fn a_picture_that_no_decoder_is_given_makes_no_track() {
    let mut bench = Bench::mpeg();
    let nothing: Vec<u8> = [&[0, 0, 1, 0xb3, 0, 0, 0][..], &LARGE[7..]].concat();
    bench.video(0, &key(&nothing));
    assert!(bench.stream.tracks().is_empty() && bench.lost() == 1);
}

#[test]
fn stamps_go_on_over_the_end_of_33_bits() {
    let mut bench = Bench::mpeg();
    let end = (1u64 << 33) / 90;
    for (i, payload) in [key(&LARGE), picture(2), picture(2)].iter().enumerate() {
        let ms = end - 39 + 40 * i as u64;
        bench.muxer.write(&Unit { kind: Kind::Video, pts: ms * 90, dts: ms * 90, key: false, payload }, &mut bench.out);
        let bytes = bench.out.split();
        bench.ingest.push(&bytes, MediaTime::from_millis(1_000 + 40 * i as i64)).unwrap();
    }
    assert_eq!(story(&bench.items(Kind::Video))[1..].iter().map(|s| s.0).collect::<Vec<_>>(), [1_000, 1_040, 1_080]);
}

#[test]
fn sound_is_cut_into_frames_with_their_own_times() {
    let mut bench = Bench::mpeg();
    let mut frame = vec![7; 417];
    frame[..4].copy_from_slice(&[0xff, 0xfd, 0x80, 0x04]);
    bench.write(Kind::Audio, 0, 0, &frame.repeat(3));
    let items = bench.items(Kind::Audio);
    let Item::Info(info) = &items[0] else { panic!("{items:?}") };
    assert_eq!((info.codec, info.audio_shape().unwrap().sample_rate), (Codec::Mp2, 44_100));
    assert_eq!(story(&items[1..]), [(1_000, 417, true), (1_026, 417, true), (1_052, 417, true)]);
}

#[test]
fn what_is_no_transport_stream_is_given_up_after_a_while() {
    let publisher = Bus::new().publish("live/a".parse().unwrap()).unwrap();
    let publication = Publication::new(1, publisher, Arc::default(), CancellationToken::new(), Box::new(|_, _| {}));
    let mut ingest = Ingest::new(publication);
    let junk = vec![0x47; 300_000];
    let pushes = (0..10).map(|_| ingest.push(&junk, MediaTime::ZERO)).filter(Result::is_ok).count();
    assert_eq!(pushes, 3);
}

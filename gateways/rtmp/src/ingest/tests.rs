//! Tags in, frames and descriptions out.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use patchbay_bus::{Bus, Item, Lag, Signal, Start, Stream};
use patchbay_contract::{Counters, Publication};
use patchbay_media::Kind;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::flv::tag::{AudioCodec, AudioPacket, SoundFormat, VideoCodec, VideoPacket};
use crate::proto::amf0::Value;

/// avcC of x264's 320x180 Main with no VUI reordering limit: an SPS that says nothing of B-frames.
fn avcc(profile: u8, width_mbs: u32) -> Bytes {
    // SPS written by hand: no VUI, poc type 0, so only the frames can tell whether there are B-frames.
    let mut bits = Bits::default();
    bits.put(8, profile.into());
    bits.put(8, 0);
    bits.put(8, 30);
    bits.ue(0); // seq_parameter_set_id
    bits.ue(0); // log2_max_frame_num_minus4
    bits.ue(0); // pic_order_cnt_type
    bits.ue(0); // log2_max_pic_order_cnt_lsb_minus4
    bits.ue(4); // max_num_ref_frames
    bits.put(1, 0); // gaps_in_frame_num_value_allowed_flag
    bits.ue(width_mbs - 1);
    bits.ue(11); // pic_height_in_map_units_minus1
    bits.put(1, 1); // frame_mbs_only_flag
    bits.put(1, 1); // direct_8x8_inference_flag
    bits.put(1, 0); // frame_cropping_flag
    bits.put(1, 0); // vui_parameters_present_flag
    bits.put(1, 1); // rbsp_stop_one_bit
    let sps = [&[0x67][..], &bits.bytes()].concat();
    let pps = [0x68, 0xCE, 0x38, 0x80];
    let mut record = vec![1, profile, 0, 30, 0xFF, 0xE1];
    record.extend((sps.len() as u16).to_be_bytes());
    record.extend(sps);
    record.extend([1, 0, 4]);
    record.extend(pps);
    record.into()
}

/// hvcC of x265's 640x360 Main for NAL units behind lengths of so many bytes.
fn hvcc(prefix: u8) -> Bytes {
    const VPS: &[u8] = &[0x40, 1, 0x0c, 1, 0xff, 0xff, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x3f, 0x95, 0x94, 9];
    const SPS: &[u8] = &[
        0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x3f, 0xa0, 5, 2, 1, 0x71, 0xf2, 0xe5, 0x95, 0x95, 0x29, 0x30, 0xb9,
        0xa0, 0x20, 0, 0, 3, 0, 0x20, 0, 0, 3, 3, 0xc1,
    ];
    const PPS: &[u8] = &[0x44, 1, 0xc0, 0x73, 0xc1, 0x89];
    let mut record = vec![1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x3f, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0c | (prefix - 1), 3];
    for (kind, nal) in [(32, VPS), (33, SPS), (34, PPS)] {
        record.extend([kind, 0, 1, 0, nal.len() as u8]);
        record.extend(nal);
    }
    record.into()
}

#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, count: u32, value: u32) {
        (0..count).rev().for_each(|i| self.0.push(value >> i & 1 == 1));
    }

    fn ue(&mut self, value: u32) {
        let len = 32 - (value + 1).leading_zeros();
        self.put(len - 1, 0);
        self.put(len, value + 1);
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.chunks(8).map(|c| c.iter().enumerate().fold(0, |b, (i, bit)| b | u8::from(*bit) << (7 - i))).collect()
    }
}

struct Bench {
    ingest: Ingest,
    stream: Arc<Stream>,
    counters: Arc<Counters>,
}

impl Bench {
    fn new() -> Self {
        let publisher = Bus::new().publish("live/a".parse().unwrap()).unwrap();
        let (stream, counters) = (publisher.stream().clone(), Arc::new(Counters::default()));
        let publication = Publication::new(1, publisher, counters.clone(), CancellationToken::new(), Box::new(|_, _| {}));
        Self { ingest: Ingest::new(publication), stream, counters }
    }

    fn video(&mut self, ms: u32, keyframe: bool, packet: VideoPacket) {
        let mut body = BytesMut::new();
        VideoTag { codec: VideoCodec::Avc, keyframe, packet }.encode(&mut body);
        self.ingest.video(ms, body.freeze(), MediaTime::from_millis(1_000 + i64::from(ms)));
    }

    fn header(&mut self, ms: u32, record: Bytes) {
        self.video(ms, true, VideoPacket::SequenceStart(record));
    }

    fn picture(&mut self, ms: u32, composition_ms: i32, key: bool) {
        let data = Bytes::from_static(if key { &[0, 0, 0, 3, 0x65, 1, 2] } else { &[0, 0, 0, 3, 0x41, 1, 2] });
        self.video(ms, key, VideoPacket::Frame { composition_ms, data });
    }

    fn audio(&mut self, ms: u32, codec: AudioCodec, packet: AudioPacket) {
        let mut body = BytesMut::new();
        AudioTag { codec, sound: SoundFormat::AAC, packet }.encode(&mut body);
        self.ingest.audio(ms, body.freeze(), MediaTime::from_millis(1_000 + i64::from(ms)));
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

/// (pts, dts) in milliseconds, or the reorder depth and width of a description.
fn story(items: &[Item]) -> Vec<(i64, i64)> {
    let each = items.iter().map(|item| match item {
        Item::Frame(f) => (f.pts.as_millis(), f.dts.as_millis()),
        Item::Info(info) => info.video_shape().map_or((-1, -1), |s| (s.reorder_frames.into(), s.width.into())),
        other => panic!("{other:?}"),
    });
    each.collect()
}

#[test]
fn pictures_get_their_times_from_dts_and_composition_offset() {
    let mut bench = Bench::new();
    bench.header(0, avcc(66, 20));
    bench.picture(0, 0, true);
    bench.picture(40, 0, false);
    assert_eq!(story(&bench.items(Kind::Video)), [(0, 320), (1_000, 1_000), (1_040, 1_040)]);
}

#[test]
fn b_frames_that_the_sps_does_not_declare_are_declared_at_the_next_key_frame() {
    let mut bench = Bench::new();
    bench.header(0, avcc(77, 20));
    // I P B B P, shown as I B B P: one picture of look-ahead.
    for (i, (composition, key)) in [(80, true), (160, false), (40, false), (40, false), (160, false), (40, true)].into_iter().enumerate() {
        bench.picture(40 * i as u32, composition, key);
    }
    let story = story(&bench.items(Kind::Video));
    assert_eq!((story[0], story[6]), ((0, 320), (1, 320)));
    assert_eq!(story[1..3], [(1_080, 1_000), (1_200, 1_040)]);
    assert_eq!(bench.stream.track(Kind::Video).unwrap().info().unwrap().1, 1, "a new epoch is planned for");
}

#[test]
fn a_new_header_takes_effect_with_its_key_frame() {
    let mut bench = Bench::new();
    bench.header(0, avcc(66, 20));
    bench.picture(0, 0, true);
    bench.header(40, avcc(66, 40));
    bench.picture(40, 0, false);
    bench.picture(80, 0, true);
    let expected = [(0, 320), (1_000, 1_000), (1_040, 1_040), (0, 640), (1_080, 1_080)];
    assert_eq!(story(&bench.items(Kind::Video)), expected);
}

#[test]
fn other_parameter_sets_forget_the_b_frames_of_the_ones_before() {
    let mut bench = Bench::new();
    bench.header(0, avcc(77, 20));
    for (i, (composition, key)) in [(80, true), (160, false), (40, false), (160, true)].into_iter().enumerate() {
        bench.picture(40 * i as u32, composition, key);
    }
    bench.header(160, avcc(77, 20));
    bench.picture(160, 160, true);
    bench.header(200, avcc(88, 20));
    bench.picture(200, 160, true);
    let depths: Vec<_> = story(&bench.items(Kind::Video)).into_iter().filter(|(_, width)| *width == 320).map(|(depth, _)| depth).collect();
    assert_eq!(depths, [0, 1, 0], "the same sets again change nothing");
}

#[test]
fn pictures_of_parameter_sets_that_are_refused_are_left_out() {
    let mut bench = Bench::new();
    bench.header(0, avcc(66, 20));
    bench.picture(0, 0, true);
    bench.header(40, avcc(66, 1_024));
    bench.picture(40, 0, true);
    bench.picture(80, 0, false);
    bench.header(120, avcc(66, 40));
    bench.picture(120, 0, true);
    assert_eq!(story(&bench.items(Kind::Video)), [(0, 320), (1_000, 1_000), (0, 640), (1_120, 1_120)]);
    assert_eq!(bench.lost(), 3);
}

#[test]
fn the_codec_may_change_with_a_header() {
    let mut bench = Bench::new();
    bench.header(0, avcc(66, 20));
    bench.picture(0, 0, true);
    let mut hevc = |ms, packet| {
        let mut body = BytesMut::new();
        VideoTag { codec: VideoCodec::Hevc, keyframe: true, packet }.encode(&mut body);
        bench.ingest.video(ms, body.freeze(), MediaTime::from_millis(1_000 + i64::from(ms)));
    };
    hevc(40, VideoPacket::SequenceStart(hvcc(4)));
    hevc(40, VideoPacket::Frame { composition_ms: 0, data: Bytes::from_static(&[0, 0, 0, 3, 0x28, 1, 0xac]) });
    bench.audio(0, AudioCodec::Aac, AudioPacket::SequenceStart(Bytes::from_static(&[0x12, 0x10])));
    bench.audio(40, AudioCodec::Mp3, AudioPacket::Frame(Bytes::from_static(&[0xFF, 0xFB, 0x90, 0x64, 0])));
    for (kind, codec) in [(Kind::Video, Codec::H265), (Kind::Audio, Codec::Mp3)] {
        let (info, epoch) = bench.stream.track(kind).unwrap().info().unwrap();
        assert_eq!((info.codec, epoch), (codec, 1));
    }
    assert_eq!(bench.lost(), 0);
}

#[test]
fn hevc_is_read_in_both_forms_of_its_tags() {
    for legacy in [false, true] {
        let mut bench = Bench::new();
        let mut hevc = |ms: u32, first: u8, kind: u8, composition: u8, data: &[u8]| {
            let head = match (legacy, kind) {
                // Codec id 12, as CDNs sent it before there was a FourCC.
                (true, _) => vec![first << 4 | 12, kind, 0, 0, composition],
                (false, 1) => [&[0x80 | first << 4 | 1][..], b"hvc1", &[0, 0, composition]].concat(),
                (false, _) => [&[0x80 | first << 4][..], b"hvc1"].concat(),
            };
            bench.ingest.video(ms, [&head[..], data].concat().into(), MediaTime::from_millis(1_000 + i64::from(ms)));
        };
        hevc(0, 1, 0, 0, &hvcc(2));
        // The tag of the first calls it a key picture and it is none: it is CRA that counts.
        hevc(0, 1, 1, 80, &[0, 3, 0x2a, 1, 9]);
        hevc(40, 1, 1, 0, &[0, 3, 0x02, 1, 9]);
        let items = bench.items(Kind::Video);
        let (Item::Info(info), Item::Frame(key), Item::Frame(next)) = (&items[0], &items[1], &items[2]) else { panic!("{items:?}") };
        let shape = info.video_shape().unwrap();
        assert_eq!((info.codec, shape.width, shape.height, shape.reorder_frames), (Codec::H265, 640, 360, 2));
        assert_eq!((key.key, next.key, (key.pts - key.dts).as_millis()), (true, false, 80));
        assert_eq!((&key.payload[..], &next.payload[..]), (&[0, 0, 0, 3, 0x2a, 1, 9][..], &[0, 0, 0, 3, 0x02, 1, 9][..]));
        assert_eq!(info.config, hvcc(4), "the bus has lengths of four bytes");
        assert_eq!(bench.lost(), 0);
    }
}

#[test]
fn av1_is_described_by_the_sequence_headers_in_its_stream() {
    let mut bench = Bench::new();
    let header = [0x0a, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x12, 0xbe, 0x40, 0x10];
    let mut av1 = |ms: u32, kind: u8, parts: &[&[u8]]| {
        let body = [&[0x90 | kind][..], b"av01", &parts.concat()].concat();
        bench.ingest.video(ms, body.into(), MediaTime::from_millis(1_000 + i64::from(ms)));
    };
    // A record without a header is allowed; so is a delimiter before a picture.
    av1(0, 0, &[&[0x81, 1, 0x0c, 0]]);
    av1(0, 1, &[&[0x12, 0, 0x32, 2, 0x30, 6]]);
    av1(40, 1, &[&[0x12, 0], &header, &[0x32, 2, 0x10, 0]]);
    av1(80, 1, &[&[0x12, 0, 0x32, 2, 0x30, 6]]);
    let items = bench.items(Kind::Video);
    let (Item::Info(info), Item::Frame(key), Item::Frame(next)) = (&items[0], &items[1], &items[2]) else { panic!("{items:?}") };
    let shape = info.video_shape().unwrap();
    assert_eq!((info.codec, shape.width, shape.height), (Codec::Av1, 640, 360));
    assert_eq!(&info.config[..], [&[0x81, 1, 0x0c, 0], &header[..]].concat());
    assert_eq!((key.key, next.key, &next.payload[..]), (true, false, &[0x32, 2, 0x30, 6][..]));
    assert_eq!(bench.lost(), 1, "the picture before any header");
}

#[test]
fn tracks_beside_the_default_one_are_left_out_and_nothing_is_missing() {
    let mut bench = Bench::new();
    bench.header(0, avcc(66, 20));
    bench.picture(0, 0, true);
    let other = Bytes::from_static(b"\xa6\x03avc1\x01\0\0\0\x02\x41\x09");
    bench.ingest.video(0, other, MediaTime::from_millis(1_000));
    bench.picture(40, 0, false);
    let items = bench.items(Kind::Video);
    let Some(Item::Frame(last)) = items.last() else { panic!("{items:?}") };
    assert_eq!((items.len(), last.loss, bench.lost()), (3, 0, 0));
}

#[test]
fn vp9_needs_no_header_and_is_described_by_its_key_frames() {
    let mut bench = Bench::new();
    let key = [0b1000_0010, 0x49, 0x83, 0x42, 0b0100_0000, 0b0010_0111, 0b1111_0000, 0b0001_0110, 0b0111_0000];
    let mut vp9 = |ms, data: &[u8]| {
        let body = [b"\x91vp09", data].concat();
        bench.ingest.video(ms, body.into(), MediaTime::from_millis(1_000 + i64::from(ms)));
    };
    vp9(0, &[0b1000_0110]);
    vp9(40, &key);
    vp9(80, &[0b1000_0110]);
    vp9(120, b"no picture");
    assert_eq!(story(&bench.items(Kind::Video)), [(0, 640), (1_040, 1_040), (1_080, 1_080)]);
    assert_eq!(bench.lost(), 2);
}

#[test]
fn frames_before_their_header_are_left_out_and_counted() {
    let mut bench = Bench::new();
    bench.picture(0, 0, true);
    bench.audio(0, AudioCodec::Aac, AudioPacket::Frame(Bytes::from_static(b"x")));
    assert!(bench.stream.tracks().is_empty());
    assert_eq!(bench.lost(), 2);
    bench.header(40, avcc(66, 20));
    bench.picture(40, 0, true);
    let Some(Item::Frame(first)) = bench.items(Kind::Video).into_iter().nth(1) else { panic!("no frame") };
    assert_eq!(first.loss, 1);
}

#[test]
fn damaged_tags_do_not_end_the_track() {
    let mut bench = Bench::new();
    bench.header(0, avcc(66, 20));
    bench.video(0, true, VideoPacket::Frame { composition_ms: 0, data: Bytes::from_static(&[0, 0, 9, 9, 0x65]) });
    bench.ingest.video(0, Bytes::from_static(&[0x1F, 0]), MediaTime::from_millis(1_000));
    bench.header(0, Bytes::from_static(&[1, 2, 3]));
    assert_eq!(bench.lost(), 3);
    bench.picture(40, 0, true);
    assert_eq!(story(&bench.items(Kind::Video)).last(), Some(&(1_040, 1_040)));
}

#[test]
fn the_metadatas_frame_rate_is_used_where_the_sps_has_none() {
    let mut bench = Bench::new();
    let values = vec![Value::object([("framerate", Value::Number(25.0))])];
    bench.ingest.data(&Data { name: "onMetaData".into(), values });
    bench.header(0, avcc(66, 20));
    let info = bench.stream.track(Kind::Video).unwrap().info().unwrap().0;
    assert_eq!(info.video_shape().unwrap().frame_rate, Some(25.0));
}

#[test]
fn every_sound_of_legacy_flv_becomes_a_track() {
    let mp3 = Bytes::from_static(&[0xFF, 0xFB, 0x90, 0x64, 0]);
    for (codec, data, bus, rate) in [
        (AudioCodec::Mp3, mp3, Codec::Mp3, 44_100),
        (AudioCodec::G711A, Bytes::from_static(&[1; 160]), Codec::Pcma, 8_000),
        (AudioCodec::G711U, Bytes::from_static(&[1; 160]), Codec::Pcmu, 8_000),
    ] {
        let mut bench = Bench::new();
        bench.audio(0, codec, AudioPacket::Frame(data));
        let info = bench.stream.track(Kind::Audio).unwrap().info().unwrap().0;
        assert_eq!((info.codec, info.audio_shape().unwrap().sample_rate), (bus, rate));
        assert_eq!(bench.items(Kind::Audio).len(), 2);
    }
}

#[test]
fn aac_is_described_by_its_configuration() {
    let mut bench = Bench::new();
    bench.audio(0, AudioCodec::Aac, AudioPacket::SequenceStart(Bytes::from_static(&[0x12, 0x10])));
    bench.audio(0, AudioCodec::Aac, AudioPacket::Frame(Bytes::from_static(b"frame")));
    let items = bench.items(Kind::Audio);
    let (Item::Info(info), Item::Frame(frame)) = (&items[0], &items[1]) else { panic!("{items:?}") };
    assert_eq!((info.codec, &info.config[..]), (Codec::Aac, &[0x12, 0x10][..]));
    assert_eq!((frame.duration.to_ticks(44_100), &frame.payload[..]), (1_024, &b"frame"[..]));
}

#[test]
fn flac_is_described_by_its_streaminfo() {
    let info = [&[0x12, 0, 0x12, 0, 0, 0, 0, 0, 0x4a, 0x58, 0x0a, 0xc4, 0x42, 0xf0][..], &[0; 20]].concat();
    let mut bench = Bench::new();
    bench.audio(0, AudioCodec::Flac, AudioPacket::Frame(Bytes::from_static(b"frame")));
    bench.audio(0, AudioCodec::Flac, AudioPacket::SequenceStart(Bytes::from_static(&[0; 34])));
    assert_eq!(bench.lost(), 2, "no header yet, and one that says nothing");
    bench.audio(0, AudioCodec::Flac, AudioPacket::SequenceStart(Bytes::copy_from_slice(&info)));
    bench.audio(104, AudioCodec::Flac, AudioPacket::Frame(Bytes::from_static(b"frame")));
    let items = bench.items(Kind::Audio);
    let (Item::Info(described), Item::Frame(frame)) = (&items[0], &items[1]) else { panic!("{items:?}") };
    assert_eq!((described.codec, described.audio_shape().map(|s| s.sample_rate)), (Codec::Flac, Some(44_100)));
    assert_eq!((&described.config[8..], &frame.payload[..]), (&info[..], &b"frame"[..]));
}

#[test]
fn hostile_composition_offsets_are_bounded() {
    let mut bench = Bench::new();
    bench.header(0, avcc(77, 20));
    bench.picture(0, 8_000_000, true);
    bench.picture(40, -8_000_000, false);
    assert_eq!(story(&bench.items(Kind::Video))[1..], [(6_000, 1_000), (-3_960, 1_040)]);
}

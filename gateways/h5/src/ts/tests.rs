//! What the muxer writes the demuxer reads; and what strangers write does no harm.

use bytes::{Bytes, BytesMut};
use patchbay_media::Kind;
use proptest::prelude::*;

use super::psi;
use super::*;

const VIDEO: Option<StreamType> = Some(StreamType::Mpeg1Video);
const AUDIO: Option<StreamType> = Some(StreamType::Mpeg1Audio);

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    kind: Kind,
    pts: u64,
    dts: u64,
    payload: Vec<u8>,
}

fn mux(units: &[Sent]) -> Vec<u8> {
    let (mut muxer, mut out) = (Muxer::new(VIDEO, AUDIO), BytesMut::new());
    for (i, sent) in units.iter().enumerate() {
        if i % 5 == 0 {
            muxer.write_tables(&mut out);
        }
        muxer.write(&Unit { kind: sent.kind, pts: sent.pts, dts: sent.dts, key: i % 5 == 0, payload: &sent.payload }, &mut out);
    }
    out.to_vec()
}

fn demux(pieces: &[&[u8]]) -> (Vec<Pes>, u64) {
    let (mut demuxer, mut out) = (Demuxer::new(), Vec::new());
    pieces.iter().for_each(|piece| demuxer.push(piece, &mut out));
    demuxer.finish(&mut out);
    (out, demuxer.damage())
}

fn received(pes: &[Pes]) -> Vec<Sent> {
    let one = |p: &Pes| {
        let pts = p.pts.unwrap();
        Sent { kind: p.stream_type.kind(), pts, dts: p.dts.unwrap_or(pts), payload: p.data.to_vec() }
    };
    let mut all: Vec<_> = pes.iter().map(one).collect();
    all.sort_by_key(|s| s.kind);
    all
}

fn unit() -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![Just(Kind::Video), Just(Kind::Audio)];
    // Sizes around packet ends and around the longest length a PES packet can say.
    let size = prop_oneof![1usize..1_000, 65_500usize..66_200];
    (kind, 0..=STAMP_MASK, 0..=STAMP_MASK, any::<bool>(), size, any::<u8>()).prop_map(|(kind, pts, dts, same, size, fill)| Sent {
        kind,
        pts,
        dts: if same { pts } else { dts },
        payload: (0..size).map(|i| (i as u8).wrapping_mul(fill)).collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_muxed_is_demuxed_however_it_is_cut(units in prop::collection::vec(unit(), 1..12), cut in 1usize..2_000) {
        let bytes = mux(&units);
        let mut sent = units;
        sent.sort_by_key(|s| s.kind);
        let (pes, damage) = demux(&bytes.chunks(cut).collect::<Vec<_>>());
        prop_assert_eq!(received(&pes), sent);
        prop_assert_eq!(damage, 0);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4_000), every in 1usize..400) {
        let bytes: Vec<u8> = bytes.iter().enumerate().map(|(i, b)| if i % 188 == 0 || i % every == 0 { SYNC } else { *b }).collect();
        demux(&[&bytes]);
    }
}

fn picture(pts: u64, size: usize) -> Sent {
    Sent { kind: Kind::Video, pts, dts: pts, payload: (0..size).map(|i| i as u8 | 1).collect() }
}

/// Twelve pictures of ten packets or so, tables before the first.
fn stream() -> Vec<u8> {
    let (mut muxer, mut out) = (Muxer::new(VIDEO, None), BytesMut::new());
    muxer.write_tables(&mut out);
    for i in 0..12 {
        let Sent { kind, pts, dts, payload } = picture(i * 3_600, 1_800);
        muxer.write(&Unit { kind, pts, dts, key: i == 0, payload: &payload }, &mut out);
    }
    out.to_vec()
}

fn stamps(pes: &[Pes]) -> Vec<u64> {
    pes.iter().map(|p| p.pts.unwrap() / 3_600).collect()
}

#[test]
fn jsmpeg_sees_the_end_of_every_picture_at_once() {
    // As jsmpeg decides it: the length, or an adaptation field in a packet that begins nothing.
    for size in (65_400..66_000).chain([100, 184 * 400, 184 * 400 - 14, 184 * 400 - 22]) {
        let bytes = mux(&[picture(90_000, size)]);
        let packets: Vec<_> = bytes.chunks(PACKET).skip(2).collect();
        let first_payload = packets[0][3] >> 4 & 3;
        assert_eq!(first_payload, 3, "the clock reference is in the first packet");
        let pes = 5 + usize::from(packets[0][4]);
        let says_length = packets[0][pes + 4..pes + 6] != [0, 0];
        let fields: Vec<_> = packets.iter().skip(1).map(|p| p[3] & 0x20 != 0).collect();
        if !says_length {
            assert_eq!(fields.iter().position(|f| *f), Some(fields.len() - 1), "{size} bytes");
        }
    }
}

#[test]
fn a_picture_without_length_does_not_wait_for_the_next() {
    let bytes = mux(&[picture(90_000, 70_000)]);
    let (mut demuxer, mut out) = (Demuxer::new(), Vec::new());
    demuxer.push(&bytes, &mut out);
    assert_eq!(out.iter().map(|pes| pes.data.len()).collect::<Vec<_>>(), [70_000]);
}

#[test]
fn synchronisation_is_found_again_within_five_packets() {
    for garbage in [&[0u8; 1][..], &[SYNC; 3], &[0x55; 187], &[SYNC; 500], &[0xff; 1_000]] {
        let clean = stream();
        let at = 188 * 40 + 100;
        let bytes = [&clean[..at], garbage, &clean[at..]].concat();
        let (pes, damage) = demux(&[&bytes]);
        // Pictures are ten packets long: two may be hit.
        assert!(pes.len() >= 10, "{} pictures after {} bytes of garbage", pes.len(), garbage.len());
        assert!(damage > 0 && pes.iter().any(|p| p.lost > 0));
        assert!(pes.iter().all(|p| p.data.len() == 1_800), "nothing damaged is given out");
    }
}

#[test]
fn a_byte_that_is_missing_costs_a_picture_not_the_stream() {
    let mut bytes = stream();
    bytes.remove(188 * 40 + 100);
    let (pes, _) = demux(&[&bytes]);
    assert_eq!(stamps(&pes).len(), 11);
    assert_eq!(pes.iter().map(|p| p.lost).sum::<u32>(), 1);
}

#[test]
fn lost_packets_are_noticed_by_their_counters() {
    let mut bytes = stream();
    bytes.drain(188 * 40..188 * 41);
    let (pes, damage) = demux(&[&bytes]);
    assert_eq!((pes.len(), damage), (11, 1));
    let after = pes.iter().position(|p| p.lost == 1).expect("told with the next");
    assert_eq!(stamps(&pes)[after] - stamps(&pes)[after - 1], 2);
}

#[test]
fn a_packet_sent_twice_counts_once() {
    let mut bytes = stream();
    let copy = bytes[188 * 40..188 * 41].to_vec();
    bytes.splice(188 * 41..188 * 41, copy);
    let (pes, damage) = demux(&[&bytes]);
    assert_eq!((pes.len(), damage), (12, 0));
}

#[test]
fn stamps_wrap_at_33_bits_and_come_out_raw() {
    let units = [picture(STAMP_MASK - 1, 50), picture((STAMP_MASK + 3_600) & STAMP_MASK, 50)];
    let (pes, _) = demux(&[&mux(&units)]);
    assert_eq!(pes.iter().map(|p| p.pts).collect::<Vec<_>>(), [Some(STAMP_MASK - 1), Some(3_599)]);
}

fn table_packet(pid: u16, section: &[u8], counter: u8) -> Vec<u8> {
    let mut packet = vec![SYNC, 0x40 | (pid >> 8) as u8, pid as u8, 0x10 | counter & 15, 0];
    packet.extend(section);
    packet.resize(PACKET, 0xff);
    packet
}

#[test]
fn a_map_that_changes_in_every_packet_is_followed_and_costs_no_memory() {
    let mut bytes = table_packet(0, &psi::pat(0x1000), 0);
    for i in 0..5_000u16 {
        let section = psi::pmt(i as u8, 0x100, &[(StreamType::H264, 0x20 + i % 4_000), (StreamType::Adts, 0x1fff - i % 4_000)]);
        bytes.extend(table_packet(0x1000, &section, i as u8));
        bytes.extend(table_packet(0, &psi::pat(0x1000 + i % 2), i as u8));
        bytes.extend(table_packet(0x1001, &section, i as u8));
    }
    let mut demuxer = Demuxer::new();
    let mut out = Vec::new();
    demuxer.push(&bytes, &mut out);
    assert!(out.is_empty() && demuxer.has_streams());
    assert!(demuxer.input.len() < PACKET);
}

#[test]
fn a_new_map_takes_over_in_mid_stream() {
    let mut bytes = stream();
    let mut muxer = Muxer::new(VIDEO, AUDIO);
    let mut out = BytesMut::new();
    muxer.write_tables(&mut out);
    muxer.write(&Unit { kind: Kind::Audio, pts: 7, dts: 7, key: true, payload: b"sound" }, &mut out);
    bytes.extend(&out);
    let (pes, _) = demux(&[&bytes]);
    assert_eq!(pes.len(), 13);
    assert!(pes.iter().any(|p| p.data[..] == b"sound"[..] && p.stream_type == StreamType::Mpeg1Audio));
}

#[test]
fn lengths_that_lie_are_survived_and_what_they_cut_off_is_counted() {
    for (claim, expected, lost) in [(20u16, 12, 1), (60_000, 1_800, 0)] {
        let mut bytes = stream();
        // The length of the fourth picture, behind its clock reference.
        let starts: Vec<_> = (0..bytes.len() / PACKET).filter(|i| bytes[i * PACKET + 1] & 0x40 != 0).collect();
        let at = starts[2 + 3] * PACKET;
        let pes = at + 5 + usize::from(bytes[at + 4]);
        bytes[pes + 4..pes + 6].copy_from_slice(&claim.to_be_bytes());
        let (pes, damage) = demux(&[&bytes]);
        assert_eq!((damage, pes[4].lost), (lost, lost as u32));
        let sizes: Vec<_> = pes.iter().map(|p| p.data.len()).collect();
        assert_eq!((sizes.len(), sizes[3], sizes[4]), (12, expected, 1_800));
    }
}

#[test]
fn adaptation_fields_that_do_not_fit_are_left_out() {
    let mut bytes = stream();
    bytes[188 * 40 + 3] |= 0x20;
    bytes[188 * 40 + 4] = 255;
    let (pes, damage) = demux(&[&bytes]);
    assert_eq!(pes.len(), 11);
    assert!(damage >= 1);
}

#[test]
fn pictures_without_end_are_given_up_at_the_cap() {
    let (mut muxer, mut out) = (Muxer::new(VIDEO, None), BytesMut::new());
    muxer.write_tables(&mut out);
    let payload = vec![1; 5 << 20];
    muxer.write(&Unit { kind: Kind::Video, pts: 1, dts: 1, key: true, payload: &payload }, &mut out);
    muxer.write(&Unit { kind: Kind::Video, pts: 2, dts: 2, key: false, payload: b"small" }, &mut out);
    let (pes, _) = demux(&out.chunks(10_000).collect::<Vec<_>>());
    assert_eq!(pes, [Pes { stream_type: StreamType::Mpeg1Video, pts: Some(2), dts: None, lost: 1, data: Bytes::from_static(b"small") }]);
}

#[test]
fn every_stream_type_has_its_number() {
    for (byte, kind) in StreamType::ALL {
        assert_eq!((StreamType::from_byte(byte), kind.byte()), (Some(kind), byte));
    }
}

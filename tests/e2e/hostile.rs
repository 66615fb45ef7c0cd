//! Damaged and hostile media on one stream: another stream loses nothing, the reason is given, and what becomes good again is
//! shown again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use patchbay_h5::ts::{Demuxer, Muxer, PACKET, StreamType, Unit};
use patchbay_media::Kind;

use crate::changing::{Changing, Tag, tags};
use crate::support::{Client, Patchbay, Watching, fixture, play, publish, turn, wait_for};

/// Every player gets pictures that were decoded and encoded again: damage reaches the decoder.
const RULES: &str = "[[rules]]\nto = [\"rtmp\"]\nvideo = { codec = \"h264\", size = \"320x180\" }\n";
/// What all attacks together may cost, KiB.
const MEMORY_MAX: u64 = 48 << 10;

/// xorshift64: the same damage on every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % limit.max(1)
    }
}

/// A stream with a viewer that must notice nothing.
struct Bystander {
    viewer: Watching,
    _source: crate::support::Proc,
    memory: u64,
}

impl Bystander {
    fn start(hub: &Patchbay) -> Self {
        let source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/good"));
        hub.wait_live("live/good");
        let viewer = Watching::start(Client::Stamps, &["read", &hub.rtmp_url("live/good")]);
        wait_for("the bystander", Duration::from_secs(15), || (frames(hub, "live/good") > 60).then_some(()));
        Self { viewer, _source: source, memory: hub.memory_kib() }
    }

    #[track_caller]
    fn assert_undisturbed(self, hub: &Patchbay) {
        let streams = hub.get("/v1/streams");
        let good = streams["streams"].as_array().expect("streams").iter().find(|s| s["name"] == "live/good").expect("it lives").clone();
        assert_eq!(good["renditions"][0]["restarts"], 0, "{good}");
        let pair = pair(hub, "live/good");
        assert_eq!((&pair["skipped"], &pair["lost"]), (&0.into(), &0.into()), "{pair}");
        let seen = self.viewer.report();
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(99.0), "{seen}");
        let (before, now) = (self.memory, hub.memory_kib());
        assert!(now < before + MEMORY_MAX, "{before} KiB have become {now} KiB");
    }
}

fn pair(hub: &Patchbay, stream: &str) -> serde_json::Value {
    hub.pairs("rtmp").into_iter().find(|pair| pair["stream"] == stream).unwrap_or_default()
}

/// Frames that the stream's player was sent.
fn frames(hub: &Patchbay, stream: &str) -> u64 {
    pair(hub, stream)["frames"].as_u64().unwrap_or(0)
}

#[track_caller]
fn wait_logged(hub: &Patchbay, what: &str) {
    wait_for(&format!("{what:?} in the log"), Duration::from_secs(10), || hub.log().contains(what).then_some(()));
}

/// Waits until the player of `stream` is sent pictures that were encoded after now.
#[track_caller]
fn wait_pictures(hub: &Patchbay, stream: &str) {
    let encoded = || {
        let all = hub.get("/v1/streams");
        let found = all["streams"].as_array()?.iter().find(|s| s["name"] == stream)?.clone();
        let video = found["renditions"].as_array()?.iter().find(|r| r["target"].as_str().is_some_and(|t| t.starts_with("h264")))?.clone();
        video["frames_out"].as_u64()
    };
    let before = encoded().unwrap_or(0);
    wait_for(&format!("pictures of {stream}"), Duration::from_secs(10), || encoded().filter(|now| *now > before + 30 || *now < before));
}

/// A part whose pictures are damaged by `damage`; the first stays whole, or nobody could join.
fn damaged(mut part: Vec<Tag>, mut damage: impl FnMut(&mut Vec<u8>)) -> Vec<Tag> {
    part.iter_mut().filter(|tag| tag.is_picture()).skip(1).for_each(|tag| damage(&mut tag.body));
    part
}

/// Exp-Golomb and plain bits.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn plain(mut self, value: u32, count: u32) -> Self {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn golomb(self, value: u32) -> Self {
        let length = 32 - (value + 1).leading_zeros();
        self.plain(0, length - 1).plain(value + 1, length)
    }

    fn bytes(self) -> Vec<u8> {
        let mut bits = self.plain(1, 1).0;
        bits.resize(bits.len().next_multiple_of(8), false);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |n, bit| n << 1 | u8::from(*bit))).collect()
    }
}

/// A Baseline sequence parameter set of 16384x16384 (H.264 7.3.2.1.1).
fn huge_sps() -> Vec<u8> {
    let bits = Bits::default().plain(0x67, 8).plain(66, 8).plain(0xc0, 8).plain(51, 8);
    // Identifier, frame numbers of four bits, no picture order count, one reference, no gaps.
    let bits = bits.golomb(0).golomb(0).golomb(2).golomb(1).plain(0, 1);
    // 1024 macroblocks either way, frames only, direct 8x8, neither cropping nor usability information.
    bits.golomb(1_023).golomb(1_023).plain(0b1100, 4).bytes()
}

/// The part with another picture size in its header.
fn with_huge_header(mut part: Vec<Tag>) -> Vec<Tag> {
    let sps = huge_sps();
    for tag in part.iter_mut().filter(|tag| tag.is_video_header()) {
        let mut body = vec![0x17, 0, 0, 0, 0, 1, sps[1], sps[2], sps[3], 0xff, 0xe1, 0, sps.len() as u8];
        body.extend(&sps);
        body.extend([1, 0, 4, 0x68, 0xce, 0x3c, 0x80]);
        tag.body = body;
    }
    part
}

#[test]
fn damaged_h264_over_rtmp_costs_no_other_stream_anything() {
    let _turn = turn();
    let hub = Patchbay::start(RULES);
    let bystander = Bystander::start(&hub);
    let good: Vec<_> =
        tags(&std::fs::read(fixture("baseline-360p.flv")).expect("the fixture")).into_iter().filter(|t| t.before(4_000)).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let flipped = damaged(good.clone(), |body| {
        // Behind the NAL unit's length and type.
        (0..8).for_each(|_| {
            let at = 12 + dice.below(body.len() - 12);
            body[at] ^= 1 << dice.below(8);
        });
    });
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let truncated = damaged(good.clone(), |body| body.truncate(10 + dice.below(body.len() - 10)));
    let huge = with_huge_header(good.clone());
    let parts = vec![good.clone(), flipped, good.clone(), truncated, good.clone(), huge, good];
    let source = Changing::publish_tags(parts, &hub.rtmp_url("live/bad"));
    hub.wait_live("live/bad");
    let mut player = play(&hub.rtmp_url("live/bad"));
    wait_pictures(&hub, "live/bad");
    for reason in ["", "are truncated at byte", "pic_size_in_map_units"] {
        source.go_on();
        wait_logged(&hub, reason);
        // Damage inside of slices is nobody's to tell: so long as a part is, and what was on its way.
        std::thread::sleep(Duration::from_secs(if reason.is_empty() { 5 } else { 1 }));
        source.go_on();
        wait_pictures(&hub, "live/bad");
    }
    assert!(player.is_running(), "its own player was not cut");
    bystander.assert_undisturbed(&hub);
}

/// Eight seconds of H.264 and AAC as FFmpeg puts them into a transport stream.
fn transport_stream() -> Vec<u8> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{}.ts", std::process::id()));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-t", "8", "-i", &fixture("baseline-360p.flv"), "-c", "copy", "-f", "mpegts"]);
    assert!(command.arg(&file).status().expect("ffmpeg runs").success());
    let bytes = std::fs::read(&file).expect("ffmpeg wrote it");
    std::fs::remove_file(&file).expect("it was there");
    bytes
}

/// Publishes `stream` in `seconds`; what the server said, if anything.
fn post(hub: &Patchbay, path: &str, stream: &[u8], seconds: u32) -> String {
    let mut socket = TcpStream::connect(("127.0.0.1", hub.http)).expect("connected");
    let head = format!("POST /h5/{path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).expect("sent");
    let (slices, begin) = (seconds * 50, Instant::now());
    for (i, slice) in stream.chunks(stream.len() / slices as usize + 1).enumerate() {
        let mut chunk = format!("{:x}\r\n", slice.len()).into_bytes();
        chunk.extend(slice);
        chunk.extend(b"\r\n");
        // A refusal comes while there is more to send.
        if socket.write_all(&chunk).is_err() {
            break;
        }
        std::thread::sleep((Duration::from_millis(20) * i as u32).saturating_sub(begin.elapsed()));
    }
    _ = socket.write_all(b"0\r\n\r\n");
    let mut said = String::new();
    _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
    _ = socket.read_to_string(&mut said);
    said
}

/// Bytes gone or bytes too many at every two hundredth packet or so.
fn without_sync(stream: &[u8]) -> Vec<u8> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::new();
    for packet in stream.chunks(PACKET) {
        match dice.below(400) {
            0 => out.extend(&packet[..dice.below(PACKET)]),
            1 => {
                out.extend(packet);
                out.extend((0..dice.below(300)).map(|i| (i * 71) as u8));
            }
            _ => out.extend(packet),
        }
    }
    out
}

/// Says of every second PES packet that it has another length.
fn with_lying_lengths(stream: &[u8]) -> Vec<u8> {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut out = stream.to_vec();
    for packet in out.chunks_mut(PACKET) {
        let start = if packet[3] & 0x20 == 0 { 4 } else { 5 + usize::from(packet[4]) };
        if packet[1] & 0x40 != 0 && packet.get(start..start + 3) == Some(&[0, 0, 1]) && dice.below(2) == 0 {
            let lie = dice.below(1 << 16) as u16;
            packet[start + 4..start + 6].copy_from_slice(&lie.to_be_bytes());
        }
    }
    out
}

/// Another program map before every packet.
fn with_changing_maps(stream: &[u8]) -> Vec<u8> {
    let (mut demuxer, mut units) = (Demuxer::new(), Vec::new());
    demuxer.push(stream, &mut units);
    let kinds = [
        (StreamType::H264, StreamType::Adts),
        (StreamType::Mpeg1Video, StreamType::Mpeg1Audio),
        (StreamType::Mpeg2Video, StreamType::Mpeg2Audio),
    ];
    let mut tables = kinds.map(|(video, audio)| Muxer::new(Some(video), Some(audio)));
    let mut muxer = Muxer::new(Some(StreamType::H264), Some(StreamType::Adts));
    let mut packets = BytesMut::new();
    for pes in &units {
        let pts = pes.pts.unwrap_or(0);
        let kind = pes.stream_type.kind();
        muxer.write(&Unit { kind, pts, dts: pes.dts.unwrap_or(pts), key: kind == Kind::Video, payload: &pes.data }, &mut packets);
    }
    let mut out = BytesMut::new();
    for (i, packet) in packets.chunks(PACKET).enumerate() {
        tables[i % 3].write_tables(&mut out);
        out.extend_from_slice(packet);
    }
    out.to_vec()
}

/// Every sequence parameter set says 16384x16384. What is left of the old one is zeros, which no NAL unit ends with.
fn with_huge_pictures(stream: &[u8]) -> Vec<u8> {
    let mut out = stream.to_vec();
    let sps = huge_sps();
    let mut found = 0;
    for at in 0..out.len() - 64 {
        if out[at..].starts_with(&[0, 0, 1, 0x67]) {
            let end = out[at + 4..at + 64].windows(3).position(|w| w == [0, 0, 1] || w == [0, 0, 0]).expect("the next NAL unit") + at + 4;
            out[at + 3..end].fill(0);
            out[at + 3..at + 3 + sps.len()].copy_from_slice(&sps);
            found += 1;
        }
    }
    assert!(found >= 8, "{found} parameter sets");
    out
}

#[test]
fn a_broken_transport_stream_costs_no_other_stream_anything() {
    let _turn = turn();
    let hub = Patchbay::start(RULES);
    let bystander = Bystander::start(&hub);
    let whole = transport_stream();
    let noise: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // What is published, whether there is something to see of it, and what is said of it.
    let attacks: [(&str, Vec<u8>, bool, &str); 5] = [
        ("sync", without_sync(&whole), true, ""),
        ("lengths", with_lying_lengths(&whole), true, ""),
        ("maps", with_changing_maps(&whole), false, ""),
        ("huge", with_huge_pictures(&whole), false, "pic_size_in_map_units"),
        ("noise", noise, false, "no transport stream"),
    ];
    for (name, stream, visible, reason) in attacks {
        let path = format!("live/{name}");
        let said = std::thread::scope(|scope| {
            let posting = scope.spawn(|| post(&hub, &path, &stream, if visible { 8 } else { 2 }));
            if visible {
                hub.wait_live(&path);
                let _player = play(&hub.rtmp_url(&path));
                wait_pictures(&hub, &path);
            }
            posting.join().expect("posted")
        });
        let log = hub.log();
        let end = log
            .lines()
            .find(|line| line.contains("session ends") && line.contains("\"role\":\"publish\"") && line.contains(&path))
            .unwrap_or_else(|| panic!("{name} ended"));
        assert!(said.contains(reason) || log.contains(reason), "{name}: {said}");
        assert!(reason == "no transport stream" || !end.contains("\"lost\":0,"), "losses are counted: {end}");
    }
    bystander.assert_undisturbed(&hub);
}

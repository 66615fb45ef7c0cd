//! Damaged input: the same seeded mutations on every run. Nothing may panic, and what is healthy comes through.

mod common;

use std::time::{Duration, Instant};

use common::*;
use patchbay_bus::EndReason;
use patchbay_media::{Codec, Frame, MediaTime, Target, TrackInfo, VideoTarget};

const H264: Target =
    Target::Video(VideoTarget { codec: Codec::H264, size: None, frame_rate_max: None, bitrate_bps: 800_000, gop_ms: 2_000 });

const MPEG1: Target =
    Target::Video(VideoTarget { codec: Codec::Mpeg1, size: None, frame_rate_max: None, bitrate_bps: 800_000, gop_ms: 2_000 });

/// xorshift64: the same damage on every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn damaged_video_never_panics_and_recovers() {
    let h264 = h264("damaged.mp4", "320x180", 6, &["-bf", "2", "-g", "15"]);
    let mpeg1 = mpeg1("damaged.ts", "320x180", 6, &["-bf", "0", "-g", "15"]);
    for ((info, frames), target) in [(&h264, H264), (&h264, MPEG1), (&mpeg1, H264), (&mpeg1, MPEG1)] {
        let first = frames[0].pts;
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let damaged: Vec<_> = frames
            .iter()
            .map(|frame| {
                let mut bytes = frame.payload.to_vec();
                if frame.dts - frames[0].dts < MediaTime::from_secs(4) {
                    for _ in 0..1 + dice.next() % 8 {
                        let at = dice.next() as usize % bytes.len();
                        bytes[at] ^= 1 << (dice.next() % 8);
                    }
                }
                Frame { payload: bytes.into(), ..frame.clone() }
            })
            .collect();
        let out = transcode(info.clone(), &damaged, &target);
        assert_eq!(out.ended, EndReason::Finished, "{info} -> {target}: {:?}", out.stats);
        let healthy = out.frames.iter().filter(|f| f.pts - first >= MediaTime::from_millis(5_000)).count();
        assert_eq!(healthy, 30, "{info} -> {target}: {:?}", out.stats);
    }
}

/// Nothing but noise for so long that the decoder is given up more than once, in real time.
#[test]
fn pictures_come_back_within_a_second_of_the_first_good_key_frame() {
    const GARBAGE: std::ops::Range<usize> = 15..120;
    let h264 = h264("garbage.mp4", "320x180", 8, &["-bf", "0", "-g", "60", "-keyint_min", "60", "-sc_threshold", "0"]);
    let mpeg1 = mpeg1("garbage.ts", "320x180", 8, &["-bf", "0", "-g", "60"]);
    let play = |(info, frames): &(TrackInfo, Vec<Frame>), target: &Target| {
        assert!(frames[GARBAGE.end].key, "good again with a key frame");
        let mut rig = rig(info.clone(), target);
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let begin = Instant::now();
        for (i, frame) in frames.iter().enumerate() {
            let due = Duration::from_nanos((frame.dts - frames[0].dts).as_nanos() as u64);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let mut frame = frame.clone();
            if GARBAGE.contains(&i) {
                frame.payload = (0..frame.payload.len()).map(|_| dice.next() as u8).collect::<Vec<_>>().into();
            }
            rig.push(&frame);
        }
        let out = rig.finish();
        let good = frames[GARBAGE.end].pts;
        let back = out.frames.iter().find(|frame| frame.pts >= good).unwrap_or_else(|| panic!("{info} -> {target}: {:?}", out.stats));
        let after = back.pts - good;
        assert!(after < MediaTime::from_secs(1), "{info} -> {target}: {after:?} after the first good key frame; {:?}", out.stats);
    };
    std::thread::scope(|scope| {
        for (source, target) in [(&h264, H264), (&h264, MPEG1), (&mpeg1, H264)] {
            scope.spawn(move || play(source, &target));
        }
    });
}

#[test]
fn damaged_audio_never_panics_and_recovers() {
    let data = ffmpeg_file("damaged.aac", &["-f", "lavfi", "-i", "sine=1000:r=48000:d=6", "-ac", "2", "-c:a", "aac", "-f", "adts"]);
    let (aac, aac_frames) = adts(&data);
    let (opus, opus_frames) = opus_packets(&tone(6.0, 1_000.0));
    let (flac, flac_frames) = flac("damaged.flac.mp4", "sine=1000:r=48000:d=6", &["-sample_fmt", "s16"]);
    for (info, frames, target) in [(aac, aac_frames, OPUS), (opus, opus_frames, AAC), (flac, flac_frames, AAC)] {
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        let damaged: Vec<_> = frames
            .iter()
            .map(|frame| {
                let mut bytes = frame.payload.to_vec();
                if frame.pts < MediaTime::from_secs(4) && !bytes.is_empty() {
                    for _ in 0..1 + dice.next() % 8 {
                        let at = dice.next() as usize % bytes.len();
                        bytes[at] ^= 1 << (dice.next() % 8);
                    }
                    bytes.truncate(1 + dice.next() as usize % (bytes.len() * 2));
                }
                Frame { payload: bytes.into(), ..frame.clone() }
            })
            .collect();
        let out = transcode(info.clone(), &damaged, &target);
        assert_eq!(out.ended, EndReason::Finished, "{info}: {:?}", out.stats);
        assert_continuous(&out.frames);
        let sound = listen(&out.info, &out.frames);
        // Short enough that a clock still being stretched into place (0.2 %) does not count as another pitch.
        assert!(sound.purity(5_000, 5_050, 1_000.0) > 0.9, "{info}: {}", sound.purity(5_000, 5_050, 1_000.0));
    }
}

//! CPU of one rendition per second of media, beside the floor (decoder and encoder libraries alone) measured for
//! the project: AAC to Opus 7.6 ms, Opus to AAC 9.8 ms, H.264 720p to H.264 superfast 72 + 344 ms. The floors were
//! taken on an idle machine of the same class; only ratios of one run are worth comparing.
//!
//! The figure is the pipeline's own count: thread CPU time of its turns (CLOCK_THREAD_CPUTIME_ID), so decoding,
//! clock, resampling, encoding and the bus are in it, the source and the reader are not.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use patchbay_media::{Codec, Frame, MediaTime, Target, TrackInfo, VideoTarget};

struct Row {
    name: &'static str,
    floor_ms: f64,
    info: TrackInfo,
    frames: Vec<Frame>,
    target: Target,
}

fn measure(row: &Row) -> f64 {
    let mut rig = fast_rig(row.info.clone(), &row.target);
    rig.push_all(&row.frames);
    let out = rig.finish();
    let first = row.frames.iter().map(|f| f.pts).min().unwrap_or(MediaTime::ZERO);
    let last = row.frames.iter().map(|f| f.pts).max().unwrap_or(MediaTime::ZERO);
    assert!(out.stats.frames_out > 0 && out.stats.restarts == 0, "{:?}", out.stats);
    out.stats.cpu_ns as f64 / 1e6 / (last - first).as_secs_f64()
}

/// A tone with pink noise, as in the floor's measurement.
const SOUND: &str = "sine=440:r=48000:d=20[a];anoisesrc=c=pink:r=48000:a=0.1:d=20[b];[a][b]amix,aformat=channel_layouts=stereo";

fn rows() -> Vec<Row> {
    let source = ["-f", "lavfi", "-i", SOUND, "-ac", "2"];
    let aac = |rate: &str| {
        let args = [&source[..], &["-ar", rate, "-c:a", "aac", "-b:a", "128k", "-f", "adts"]].concat();
        adts(&ffmpeg_file(&format!("bench-{rate}.aac"), &args))
    };
    let raw = ffmpeg_file("bench.f32", &[&source[..], &["-f", "f32le"]].concat());
    let samples: Vec<f32> = raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (aac48, aac44, opus) = (aac("48000"), aac("44100"), opus_packets(&samples));
    let video =
        h264("bench.mp4", "1280x720", 8, &["-profile:v", "high", "-bf", "3", "-g", "60", "-b:v", "2M", "-vf", "noise=alls=6:allf=t"]);
    let h264_target = VideoTarget { codec: Codec::H264, size: None, frame_rate_max: None, bitrate_bps: 2_000_000, gop_ms: 2_000 };
    let row = |name, floor_ms, (info, frames): (TrackInfo, Vec<Frame>), target| Row { name, floor_ms, info, frames, target };
    let opus_64 = match OPUS {
        Target::Audio(a) => Target::Audio(patchbay_media::AudioTarget { bitrate_bps: 64_000, ..a }),
        video => video,
    };
    vec![
        row("AAC 48k -> Opus 64k", 7.6, aac48, opus_64),
        row("AAC 44.1k -> Opus 64k", 7.6 + 0.5, aac44, opus_64),
        row("Opus -> AAC 128k", 9.8, opus, AAC),
        row("H.264 720p30 High-B -> Baseline 2M", 72.0 + 344.0, video, Target::Video(h264_target)),
    ]
}

fn main() {
    println!("{:<36} {:>12} {:>12} {:>7}", "ms CPU per media second", "measured", "floor", "ratio");
    for row in rows() {
        let rounds = if row.target.kind() == patchbay_media::Kind::Video { 1 } else { 3 };
        let mut all: Vec<f64> = (0..rounds).map(|_| measure(&row)).collect();
        all.sort_by(f64::total_cmp);
        let median = all[all.len() / 2];
        println!("{:<36} {median:>12.1} {:>12.1} {:>7.2}", row.name, row.floor_ms, median / row.floor_ms);
    }
}

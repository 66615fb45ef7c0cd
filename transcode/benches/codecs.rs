//! CPU of one rendition per second of media, beside the bare libraries doing the same work in the same run (a loop
//! of decode and encode, nothing else) and beside the floor measured for the project: AAC to Opus 7.6 ms, Opus to
//! AAC 9.8 ms, H.264 720p to H.264 superfast 72 + 344 ms, to MPEG-1 253 ms (360p: 119), on an idle 2.5 GHz Skylake. Machines differ, so the ratio
//! is taken against the bare libraries, alternating with them.
//!
//! The rendition's figure is the pipeline's own count: thread CPU time of its turns (CLOCK_THREAD_CPUTIME_ID), so
//! decoding, clock, resampling, encoding and the bus are in it, the source and the reader are not.

#[path = "../tests/common/mod.rs"]
mod common;

use common::*;
use ffmpeg_next as ffmpeg;
use patchbay_media::{AudioTarget, Codec, Frame, Kind, MediaTime, Target, TrackInfo, VideoTarget};

struct Row {
    name: &'static str,
    floor_ms: f64,
    info: TrackInfo,
    frames: Vec<Frame>,
    target: Target,
    /// Bare libraries; absent where they alone do not make the same output (another sample rate).
    bare: Option<fn(&Row)>,
}

const BITRATE: u32 = 64_000;
/// The row whose source is also encoded in three sizes at once.
const LADDER_SOURCE: &str = "H.264 720p30 -> MPEG-1 720p 2M";

fn thread_cpu_ms() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn rendition_ms(row: &Row) -> f64 {
    let mut rig = fast_rig(row.info.clone(), &row.target);
    rig.push_all(&row.frames);
    let out = rig.finish();
    assert!(out.stats.frames_out > 0 && out.stats.restarts == 0, "{:?}", out.stats);
    out.stats.cpu_ns as f64 / 1e6
}

fn bare_ms(row: &Row, bare: fn(&Row)) -> f64 {
    let before = thread_cpu_ms();
    bare(row);
    thread_cpu_ms() - before
}

fn bare_aac_to_opus(row: &Row) {
    let mut decoder = open(ffmpeg::codec::Id::AAC, &row.info.config).audio().unwrap();
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Audio).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(BITRATE as i32)).unwrap();
    encoder.set_complexity(5).unwrap();
    let (mut pcm, mut samples, mut packet) = (ffmpeg::frame::Audio::empty(), Vec::new(), [0; 1_500]);
    for frame in &row.frames {
        decoder.send_packet(&ffmpeg::Packet::copy(&frame.payload)).unwrap();
        while decoder.receive_frame(&mut pcm).is_ok() {
            samples.extend(pcm.plane::<f32>(0).iter().zip(pcm.plane::<f32>(1)).flat_map(|(&l, &r)| [l, r]));
        }
        while samples.len() >= 1_920 {
            encoder.encode_float(&samples[..1_920], &mut packet).unwrap();
            samples.drain(..1_920);
        }
    }
}

#[cfg(feature = "fdk")]
fn bare_opus_to_aac(row: &Row) {
    use fdk_aac::enc::{AudioObjectType, BitRate, ChannelMode, Encoder, EncoderParams, Transport};
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).unwrap();
    let encoder = Encoder::new(EncoderParams {
        bit_rate: BitRate::Cbr(BITRATE),
        sample_rate: 48_000,
        transport: Transport::Raw,
        channels: ChannelMode::Stereo,
        audio_object_type: AudioObjectType::Mpeg4LowComplexity,
    })
    .unwrap();
    let (mut pcm, mut samples, mut packet) = (vec![0; 11_520], Vec::new(), [0; 2_048]);
    for frame in &row.frames {
        let n = decoder.decode(&frame.payload, &mut pcm, false).unwrap();
        samples.extend_from_slice(&pcm[..2 * n]);
        while samples.len() >= 2_048 {
            encoder.encode(&samples[..2_048], &mut packet).unwrap();
            samples.drain(..2_048);
        }
    }
}

fn bare_h264(row: &Row) {
    let mut decoder = open(ffmpeg::codec::Id::H264, &row.info.config).video().unwrap();
    let library = ffmpeg::encoder::find_by_name("libx264").unwrap();
    let mut setup = ffmpeg::codec::Context::new_with_codec(library).encoder().video().unwrap();
    setup.set_format(ffmpeg::format::Pixel::YUV420P);
    setup.set_width(1_280);
    setup.set_height(720);
    setup.set_time_base((1, 30));
    setup.set_frame_rate(Some((30, 1)));
    setup.set_gop(60);
    let mut options = ffmpeg::Dictionary::new();
    for (key, value) in [("preset", "superfast"), ("tune", "zerolatency"), ("profile", "baseline"), ("threads", "1")] {
        options.set(key, value);
    }
    for key in ["b", "maxrate", "bufsize"] {
        options.set(key, "2000000");
    }
    let mut encoder = setup.open_as_with(library, options).unwrap();
    let (mut picture, mut packet, mut count) = (ffmpeg::frame::Video::empty(), ffmpeg::Packet::empty(), 0);
    for frame in &row.frames {
        decoder.send_packet(&ffmpeg::Packet::copy(&frame.payload)).unwrap();
        while decoder.receive_frame(&mut picture).is_ok() {
            picture.set_pts(Some(count));
            picture.set_kind(ffmpeg::picture::Type::None);
            count += 1;
            encoder.send_frame(&picture).unwrap();
            while encoder.receive_packet(&mut packet).is_ok() {}
        }
    }
}

fn bare_mpeg1(row: &Row) {
    let Target::Video(target) = row.target else { return };
    let mut decoder = open(ffmpeg::codec::Id::H264, &row.info.config).video().unwrap();
    let library = ffmpeg::encoder::find_by_name("mpeg1video").unwrap();
    let mut setup = ffmpeg::codec::Context::new_with_codec(library).encoder().video().unwrap();
    let (width, height) = target.size.unwrap_or((1_280, 720));
    setup.set_format(ffmpeg::format::Pixel::YUV420P);
    setup.set_width(width);
    setup.set_height(height);
    setup.set_time_base((1, 30));
    setup.set_gop(60);
    let mut options = ffmpeg::Dictionary::new();
    for (key, value) in [("flags", "+low_delay"), ("strict", "unofficial"), ("threads", "1")] {
        options.set(key, value);
    }
    for key in ["b", "maxrate", "bufsize"] {
        options.set(key, &target.bitrate_bps.to_string());
    }
    let mut encoder = setup.open_as_with(library, options).unwrap();
    let format = ffmpeg::format::Pixel::YUV420P;
    let flags = ffmpeg::software::scaling::Flags::BILINEAR;
    let mut scaler = ffmpeg::software::scaling::Context::get(format, 1_280, 720, format, width, height, flags).unwrap();
    let (mut picture, mut packet, mut count) = (ffmpeg::frame::Video::empty(), ffmpeg::Packet::empty(), 0);
    for frame in &row.frames {
        decoder.send_packet(&ffmpeg::Packet::copy(&frame.payload)).unwrap();
        while decoder.receive_frame(&mut picture).is_ok() {
            let mut scaled = ffmpeg::frame::Video::empty();
            if target.size.is_some() {
                scaler.run(&picture, &mut scaled).unwrap();
            }
            let coded = if target.size.is_some() { &mut scaled } else { &mut picture };
            coded.set_pts(Some(count));
            coded.set_kind(ffmpeg::picture::Type::None);
            count += 1;
            encoder.send_frame(coded).unwrap();
            while encoder.receive_packet(&mut packet).is_ok() {}
        }
    }
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
    let noise = ["-profile:v", "high", "-bf", "3", "-g", "60", "-b:v", "2M", "-vf", "noise=alls=6:allf=t"];
    let video = h264("bench.mp4", "1280x720", 8, &noise);
    let audio_target = |codec| Target::Audio(AudioTarget { codec, sample_rate: 48_000, channels: 2, bitrate_bps: BITRATE });
    let h264_target =
        Target::Video(VideoTarget { codec: Codec::H264, size: None, frame_rate_max: None, bitrate_bps: 2_000_000, gop_ms: 2_000 });
    let mpeg1_target =
        |size, bitrate_bps| Target::Video(VideoTarget { codec: Codec::Mpeg1, size, frame_rate_max: None, bitrate_bps, gop_ms: 2_000 });
    let row = |name, floor_ms, (info, frames), target, bare| Row { name, floor_ms, info, frames, target, bare };
    #[cfg(feature = "fdk")]
    let opus_bare: Option<fn(&Row)> = Some(bare_opus_to_aac);
    #[cfg(not(feature = "fdk"))]
    let opus_bare: Option<fn(&Row)> = None;
    vec![
        row("AAC 48k -> Opus 64k", 7.6, aac48, audio_target(Codec::Opus), Some(bare_aac_to_opus)),
        row("AAC 44.1k -> Opus 64k", 7.6 + 0.5, aac44, audio_target(Codec::Opus), None),
        row("Opus -> AAC 64k", 9.8, opus, audio_target(Codec::Aac), opus_bare),
        row("H.264 720p30 High-B -> superfast 2M", 72.0 + 344.0, video.clone(), h264_target, Some(bare_h264)),
        row(LADDER_SOURCE, 253.0, video.clone(), mpeg1_target(None, 2_000_000), Some(bare_mpeg1)),
        row("H.264 720p30 -> MPEG-1 360p 1M", 119.0, video, mpeg1_target(Some((640, 360)), 1_000_000), Some(bare_mpeg1)),
    ]
}

fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// Three MPEG-1 sizes of one source with one decoder; floor 417 ms.
fn ladder_ms(info: &TrackInfo, frames: &[Frame]) -> f64 {
    let target =
        |size, bitrate_bps| VideoTarget { codec: Codec::Mpeg1, size: Some(size), frame_rate_max: None, bitrate_bps, gop_ms: 2_000 };
    let mut rig = fast_rig(info.clone(), &Target::Video(target((1_280, 720), 2_000_000)));
    let lower = [target((854, 480), 1_500_000), target((640, 360), 1_000_000)];
    let lower = lower.map(|t| rig.engine.start(rig.writer.track(), &Target::Video(t)).expect("starts"));
    rig.push_all(frames);
    let first = rig.finish().stats;
    let all = lower.iter().map(|rendition| {
        while rendition.track().ended().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        rendition.stats()
    });
    let all: Vec<_> = all.chain([first]).collect();
    assert!(all.iter().all(|s| s.dropped == 0 && s.frames_out == frames.len() as u64), "{all:?}");
    all.iter().map(|s| s.cpu_ns as f64 / 1e6).sum()
}

fn main() {
    println!("{:<36} {:>9} {:>9} {:>7} {:>14}", "ms CPU per media second", "rendition", "libraries", "ratio", "project floor");
    for row in rows() {
        let last = row.frames.iter().map(|f| f.pts).max().unwrap_or(MediaTime::ZERO);
        let seconds = (last - row.frames[0].pts).as_secs_f64();
        let rounds = if row.target.kind() == Kind::Video { 3 } else { 5 };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(rendition_ms(&row) / seconds);
            theirs.extend(row.bare.map(|bare| bare_ms(&row, bare) / seconds));
        }
        let ours = median(ours).unwrap_or(0.0);
        let (theirs, ratio) = match median(theirs) {
            Some(theirs) => (format!("{theirs:.1}"), format!("{:.2}", ours / theirs)),
            None => ("-".into(), "-".into()),
        };
        println!("{:<36} {ours:>9.1} {theirs:>9} {ratio:>7} {:>14.1}", row.name, row.floor_ms);
        if row.name == LADDER_SOURCE {
            let ladder = median((0..rounds).map(|_| ladder_ms(&row.info, &row.frames) / seconds).collect()).unwrap_or(0.0);
            println!("{:<36} {ladder:>9.1} {:>9} {:>7} {:>14.1}", "  to MPEG-1 720p + 480p + 360p", "-", "-", 417.0);
        }
    }
}

//! Video renditions with real codecs at both ends.

mod common;

use std::time::Duration;

use common::*;
use patchbay_bus::EndReason;
use patchbay_media::{Codec, Frame, MediaTime, Target, VideoTarget};
use patchbay_transcode::RenditionState;

const PLAIN: VideoTarget = VideoTarget { codec: Codec::H264, size: None, frame_rate_max: None, bitrate_bps: 800_000, gop_ms: 2_000 };
const HIGH: &[&str] = &["-profile:v", "high", "-bf", "3", "-b_strategy", "0", "-g", "60", "-b:v", "800k"];

#[test]
fn high_profile_with_b_frames_becomes_constrained_baseline_without_reordering() {
    let (info, frames) = h264("high.mp4", "640x360", 3, HIGH);
    assert!(info.video_shape().unwrap().reorder_frames > 0, "{info}: the source has no B-frames");
    let out = transcode(info, &frames, &Target::Video(PLAIN));
    assert_eq!((out.ended, out.stats.state, out.stats.restarts), (EndReason::Finished, RenditionState::Ended, 0));
    let shape = out.info.video_shape().unwrap();
    assert_eq!((shape.width, shape.height, shape.reorder_frames), (640, 360, 0));
    assert_eq!(shape.profile.unwrap().name(), "Constrained Baseline");
    assert!(out.frames[0].key);
    assert!(out.frames.windows(2).all(|p| p[0].pts < p[1].pts) && out.frames.iter().all(|f| f.pts == f.dts));
    let mut wanted: Vec<_> = frames.iter().map(|f| f.pts).collect();
    wanted.sort();
    assert_eq!(out.frames.iter().map(|f| f.pts).collect::<Vec<_>>(), wanted);
    assert_eq!(watch(&out.info, &out.frames).len(), frames.len());
    let keys: Vec<_> = out.frames.iter().filter(|f| f.key).map(|f| f.pts).collect();
    assert!(keys.windows(2).all(|k| k[1] - k[0] <= MediaTime::from_millis(2_000)), "{keys:?}");
}

#[test]
fn size_and_frame_rate_of_the_target_are_kept() {
    let (info, frames) = h264("scale.mp4", "640x360", 2, HIGH);
    let target = VideoTarget { size: Some((320, 181)), frame_rate_max: Some(15), ..PLAIN };
    let out = transcode(info, &frames, &Target::Video(target));
    assert!(out.frames.len().abs_diff(frames.len() / 2) <= 1, "{} of {}", out.frames.len(), frames.len());
    assert!(watch(&out.info, &out.frames).iter().all(|&s| s == (320, 180)));
}

#[test]
fn a_keyframe_request_is_answered_within_three_frames() {
    for codec in [Codec::H264, Codec::Mpeg1] {
        keyframe_request_to(codec);
    }
}

fn keyframe_request_to(codec: Codec) {
    let (info, frames) = h264("request.mp4", "320x180", 3, HIGH);
    let mut rig = fast_rig(info, &Target::Video(VideoTarget { codec, gop_ms: 60_000, ..PLAIN }));
    rig.push_all(&frames[..40]);
    let before = rig.rendition.stats().frames_out as usize;
    // Requests are budgeted to one per half second after a key frame.
    std::thread::sleep(Duration::from_millis(550));
    rig.rendition.track().keyframes().request();
    rig.push_all(&frames[40..]);
    let out = rig.finish();
    let keys: Vec<_> = (0..out.frames.len()).filter(|&n| out.frames[n].key).collect();
    assert_eq!(keys.len(), 2, "{codec}: {keys:?}");
    assert!((before..before + 3).contains(&keys[1]), "asked after {before} frames, came at {keys:?}");
}

#[test]
fn a_source_that_changes_its_size_is_followed() {
    let (first, mut frames) = h264("big.mp4", "640x360", 1, HIGH);
    let (second, more) = h264("small.mp4", "426x240", 1, &["-profile:v", "main", "-bf", "0"]);
    let mut rig = fast_rig(first, &Target::Video(PLAIN));
    rig.push_all(&frames);
    rig.writer.set_info(second);
    let shift = MediaTime::from_secs(2);
    let moved: Vec<_> = more.iter().map(|f| patchbay_media::Frame { pts: f.pts + shift, dts: f.dts + shift, ..f.clone() }).collect();
    rig.push_all(&moved);
    frames.extend(moved);
    let out = rig.finish();
    assert_eq!(out.frames.len(), frames.len());
    let at = out.frames.iter().position(|f| f.pts >= shift).unwrap();
    assert!(out.frames[at].key);
    let shape = out.info.video_shape().unwrap();
    assert_eq!((shape.width, shape.height), (426, 240));
    assert_eq!(watch(&out.info, &out.frames[at..]).len(), out.frames.len() - at);
}

#[test]
fn a_rendition_of_a_running_stream_starts_with_what_is_newest() {
    let (info, frames) = h264("late.mp4", "640x360", 4, &["-profile:v", "high", "-bf", "2", "-g", "300"]);
    let writer = patchbay_bus::Track::create(info.kind(), Some(info), unlimited());
    let (mut writer, begun) = (writer, patchbay_bus::now());
    // The stream has been running for four seconds.
    for frame in &frames {
        let arrival = begun - MediaTime::from_secs(4) + frame.dts;
        writer.push(patchbay_media::Frame { arrival, ..frame.clone() });
    }
    let engine = patchbay_transcode::Engine::new(patchbay_transcode::EngineConfig::default());
    let rendition = engine.start(writer.track(), &Target::Video(PLAIN)).unwrap();
    while rendition.stats().frames_out == 0 {
        assert!(patchbay_bus::now() - begun < MediaTime::from_secs(2), "{:?}", rendition.stats());
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(200));
    let stats = rendition.stats();
    assert!(stats.frames_out <= 12, "{stats:?}: encoded what nobody is to see");
    writer.end(EndReason::Finished);
}

#[test]
fn a_picture_beyond_the_limits_is_refused_before_a_decoder_is_opened() {
    let (mut info, frames) = h264("huge.mp4", "64x64", 1, &[]);
    if let patchbay_media::Shape::Video(shape) = &mut info.shape {
        (shape.width, shape.height) = (16_384, 16_384);
    }
    let keys: Vec<_> = frames.iter().map(|f| patchbay_media::Frame { key: true, ..f.clone() }).collect();
    let mut rig = fast_rig(info, &Target::Video(PLAIN));
    let begun = std::time::Instant::now();
    while rig.rendition.track().ended().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", rig.rendition.stats());
        rig.push(&keys[0]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rig.rendition.track().ended(), Some(EndReason::Failed));
    assert_eq!((rig.rendition.stats().state, rig.rendition.stats().frames_out), (RenditionState::Failed, 0));
}

#[test]
fn a_pipeline_that_lags_skips_to_the_newest_group_and_says_so() {
    let (info, frames) = h264("lag.mp4", "320x180", 6, &["-bf", "0", "-g", "15"]);
    let mut rig = fast_rig(info, &Target::Video(PLAIN));
    // Frames that are skipped before the first one was read are missed by nobody.
    rig.push_all(&frames[..1]);
    frames[1..].iter().for_each(|f| rig.push(f));
    let out = rig.finish();
    assert!(out.stats.dropped > 0, "{:?}", out.stats);
    assert_eq!(out.stats.dropped, out.frames.iter().map(|f| u64::from(f.loss)).sum::<u64>());
    assert_eq!(out.frames.last().unwrap().pts, frames.last().unwrap().pts);
    assert_eq!(watch(&out.info, &out.frames).len(), out.frames.len());
}

#[test]
fn a_burst_is_decoded_as_fast_as_it_is_encoded() {
    let (info, frames) = h264("burst.mp4", "320x180", 4, &["-bf", "0", "-g", "15"]);
    let mut rig = fast_rig(info, &Target::Video(PLAIN));
    // All in less than a second, so that none is left out for lag.
    let squeezed = |time: MediaTime| MediaTime::from_nanos(time.as_nanos() / 5);
    let frames: Vec<_> = frames.iter().map(|f| Frame { pts: squeezed(f.pts), dts: squeezed(f.dts), ..f.clone() }).collect();
    rig.push_all(&frames[..1]);
    frames[1..].iter().for_each(|f| rig.push(f));
    let out = rig.finish();
    assert_eq!((out.stats.shed, out.stats.dropped, out.frames.len()), (0, 0, frames.len()), "{:?}", out.stats);
}

const MPEG1: VideoTarget = VideoTarget { codec: Codec::Mpeg1, ..PLAIN };
/// What every key picture of MPEG-1 begins with.
const SEQUENCE_HEADER: [u8; 4] = [0, 0, 1, 0xb3];

#[test]
fn h264_becomes_mpeg1_that_begins_with_its_sequence_header_and_decodes_to_every_picture() {
    let (info, frames) = h264("to-mpeg1.mp4", "641x360", 3, &["-profile:v", "high444", "-pix_fmt", "yuv444p", "-bf", "2", "-g", "60"]);
    let out = transcode(info, &frames, &Target::Video(MPEG1));
    assert_eq!((out.ended, out.stats.restarts, out.info.codec), (EndReason::Finished, 0, Codec::Mpeg1));
    let shape = out.info.video_shape().unwrap();
    assert_eq!((shape.width, shape.height, shape.reorder_frames), (640, 360, 0));
    assert!(out.frames[0].key);
    assert!(out.frames.iter().all(|f| f.key == f.payload.starts_with(&SEQUENCE_HEADER)));
    let mut wanted: Vec<_> = frames.iter().map(|f| f.pts).collect();
    wanted.sort();
    assert_eq!(out.frames.iter().map(|f| f.pts).collect::<Vec<_>>(), wanted);
    assert_eq!(watch(&out.info, &out.frames), vec![(640, 360); frames.len()]);
    assert_eq!(decoded_by_command("decoded.m1v", "mpegvideo", &out.frames), frames.len());
    let keys: Vec<_> = out.frames.iter().filter(|f| f.key).map(|f| f.pts).collect();
    assert!(keys.windows(2).all(|k| k[1] - k[0] <= MediaTime::from_millis(2_000)), "{keys:?}");
}

#[test]
fn between_h264_and_mpeg1_no_picture_is_held_back_while_live() {
    let plain = ["-profile:v", "baseline", "-g", "30"];
    let (h264, h264_frames) = h264("live.mp4", "320x180", 1, &plain);
    let (mpeg1, mpeg1_frames) = mpeg1("live.ts", "320x180", 1, &["-bf", "0", "-g", "30"]);
    for (info, frames, target) in [(h264, h264_frames, MPEG1), (mpeg1, mpeg1_frames, PLAIN)] {
        let mut rig = fast_rig(info, &Target::Video(target));
        for (n, frame) in frames.iter().enumerate() {
            rig.push(frame);
            rig.settle();
            let begun = std::time::Instant::now();
            while rig.rendition.stats().frames_out <= n as u64 {
                assert!(begun.elapsed() < Duration::from_secs(5), "{}: {n} of {:?}", target.codec, rig.rendition.stats());
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let out = rig.finish();
        assert_eq!(watch(&out.info, &out.frames).len(), frames.len());
    }
}

#[test]
fn mpeg1_becomes_h264_picture_for_picture() {
    let (info, frames) = mpeg1("from-mpeg1.ts", "640x360", 3, &["-bf", "0", "-g", "30"]);
    let out = transcode(info, &frames, &Target::Video(PLAIN));
    assert_eq!((out.ended, out.stats.restarts), (EndReason::Finished, 0));
    assert_eq!(out.frames.iter().map(|f| f.pts).collect::<Vec<_>>(), frames.iter().map(|f| f.pts).collect::<Vec<_>>());
    assert_eq!(watch(&out.info, &out.frames), vec![(640, 360); frames.len()]);
}

#[test]
fn mpeg1_with_b_pictures_nobody_announced_comes_out_in_order_after_the_first_group() {
    let (info, frames) = mpeg1("b-pictures.ts", "320x180", 3, &["-bf", "2", "-g", "15"]);
    assert!(frames.windows(2).any(|f| f[0].pts > f[1].pts), "the source has no B-pictures");
    let out = transcode(info, &frames, &Target::Video(PLAIN));
    assert_eq!((out.ended, out.stats.restarts), (EndReason::Finished, 0));
    assert!(out.frames.windows(2).all(|p| p[0].pts < p[1].pts));
    let second = frames.iter().filter(|f| f.key).nth(1).unwrap().pts;
    let after = |frames: &[patchbay_media::Frame]| frames.iter().filter(|f| f.pts >= second).count();
    assert_eq!(after(&out.frames), after(&frames));
}

#[test]
fn mpeg1_keeps_the_bitrate_and_the_frame_rate_at_rates_it_does_not_know() {
    for (rate, kept) in [("15", 60), ("25", 100), ("90", 240)] {
        let options = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "30", "-vf", "noise=alls=20:allf=t", "-f", "mp4"];
        let (config, frames) = pictures(&format!("rate-{rate}.mp4"), &format!("s=320x180:r={rate}:d=4"), &options);
        let info = patchbay_media::h264::track_info(&config).unwrap();
        let out = transcode(info, &frames, &Target::Video(MPEG1));
        assert!(out.frames.len().abs_diff(kept) <= 1, "{rate} fps: {} pictures", out.frames.len());
        assert_eq!(decoded_by_command(&format!("rate-{rate}.m1v"), "mpegvideo", &out.frames), out.frames.len());
        let bits = out.frames.iter().map(|f| f.payload.len() * 8).sum::<usize>() as f64 / 4.0;
        let asked = f64::from(MPEG1.bitrate_bps);
        assert!((0.7 * asked..1.3 * asked).contains(&bits), "{rate} fps: {bits} bit/s");
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}: not within 5 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn renditions_of_one_source_share_its_decoder_until_the_last_is_dropped() {
    let (info, frames) = h264("ladder.mp4", "640x360", 2, HIGH);
    let mut rig = fast_rig(info, &Target::Video(PLAIN));
    let source = rig.writer.track().clone();
    let targets = [MPEG1, VideoTarget { size: Some((320, 180)), ..MPEG1 }, VideoTarget { frame_rate_max: Some(10), ..PLAIN }];
    let others = targets.map(|target| rig.engine.start(&source, &Target::Video(target)).expect("starts"));
    assert_eq!(source.reader_count(), 1, "one decoder reads for all");
    rig.push_all(&frames[..30]);
    // One that joins now begins with the newest picture, long before the next key frame of the source.
    let late = rig.engine.start(&source, &Target::Video(VideoTarget { size: Some((160, 90)), ..PLAIN })).expect("starts");
    until("the first picture of the late one", || late.stats().frames_out == 1);
    let [first, second, third] = others;
    drop((second, late));
    rig.push_all(&frames[30..]);
    until("all pictures of the second", || first.stats().frames_in == frames.len() as u64);
    assert_eq!(source.reader_count(), 1);
    let third_made = third.stats().frames_out as usize;
    assert!(third_made.abs_diff(frames.len() / 3) <= 2, "{third_made} of {}", frames.len());
    assert!(third.stats().cpu_ns < rig.rendition.stats().cpu_ns, "a third of the pictures costs less");
    drop((first, third));
    assert_eq!(source.reader_count(), 1);
    let Rig { engine, rendition, writer, .. } = rig;
    drop(rendition);
    until("the end of the decoder", || source.reader_count() == 0);
    let again = engine.start(&source, &Target::Video(MPEG1)).expect("starts");
    until("a new decoder's first picture", || again.stats().frames_out > 0);
    writer.end(EndReason::Finished);
    until("the end", || again.track().ended() == Some(EndReason::Finished));
}

#[test]
fn a_decoder_that_fails_for_all_ends_all_and_the_next_rendition_gets_a_new_one() {
    let (mut info, frames) = h264("huge-for-all.mp4", "64x64", 1, &[]);
    let healthy = info.clone();
    if let patchbay_media::Shape::Video(shape) = &mut info.shape {
        (shape.width, shape.height) = (16_384, 16_384);
    }
    let mut rig = fast_rig(info, &Target::Video(PLAIN));
    let source = rig.writer.track().clone();
    let other = rig.engine.start(&source, &Target::Video(MPEG1)).expect("starts");
    until("the end of both", || {
        rig.push(&patchbay_media::Frame { key: true, ..frames[0].clone() });
        [&other, &rig.rendition].iter().all(|r| r.track().ended() == Some(EndReason::Failed))
    });
    assert!(other.stats().restarts >= 4, "{:?}", other.stats());
    rig.writer.set_info(healthy);
    let next = rig.engine.start(&source, &Target::Video(MPEG1)).expect("starts");
    until("a picture", || {
        rig.push(&frames[0]);
        next.stats().frames_out > 0
    });
}

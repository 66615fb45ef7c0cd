//! Audio renditions with real codecs at both ends.

mod common;

use std::time::Duration;

use common::*;
use patchbay_bus::{EndReason, Limits, Track, now};
use patchbay_media::{AudioShape, AudioTarget, Codec, Kind, MediaTime, Target, TrackInfo};
use patchbay_transcode::{Engine, EngineConfig, RenditionState, StartError};

/// Silence with a click every half second, at .25 and .75 of each second.
const CLICKS: &str = "aevalsrc='if(lt(mod(t+0.25,0.5),0.0005),0.9,0)|0':s=44100:d=3";

#[test]
fn aac_at_44100_becomes_gap_free_opus_of_the_same_pitch_and_duration() {
    let data =
        ffmpeg_file("tone.aac", &["-f", "lavfi", "-i", "sine=1000:r=44100:d=4", "-ac", "2", "-c:a", "aac", "-b:a", "128k", "-f", "adts"]);
    let (info, frames) = adts(&data);
    let out = transcode(info, &frames, &OPUS);
    assert_eq!((out.ended, out.stats.state, out.stats.restarts), (EndReason::Finished, RenditionState::Ended, 0));
    assert_continuous(&out.frames);
    assert!(out.frames.iter().all(|f| f.key && f.duration == MediaTime::from_millis(20)));
    let seconds = frames.len() as f64 * 1_024.0 / 44_100.0;
    assert!((out.frames.len() as f64 - seconds * 50.0).abs() < 2.0, "{} frames of 20 ms for {seconds} s", out.frames.len());
    let sound = listen(&out.info, &out.frames);
    assert!(sound.purity(500, 3_500, 1_000.0) > 0.99, "purity {}", sound.purity(500, 3_500, 1_000.0));
}

#[test]
fn a_click_comes_out_when_it_came_in_both_ways() {
    let data = ffmpeg_file("click.aac", &["-f", "lavfi", "-i", CLICKS, "-c:a", "aac", "-b:a", "128k", "-f", "adts"]);
    let (info, frames) = adts(&data);
    let before = listen(&info, &frames);
    let opus = transcode(info, &frames, &OPUS);
    let middle = listen(&opus.info, &opus.frames);
    let aac = transcode((*opus.info).clone(), &opus.frames, &AAC);
    assert_continuous(&aac.frames);
    let after = listen(&aac.info, &aac.frames);
    for from in [600, 1_100, 1_600, 2_100] {
        let click = before.peak(from, from + 400);
        for (name, sound) in [("Opus", &middle), ("AAC", &after)] {
            let off = (sound.peak(from, from + 400) - click).abs();
            assert!(off < MediaTime::from_millis(5), "{name}: click at {click:?} is off by {off:?}");
        }
    }
}

#[test]
fn mp2_keeps_tone_and_time_in_both_directions() {
    const MP2_48: Target = Target::Audio(AudioTarget { codec: Codec::Mp2, sample_rate: 48_000, channels: 1, bitrate_bps: 96_000 });
    let source = |name, expression| {
        let (info, frames) = adts(&ffmpeg_file(name, &["-f", "lavfi", "-i", expression, "-ac", "2", "-c:a", "aac", "-f", "adts"]));
        let opus = transcode(info.clone(), &frames, &OPUS);
        [(info, frames), ((*opus.info).clone(), opus.frames)]
    };
    let tones = source("mp2-tone.aac", "sine=1000:r=44100:d=3");
    let clicks = source("mp2-click.aac", CLICKS);
    for (tone, click) in tones.iter().zip(&clicks) {
        let before = listen(&click.0, &click.1);
        for mp2 in [MP2, MP2_48] {
            let there = |(info, frames): &(TrackInfo, Vec<patchbay_media::Frame>)| transcode(info.clone(), frames, &mp2);
            let (tone, click) = (there(tone), there(click));
            assert_continuous(&tone.frames);
            let name = format!("{} -> {}", tone.info, mp2);
            assert!(tone.frames.iter().all(|f| f.key && f.payload.starts_with(&[0xff, 0xfd])), "{name}: no layer II header");
            assert_eq!(
                tone.info.audio_shape().map(|a| (a.sample_rate, a.channels)),
                Some(match mp2 {
                    MP2 => (44_100, 2),
                    _ => (48_000, 1),
                })
            );
            for back in [None, Some(OPUS), Some(AAC)] {
                let hear = |mp2: &Outcome| match back {
                    None => listen(&mp2.info, &mp2.frames),
                    Some(target) => {
                        let out = transcode((*mp2.info).clone(), &mp2.frames, &target);
                        assert_continuous(&out.frames);
                        listen(&out.info, &out.frames)
                    }
                };
                let (tone, click) = (hear(&tone), hear(&click));
                assert!(tone.purity(500, 2_500, 1_000.0) > 0.98, "{name} -> {back:?}: purity {}", tone.purity(500, 2_500, 1_000.0));
                for from in [600, 1_100, 1_600, 2_100] {
                    let off = (click.peak(from, from + 400) - before.peak(from, from + 400)).abs();
                    assert!(off < MediaTime::from_millis(5), "{name} -> {back:?}: click off by {off:?}");
                }
            }
        }
    }
}

#[test]
fn a_hole_of_a_second_becomes_silence_and_what_follows_stays_in_place() {
    let mut samples = tone(4.0, 440.0);
    samples[3 * 96_000] = 0.99;
    let (info, mut frames) = opus_packets(&samples);
    let whole = transcode(info.clone(), &frames, &AAC);
    frames.retain(|f| !(1_000..2_000).contains(&f.pts.as_millis()));
    let holed = transcode(info, &frames, &AAC);
    assert_continuous(&holed.frames);
    assert_eq!(holed.frames.len(), whole.frames.len());
    let (whole, holed) = (listen(&whole.info, &whole.frames), listen(&holed.info, &holed.frames));
    assert!(holed.rms(1_200, 1_950) < 0.002, "the hole is not silent: {}", holed.rms(1_200, 1_950));
    assert!(holed.purity(2_100, 2_900, 440.0) > 0.99);
    assert_eq!(whole.peak(2_900, 3_100), holed.peak(2_900, 3_100), "the click moved");
}

#[test]
fn one_lost_packet_is_concealed_not_silenced() {
    let (info, mut frames) = opus_packets(&tone(2.0, 440.0));
    frames.remove(50);
    frames[50].loss = 1;
    let out = transcode(info, &frames, &AAC);
    assert_continuous(&out.frames);
    let sound = listen(&out.info, &out.frames);
    assert!(sound.rms(1_000, 1_020) > 0.2, "the lost 20 ms are silent: {}", sound.rms(1_000, 1_020));
}

/// Ten minutes at 1000 ppm drift as far as two hours at 83 ppm do; the clock's own test runs two hours.
#[test]
fn talk_with_dtx_and_a_wrong_sample_clock_stays_within_40_ms() {
    let (info, speech) = opus_packets(&tone(0.2, 440.0));
    let (_, quiet) = opus_packets(&vec![0.0; 96_000]);
    // A talker: 3 s of speech, 2 s with a comfort packet each 400 ms.
    let (mut frames, mut onset) = (Vec::new(), MediaTime::ZERO);
    for slot in 0..600 * 50_i64 {
        let talks = slot % 250 < 150;
        if talks || slot % 20 == 0 {
            let packets = if talks { &speech } else { &quiet };
            let pts = MediaTime::from_nanos((slot as f64 * 20e6 * 1.001) as i64);
            frames.push(frame(pts, packets[slot as usize % 10].payload.clone()));
            onset = if slot % 250 == 0 { pts } else { onset };
        }
    }
    let target = Target::Audio(AudioTarget { codec: Codec::Opus, sample_rate: 8_000, channels: 1, bitrate_bps: 32_000 });
    let out = transcode(info, &frames, &target);
    assert_continuous(&out.frames);
    let sound = listen(&out.info, &out.frames);
    let begin = sound.at(onset - MediaTime::from_millis(500));
    let heard = (begin..sound.left.len()).find(|&n| sound.left[n].abs() > 0.1).expect("speech");
    let off = (sound.begin + MediaTime::from_ticks(heard as i64, sound.rate) - onset).abs();
    assert!(off <= MediaTime::from_millis(40), "speech at {onset:?} is {off:?} off");
}

#[test]
fn any_rate_and_channel_count_comes_in() {
    for (rate, layout, hz) in
        [("8000", "mono", 500.0), ("22050", "stereo", 1_000.0), ("48000", "5.1", 1_000.0), ("96000", "stereo", 1_000.0)]
    {
        let source = format!("sine={hz}:r={rate}:d=2,pan={layout}|c0=c0{}", if layout == "mono" { "" } else { "|c1=c0" });
        let data = ffmpeg_file(&format!("{rate}-{layout}.aac"), &["-f", "lavfi", "-i", &source, "-c:a", "aac", "-f", "adts"]);
        let (info, frames) = adts(&data);
        let out = transcode(info.clone(), &frames, &OPUS);
        assert_continuous(&out.frames);
        let sound = listen(&out.info, &out.frames);
        assert!(sound.purity(300, 1_800, hz) > 0.98, "{info}: purity {}", sound.purity(300, 1_800, hz));
        assert!((1.9..2.3).contains(&(out.frames.len() as f64 / 50.0)), "{info}: {} frames", out.frames.len());
    }
}

#[test]
fn flac_comes_in() {
    for (name, source, options) in [
        ("16.flac.mp4", "sine=1000:r=44100:d=2,pan=stereo|c0=c0|c1=c0", ["-sample_fmt", "s16"]),
        ("24.flac.mp4", "sine=1000:r=96000:d=2", ["-sample_fmt", "s32"]),
    ] {
        let (info, frames) = flac(name, source, &options);
        let out = transcode(info.clone(), &frames, &OPUS);
        assert_continuous(&out.frames);
        let sound = listen(&out.info, &out.frames);
        assert!(sound.purity(300, 1_800, 1_000.0) > 0.98, "{info}: purity {}", sound.purity(300, 1_800, 1_000.0));
        assert!(sound.rms(300, 1_800) > 0.05, "{info}: rms {}", sound.rms(300, 1_800));
    }
}

#[test]
fn telephone_codecs_and_layers_two_and_three_come_in() {
    // Codec, encoder, container, rate, bytes per packet, samples per packet.
    let codecs: [(Codec, &str, &str, u32, usize, i64); 5] = [
        (Codec::Pcma, "pcm_alaw", "alaw", 8_000, 160, 160),
        (Codec::Pcmu, "pcm_mulaw", "mulaw", 8_000, 160, 160),
        (Codec::G722, "g722", "g722", 16_000, 160, 320),
        (Codec::Mp2, "mp2", "mp2", 48_000, 384, 1_152),
        (Codec::Mp3, "libmp3lame", "mp3", 48_000, 384, 1_152),
    ];
    for (codec, encoder, format, rate, bytes, samples) in codecs {
        let rate_text = rate.to_string();
        let mut args = vec!["-f", "lavfi", "-i", "sine=600:d=2", "-ar", &rate_text, "-ac", "1", "-c:a", encoder, "-b:a", "128k"];
        if codec == Codec::Mp3 {
            args.extend(["-write_xing", "0", "-id3v2_version", "0"]);
        }
        args.extend(["-f", format]);
        let data = ffmpeg_file(encoder, &args);
        let packets = data.chunks_exact(bytes).enumerate();
        let frames: Vec<_> = packets.map(|(n, p)| frame(MediaTime::from_ticks(n as i64 * samples, rate), p.to_vec())).collect();
        let info = TrackInfo::audio(codec, bytes::Bytes::new(), AudioShape { sample_rate: rate, channels: 1 });
        let out = transcode(info, &frames, &OPUS);
        let sound = listen(&out.info, &out.frames);
        assert!(sound.purity(300, 1_800, 600.0) > 0.97, "{codec}: purity {}", sound.purity(300, 1_800, 600.0));
        assert!(sound.rms(300, 1_800) > 0.05, "{codec}: rms {}", sound.rms(300, 1_800));
    }
}

#[test]
fn telephone_codecs_go_out_in_frames_of_20_ms_and_come_back_in_time() {
    let make = |name, expression| adts(&ffmpeg_file(name, &["-f", "lavfi", "-i", expression, "-ac", "2", "-c:a", "aac", "-f", "adts"]));
    let tone = make("phone-tone.aac", "sine=600:r=44100:d=3");
    let click = make("phone-click.aac", CLICKS);
    let before = listen(&click.0, &click.1);
    for (codec, sample_rate) in [(Codec::Pcma, 8_000), (Codec::Pcmu, 8_000), (Codec::G722, 16_000)] {
        let phone = Target::Audio(AudioTarget { codec, sample_rate, channels: 1, bitrate_bps: 64_000 });
        let (tone, click) = (transcode(tone.0.clone(), &tone.1, &phone), transcode(click.0.clone(), &click.1, &phone));
        assert_continuous(&tone.frames);
        assert!(tone.frames.iter().all(|f| f.payload.len() == 160), "{codec}: 64 kbit/s");
        for back in [OPUS, MP2] {
            let hear = |out: &Outcome| {
                let again = transcode((*out.info).clone(), &out.frames, &back);
                listen(&again.info, &again.frames)
            };
            let (tone, click) = (hear(&tone), hear(&click));
            assert!(tone.purity(500, 2_500, 600.0) > 0.97, "{codec} -> {back}: purity {}", tone.purity(500, 2_500, 600.0));
            for from in [600, 1_100, 1_600, 2_100] {
                let off = (click.peak(from, from + 400) - before.peak(from, from + 400)).abs();
                assert!(off < MediaTime::from_millis(5), "{codec} -> {back}: click off by {off:?}");
            }
        }
    }
}

#[test]
fn a_source_that_changes_its_format_goes_on_without_a_gap() {
    let make = |rate: &str, channels: &str| {
        let name = format!("change-{rate}-{channels}.aac");
        adts(&ffmpeg_file(
            &name,
            &["-f", "lavfi", "-i", "sine=1000:r=48000:d=1", "-ar", rate, "-ac", channels, "-c:a", "aac", "-f", "adts"],
        ))
    };
    let (first, mut frames) = make("44100", "2");
    let (second, more) = make("48000", "1");
    let shift = frames.last().unwrap().pts + MediaTime::from_ticks(1_024, 44_100);
    let mut rig = fast_rig(first, &OPUS);
    rig.push_all(&frames);
    rig.writer.set_info(second);
    frames = more.iter().map(|f| frame(f.pts + shift, f.payload.clone())).collect();
    rig.push_all(&frames);
    let out = rig.finish();
    assert_continuous(&out.frames);
    assert!((2.0..2.2).contains(&(out.frames.len() as f64 / 50.0)), "{} frames", out.frames.len());
    let sound = listen(&out.info, &out.frames);
    assert!(sound.purity(200, 800, 1_000.0) > 0.99 && sound.purity(1_300, 1_900, 1_000.0) > 0.99);
}

#[test]
fn opus_that_goes_from_stereo_to_mono_and_back_is_heard_without_a_gap() {
    // The packet itself says so (RFC 6716 §3.1); neither SDP nor the track does.
    let samples = tone(3.0, 440.0);
    let (info, mut frames) = opus_packets(&samples);
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    for (frame, pair) in frames.iter_mut().zip(samples.chunks_exact(1_920)).skip(50).take(50) {
        let mono: Vec<f32> = pair.iter().step_by(2).copied().collect();
        frame.payload = encoder.encode_vec_float(&mono, 1_500).unwrap().into();
    }
    let stereo = |frame: &patchbay_media::Frame| frame.payload[0] >> 2 & 1 == 1;
    assert!(stereo(&frames[10]) && !stereo(&frames[70]) && stereo(&frames[120]));
    for target in [AAC, MP2] {
        let out = transcode(info.clone(), &frames, &target);
        assert_continuous(&out.frames);
        let sound = listen(&out.info, &out.frames);
        for (from, to) in [(300, 900), (1_200, 1_900), (2_200, 2_800)] {
            assert!(sound.purity(from, to, 440.0) > 0.97, "{target}, {from} ms: purity {}", sound.purity(from, to, 440.0));
            assert!(sound.rms(from, to) > 0.2, "{target}, {from} ms: rms {}", sound.rms(from, to));
        }
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let engine = Engine::new(EngineConfig::default());
    let (decodable, encodable) = engine.abilities();
    assert!([Codec::Aac, Codec::Opus, Codec::Mp2, Codec::Pcma, Codec::H264].iter().all(|c| decodable.contains(c)));
    assert!([Codec::Aac, Codec::Opus, Codec::Mp2, Codec::H264, Codec::Mpeg1].iter().all(|c| encodable.contains(c)));
    let unknown = Track::create(Kind::Audio, None, Limits::default());
    assert!(matches!(engine.start(unknown.track(), &OPUS), Err(StartError::NotDescribed)));
    let shape = AudioShape { sample_rate: 8_000, channels: 1 };
    let info = TrackInfo::audio(Codec::Pcma, bytes::Bytes::new(), shape);
    let source = Track::create(Kind::Audio, Some(info), Limits::default());
    let to = |codec, sample_rate| Target::Audio(AudioTarget { codec, sample_rate, channels: 2, bitrate_bps: 64_000 });
    assert!(matches!(engine.start(source.track(), &to(Codec::Mp3, 48_000)), Err(StartError::NoEncoder(Codec::Mp3))));
    for (codec, rate) in [
        (Codec::G722, 16_000),
        (Codec::Pcma, 48_000),
        (Codec::Opus, 44_100),
        (Codec::Mp2, 24_000),
        (Codec::Aac, 0),
        (Codec::Aac, 1_000_000),
    ] {
        assert!(matches!(engine.start(source.track(), &to(codec, rate)), Err(StartError::Codec(_))), "{codec} at {rate} Hz");
    }
}

#[test]
fn a_muted_source_goes_on_as_silence_in_real_time() {
    let (info, frames) = opus_packets(&tone(1.0, 440.0));
    let mut rig = rig(info, &AAC);
    for frame in &frames[..25] {
        rig.push(frame);
    }
    std::thread::sleep(Duration::from_millis(700));
    let made = rig.rendition.stats().frames_out as f64 * 1_024.0 / 48_000.0;
    assert!((0.9..1.35).contains(&made), "0.5 s came, 0.7 s passed, {made} s went out");
    let out = rig.finish();
    assert_continuous(&out.frames);
    let sound = listen(&out.info, &out.frames);
    assert!(sound.rms(700, 1_000) < 0.002);
}

#[test]
fn a_source_that_delivers_in_bursts_is_soon_waited_for() {
    let (info, frames) = opus_packets(&tone(5.0, 440.0));
    let mut rig = rig(info, &AAC);
    for burst in frames.chunks(15) {
        burst.iter().for_each(|f| rig.push(f));
        std::thread::sleep(Duration::from_millis(300));
    }
    let out = rig.finish();
    assert_continuous(&out.frames);
    let sound = listen(&out.info, &out.frames);
    // Windows too short for the pitch of a clock that is stretched into place; without patience most are silent.
    let whole = (2_000..4_500).step_by(50).filter(|&at| sound.rms(at, at + 50) > 0.2 && sound.purity(at, at + 50, 440.0) > 0.9).count();
    assert!(whole >= 45, "still cut up: {whole} of 50 parts are whole");
}

#[test]
fn dropping_the_rendition_ends_its_track() {
    let (info, frames) = opus_packets(&tone(0.5, 440.0));
    let mut rig = rig(info, &AAC);
    frames.iter().for_each(|f| rig.push(f));
    rig.settle();
    let track = rig.rendition.track().clone();
    let source = rig.writer.track().clone();
    drop(rig.rendition);
    let begun = now();
    while track.ended().is_none() || source.reader_count() > 0 {
        assert!(now() - begun < MediaTime::from_secs(2), "still running");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(track.ended(), Some(EndReason::Stopped));
}

#[test]
fn many_renditions_share_two_threads_and_outlive_the_engine() {
    let (info, frames) = opus_packets(&tone(1.0, 440.0));
    let engine = Engine::new(EngineConfig { threads: 2, silence_after: Duration::from_secs(3_600), ..EngineConfig::default() });
    let mut writer = Track::create(Kind::Audio, Some(info), unlimited());
    let targets: Vec<_> = (0..12_u32)
        .map(|n| Target::Audio(AudioTarget { codec: Codec::Aac, sample_rate: 48_000, channels: 2, bitrate_bps: 64_000 + n * 1_000 }))
        .collect();
    let renditions: Vec<_> = targets.iter().map(|t| engine.start(writer.track(), t).unwrap()).collect();
    drop(engine);
    for frame in &frames {
        writer.push(patchbay_media::Frame { arrival: now(), ..frame.clone() });
    }
    let begun = now();
    writer.end(EndReason::Finished);
    for rendition in &renditions {
        while rendition.track().ended().is_none() {
            assert!(now() - begun < MediaTime::from_secs(10), "{:?}", rendition.stats());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(rendition.stats().state, RenditionState::Ended);
        assert!(rendition.stats().frames_out >= 46, "{:?}", rendition.stats());
    }
}

#[test]
fn added_delay_of_live_audio_stays_within_60_ms() {
    let (info, frames) = opus_packets(&tone(1.5, 440.0));
    let mut rig = rig(info, &AAC);
    let begun = std::time::Instant::now();
    for (n, frame) in frames.iter().enumerate() {
        let due = Duration::from_millis(n as u64 * 20);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        rig.push(frame);
    }
    rig.settle();
    let stats = rig.rendition.stats();
    // Re-framing 960 to 1024 samples and the encoder's 2048 samples of look-ahead.
    assert!((40_000_000..60_000_000).contains(&stats.added_delay_p50_ns), "{stats:?}");
    assert!(stats.cpu_ns > 0 && stats.frames_out > 60, "{stats:?}");
}

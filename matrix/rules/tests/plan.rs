//! The planner: each reason code by an example, and what holds for every input.

use patchbay_media::{AudioShape, Codec, H264Profile, Kind, Target, TrackInfo, VideoShape};
use patchbay_rules::{
    Abilities, Action, AudioAccept, AudioWish, Bounds, CodecSet, EndpointKind, Policy, ReasonCode, Rule, RuleTable, Sink, Size, Source,
    Verdict, VideoAccept, VideoWish, explain, parse_track, plan,
};
use proptest::prelude::*;

fn track(kind: Kind, spec: &str) -> Option<TrackInfo> {
    parse_track(kind, spec).unwrap()
}

fn rule(toml: &str) -> RuleTable {
    RuleTable::new(vec![toml::from_str(toml).unwrap()])
}

/// Verdicts of rtmp to `sink`.
fn decide(rules: &RuleTable, sink: &Sink, video: &str, audio: &str, able: Abilities) -> (Verdict, Verdict) {
    let (video, audio) = (track(Kind::Video, video), track(Kind::Audio, audio));
    let source =
        Source { kind: EndpointKind::Rtmp, bounds: Bounds::default(), stream: "live/x", video: video.as_ref(), audio: audio.as_ref() };
    let plan = plan(rules, &source, sink, &able);
    (plan.video, plan.audio)
}

fn to_webrtc(rules: &RuleTable, video: &str, audio: &str) -> (Verdict, Verdict) {
    decide(rules, &EndpointKind::Webrtc.default_sink(), video, audio, Abilities::all())
}

/// Verdicts of rtmp with H.264 and AAC to a usual sink, when the publisher's token says so much.
fn bounded(bounds: Bounds, to: EndpointKind) -> (Verdict, Verdict) {
    let (video, audio) = (track(Kind::Video, "h264"), track(Kind::Audio, "aac"));
    let source = Source { kind: EndpointKind::Rtmp, bounds, stream: "live/x", video: video.as_ref(), audio: audio.as_ref() };
    let plan = plan(&RuleTable::default(), &source, &to.default_sink(), &Abilities::all());
    (plan.video, plan.audio)
}

#[test]
fn a_publishers_token_bounds_every_pair_of_its_stream() {
    let passes = Bounds { passes_only: true, ..Bounds::default() };
    let (video, audio) = bounded(passes, EndpointKind::Webrtc);
    assert_eq!((video.action, audio.action, audio.code), (Action::Pass, Action::Drop, ReasonCode::TokenPassesOnly));
    assert!(audio.reason.contains("the publisher's token") && audio.reason.contains("aac is not taken by webrtc"), "{audio:?}");
    assert_eq!(bounded(passes, EndpointKind::Rtmp).1.action, Action::Pass);
    let unrecorded = Bounds { no_record: true, ..Bounds::default() };
    let (video, audio) = bounded(unrecorded, EndpointKind::File);
    assert!([&video, &audio].iter().all(|v| v.action == Action::Drop && v.code == ReasonCode::NoRecord), "{video:?} {audio:?}");
    assert!(video.reason.contains("rules recording out"), "{video:?}");
    assert_eq!(bounded(Bounds::default(), EndpointKind::File).0.action, Action::Pass);
    assert_eq!(bounded(unrecorded, EndpointKind::Rtmp), bounded(Bounds::default(), EndpointKind::Rtmp));
}

#[test]
fn each_reason_code_is_reached() {
    use ReasonCode::*;
    let matrix = RuleTable::default();
    let all = Abilities::all();
    let none = Abilities::default();
    let webrtc = EndpointKind::Webrtc.default_sink();
    let small = Sink { video: vec![VideoAccept { side_max: Some((640, 360)), ..VideoAccept::any(Codec::H264) }], ..webrtc.clone() };
    let mono_phone = Sink {
        audio: vec![AudioAccept { codec: Codec::Opus, sample_rates: Some(vec![48_000]), channels_max: Some(1) }],
        video: vec![],
        ..webrtc.clone()
    };
    let begun = Sink { video: vec![VideoAccept { size: Some((640, 360)), ..VideoAccept::any(Codec::Mpeg1) }], ..webrtc.clone() };
    let video = |rules: &RuleTable, sink: &Sink, spec: &str, able| decide(rules, sink, spec, "none", able).0;
    let audio = |rules: &RuleTable, sink: &Sink, spec: &str, able| decide(rules, sink, "none", spec, able).1;
    let seen = [
        (PassAccepted, video(&rule("video = 'auto'"), &webrtc, "h264", all)),
        (RulePass, video(&matrix, &webrtc, "h264:high", all)),
        (AlreadyTarget, audio(&matrix, &webrtc, "opus", all)),
        (CodecNotAccepted, audio(&matrix, &webrtc, "aac", all)),
        (BFrames, video(&matrix, &webrtc, "h264:high:bframes=2", all)),
        (ProfileNotAccepted, video(&matrix, &webrtc, "h264:high422", all)),
        (SizeTooLarge, video(&matrix, &small, "h264", all)),
        (OddSize, video(&matrix, &EndpointKind::H5.default_sink(), "mpeg1:427x241", all)),
        (SizeChange, video(&matrix, &begun, "mpeg1:426x240", all)),
        (SampleRate, audio(&rule("audio = 'pass'"), &EndpointKind::H5.default_sink(), "mp2:22050", all)),
        (Channels, audio(&matrix, &mono_phone, "opus:2", all)),
        (RuleTranscode, audio(&rule("audio = { bitrate_kbps = 96 }"), &webrtc, "opus", all)),
        (RuleCodecRefused, audio(&rule("audio = { codec = 'aac', bitrate_kbps = 96 }"), &webrtc, "opus", all)),
        (RuleDrop, audio(&rule("audio = 'drop'"), &webrtc, "opus", all)),
        (TokenPassesOnly, audio(&matrix, &Sink { passes_only: true, ..webrtc.clone() }, "aac", all)),
        (NoRecord, bounded(Bounds { no_record: true, ..Bounds::default() }, EndpointKind::File).0),
        (NoTrack, video(&matrix, &webrtc, "none", all)),
        (SinkTakesNone, video(&matrix, &mono_phone, "h264", all)),
        (NoDecoder, audio(&matrix, &webrtc, "aac", none)),
        (NoEncoder, audio(&matrix, &webrtc, "aac", Abilities { encode: CodecSet::default(), ..all })),
    ];
    for (code, verdict) in &seen {
        assert_eq!(verdict.code, *code, "{verdict:?}");
    }
    // These come from what the machine has room for, which a plan knows nothing of.
    let of_the_machine = [BudgetSpent, AudioOnly, TranscodeRefused];
    assert!(ReasonCode::ALL.iter().all(|code| of_the_machine.contains(code) || seen.iter().any(|(c, _)| c == code)));
}

#[test]
fn reasons_speak_to_a_streamer() {
    let (video, audio) = to_webrtc(&RuleTable::default(), "h264:high:bframes=2", "aac:44100:2");
    assert_eq!(
        video.reason,
        "video is re-encoded (h264-2000k-gop2000ms): the source has B-frames (reorder depth 2), which cannot be reordered by webrtc"
    );
    assert_eq!(audio.reason, "audio is transcoded from aac to opus (opus-48000-2ch-64k): aac is not taken by webrtc");
}

#[test]
fn opus_in_rtmp_stays_opus_for_a_browser() {
    let (_, audio) = to_webrtc(&RuleTable::default(), "h264", "opus");
    assert_eq!((audio.action, audio.code), (Action::Pass, ReasonCode::AlreadyTarget));
}

#[test]
fn b_frames_cost_an_encode_only_where_they_are_refused() {
    let rules = RuleTable::default();
    let rtmp = EndpointKind::Rtmp.default_sink();
    assert_eq!(decide(&rules, &rtmp, "h264:high:bframes=3", "aac", Abilities::all()).0.action, Action::Pass);
    assert!(matches!(to_webrtc(&rules, "h264:high:bframes=3", "aac").0.action, Action::Transcode(_)));
}

#[test]
fn targets_are_resolved_from_the_source() {
    let target = |sink: EndpointKind, kind: Kind, spec: &str| {
        let (v, a) = if kind == Kind::Video { (spec, "none") } else { ("none", spec) };
        let (v, a) = decide(&RuleTable::default(), &sink.default_sink(), v, a, Abilities::all());
        match if kind == Kind::Video { v.action } else { a.action } {
            Action::Transcode(target) => target.to_string(),
            other => other.name().to_owned(),
        }
    };
    use EndpointKind::{H5, Rtmp, Sip, Webrtc};
    assert_eq!(target(Webrtc, Kind::Video, "h265:1920x1080"), "h264-4000k-gop2000ms");
    assert_eq!(target(Webrtc, Kind::Video, "h265:640x360"), "h264-800k-gop2000ms");
    assert_eq!(target(H5, Kind::Video, "h264"), "mpeg1-1280x720-4000k-gop2000ms");
    assert_eq!(target(H5, Kind::Audio, "aac:44100:2"), "mp2-44100-2ch-128k");
    assert_eq!(target(Rtmp, Kind::Audio, "opus"), "aac-48000-2ch-128k");
    assert_eq!(target(Rtmp, Kind::Audio, "pcma"), "aac-8000-1ch-32k");
    assert_eq!(target(Webrtc, Kind::Audio, "aac:22050:1"), "opus-48000-1ch-32k");
    assert_eq!(target(Sip, Kind::Audio, "aac"), "opus-48000-2ch-64k");
}

#[test]
fn a_picture_too_large_is_scaled_into_the_limit_in_either_orientation() {
    let sink = Sink {
        kind: EndpointKind::Webrtc,
        video: vec![VideoAccept { side_max: Some((1_280, 720)), ..VideoAccept::any(Codec::H264) }],
        audio: vec![],
        is_rigid: false,
        passes_only: false,
    };
    for (spec, size) in [("h264:1920x1080", (1_280, 720)), ("h264:1080x1920", (720, 1_280)), ("h264:2000x500", (1_280, 320))] {
        let (video, _) = decide(&RuleTable::default(), &sink, spec, "none", Abilities::all());
        assert!(matches!(video.action, Action::Transcode(Target::Video(t)) if t.size == Some(size)), "{video:?}");
    }
}

#[test]
fn a_token_bounds_the_height_and_whether_anything_is_transcoded() {
    let size = |lines: u32, spec: &str| {
        let mut sink = EndpointKind::Webrtc.default_sink();
        sink.limit_height(lines);
        decide(&RuleTable::default(), &sink, spec, "none", Abilities::all()).0
    };
    let scaled = |verdict: &Verdict| match verdict.action {
        Action::Transcode(Target::Video(target)) => target.size,
        _ => None,
    };
    assert_eq!(scaled(&size(360, "h264:1280x720")), Some((640, 360)));
    assert_eq!(scaled(&size(360, "h264:720x1280")), Some((360, 640)));
    assert_eq!(size(720, "h264:1280x720").action, Action::Pass);
    let bound = Sink { passes_only: true, ..EndpointKind::Webrtc.default_sink() };
    let (video, audio) = decide(&RuleTable::default(), &bound, "h264", "aac", Abilities::all());
    assert_eq!((video.action, audio.action), (Action::Pass, Action::Drop));
    assert!(audio.reason.contains("aac is not taken by webrtc"), "{audio:?}");
}

/// Plans again and again for one jsmpeg viewer while its source changes; the target of each video and audio.
fn targets_of_jsmpeg(rules: &RuleTable, source: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut sink = EndpointKind::H5.default_sink();
    let word = |verdict: &Verdict| match verdict.action {
        Action::Transcode(target) => target.to_string(),
        other => other.name().to_owned(),
    };
    let mut once = |(video, audio): &(&str, &str)| {
        let (video, audio) = (track(Kind::Video, video), track(Kind::Audio, audio));
        let source =
            Source { kind: EndpointKind::Rtmp, bounds: Bounds::default(), stream: "live/x", video: video.as_ref(), audio: audio.as_ref() };
        let plan = plan(rules, &source, &sink, &Abilities::all());
        sink.settle(&plan, &source);
        (word(&plan.video), word(&plan.audio))
    };
    source.iter().map(&mut once).collect()
}

#[test]
fn a_jsmpeg_viewer_keeps_the_size_and_rate_it_began_with() {
    let words = |video: &str, audio: &str| (video.to_owned(), audio.to_owned());
    let large = words("mpeg1-1280x720-4000k-gop2000ms", "mp2-44100-2ch-128k");
    let changes = [("h264:1280x720", "aac:44100:2"), ("h264:854x480:bframes=3", "aac:48000:2"), ("h264:720x1280", "aac:22050:2")];
    assert_eq!(targets_of_jsmpeg(&RuleTable::default(), &changes), [large.clone(), large.clone(), large]);
    let passed = words("pass", "pass");
    let changes = [("none", "none"), ("mpeg1:640x360", "mp2:48000:2"), ("mpeg1:320x180", "mp2:44100:2"), ("mpeg1:640x360", "mp2:48000:2")];
    let other = words("mpeg1-640x360-1600k-gop2000ms", "mp2-48000-2ch-128k");
    assert_eq!(targets_of_jsmpeg(&RuleTable::default(), &changes), [words("absent", "absent"), passed.clone(), other, passed]);
}

#[test]
fn a_preset_is_turned_for_a_source_that_stands_upright() {
    let preset = rule("to = ['h5']\nvideo = { codec = 'mpeg1', size = '320x180', fps = 15, gop_ms = 1000 }");
    for (spec, target) in [("h264:1280x720", "mpeg1-320x180-15fps-600k-gop1000ms"), ("h264:720x1280", "mpeg1-180x320-15fps-600k-gop1000ms")]
    {
        assert_eq!(targets_of_jsmpeg(&preset, &[(spec, "none")])[0].0, target);
    }
}

#[test]
fn odd_sides_are_made_even_before_an_encoder_sees_them() {
    let (video, _) = to_webrtc(&RuleTable::default(), "h265:427x241", "none");
    assert!(matches!(video.action, Action::Transcode(Target::Video(t)) if t.size == Some((426, 240))), "{video:?}");
}

#[test]
fn the_first_fitting_rule_wins_and_the_matrix_comes_last() {
    let text = "name = 'music'\nto = ['webrtc']\nstream = 'music/*'\naudio = { bitrate_kbps = 128 }";
    let rules = RuleTable::new(vec![toml::from_str(text).unwrap(), toml::from_str("stream = 'music/**'\naudio = 'drop'").unwrap()]);
    let id =
        |stream| explain(&rules, &Abilities::all(), (EndpointKind::Rtmp, EndpointKind::Webrtc), stream, None, None).unwrap().plan.rule.id;
    assert_eq!(id("music/jazz").as_ref(), "music");
    assert_eq!(id("music/jazz/1").as_ref(), "rules[1]");
    assert_eq!(id("live/x").as_ref(), "matrix:rtmp>webrtc");
}

#[test]
fn a_plan_is_serialised_flat() {
    let explained = explain(&RuleTable::default(), &Abilities::all(), (EndpointKind::Rtmp, EndpointKind::Webrtc), "x", None, None).unwrap();
    let json = serde_json::to_value(&explained.plan).unwrap();
    assert_eq!(json["video"]["action"], "pass");
    assert_eq!(json["audio"]["target"], "opus-48000-2ch-64k");
    assert_eq!(json["audio"]["code"], "codec_not_accepted");
    assert_eq!(json["rule"]["id"], "matrix:rtmp>webrtc");
}

#[test]
fn track_descriptions_are_read_and_mistakes_named() {
    let video = track(Kind::Video, "h264:1920x1080:high:bframes=3:25fps").unwrap();
    assert_eq!(video.to_string(), "h264 High 3.1 1920x1080 25 fps B-frames (reorders 3)");
    assert_eq!(track(Kind::Audio, "aac:mono:32000").unwrap().to_string(), "aac 32000 Hz 1 ch");
    for (kind, spec, say) in [
        (Kind::Video, "h264:huge", "possible: baseline"),
        (Kind::Video, "aac", "aac is no video codec"),
        (Kind::Audio, "aacc", "no codec is named"),
        (Kind::Video, "vp8:high", "\"high\" says nothing of a vp8 track"),
        (Kind::Video, "h264:bframes=99", "\"bframes=99\""),
    ] {
        let error = parse_track(kind, spec).unwrap_err().to_string();
        assert!(error.contains(say), "{spec}: {error}");
    }
}

#[test]
fn a_decision_takes_microseconds_at_most() {
    let rules = RuleTable::new((0..20).map(|i| toml::from_str(&format!("stream = 'x{i}/**'")).unwrap()).collect());
    let (video, audio) = (track(Kind::Video, "h264:high:bframes=2"), track(Kind::Audio, "aac"));
    let source =
        Source { kind: EndpointKind::Rtmp, bounds: Bounds::default(), stream: "live/x", video: video.as_ref(), audio: audio.as_ref() };
    let sink = EndpointKind::Webrtc.default_sink();
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        std::hint::black_box(plan(&rules, std::hint::black_box(&source), &sink, &Abilities::all()));
    }
    let each = begin.elapsed() / 10_000;
    println!("one plan: {each:?}");
    assert!(each.as_micros() < 50, "{each:?}");
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(&Codec::ALL[..])
}

fn any_kind() -> impl Strategy<Value = EndpointKind> {
    prop::sample::select(&EndpointKind::ALL[..])
}

/// Mostly sensible tracks, but also an audio codec with a picture's shape.
fn any_track() -> impl Strategy<Value = TrackInfo> {
    let side = || prop_oneof![Just(0u32), 1u32..5_000, any::<u32>()];
    let idc = prop::sample::select(vec![66u8, 77, 88, 100, 110, 122, 244, 3]);
    let video = (any_codec(), side(), side(), 0u8..20, prop::option::of(idc), prop::option::of(any::<f64>())).prop_map(
        |(codec, width, height, reorder_frames, idc, frame_rate)| {
            let profile = idc.map(|idc| H264Profile { idc, constraints: 0, level: 31 });
            TrackInfo::video(codec, Default::default(), VideoShape { width, height, frame_rate, reorder_frames, profile })
        },
    );
    let rates = prop::sample::select(vec![0u32, 8_000, 16_000, 22_050, 44_100, 48_000, 96_000, u32::MAX]);
    let audio = (any_codec(), rates, any::<u8>())
        .prop_map(|(codec, sample_rate, channels)| TrackInfo::audio(codec, Default::default(), AudioShape { sample_rate, channels }));
    prop_oneof![video, audio]
}

fn any_sink() -> impl Strategy<Value = Sink> {
    let profiles = prop::option::of(prop::collection::vec(prop::sample::select(vec![66u8, 77, 100, 122]), 0..4));
    let side = || prop_oneof![0u32..2_000, any::<u32>()];
    let video = (any_codec(), prop::option::of(0u8..4), profiles, prop::option::of((side(), side()))).prop_map(
        |(codec, reorder_frames_max, h264_profiles, side_max)| VideoAccept {
            codec,
            reorder_frames_max,
            h264_profiles,
            side_max,
            even_sides: false,
            size: None,
        },
    );
    let rates = prop::option::of(prop::collection::vec(prop::sample::select(vec![8_000u32, 16_000, 44_100, 48_000, 7]), 0..4));
    let audio = (any_codec(), rates, prop::option::of(0u8..4)).prop_map(|(codec, sample_rates, channels_max)| AudioAccept {
        codec,
        sample_rates,
        channels_max,
    });
    let stated = (any_kind(), prop::collection::vec(video, 0..4), prop::collection::vec(audio, 0..4))
        .prop_map(|(kind, video, audio)| Sink { kind, video, audio, is_rigid: false, passes_only: false });
    prop_oneof![stated, any_kind().prop_map(EndpointKind::default_sink)]
}

fn any_policy<W: std::fmt::Debug + Clone + 'static>(wish: impl Strategy<Value = W> + 'static) -> impl Strategy<Value = Policy<W>> {
    prop_oneof![Just(Policy::Auto), Just(Policy::Pass), Just(Policy::Drop), wish.prop_map(Policy::Transcode)]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let size = (8u32..2_048, 8u32..2_048).prop_map(|(w, h)| Size { width: 2 * w, height: 2 * h });
    let number = || prop::option::of(any::<u32>());
    let video = (prop::option::of(any_codec()), number(), prop::option::of(size), number(), number())
        .prop_map(|(codec, bitrate_kbps, size, fps, gop_ms)| VideoWish { codec, bitrate_kbps, size, fps, gop_ms });
    let audio = (prop::option::of(any_codec()), number(), number(), number()).prop_map(|(codec, bitrate_kbps, rate, channels)| AudioWish {
        codec,
        bitrate_kbps,
        rate,
        channels,
    });
    let kinds = || prop::collection::vec(any_kind(), 0..3);
    (kinds(), kinds(), any_policy(video), any_policy(audio)).prop_map(|(from, to, video, audio)| Rule {
        name: None,
        from,
        to,
        stream: "**".parse().unwrap(),
        video,
        audio,
    })
}

/// What a rendition of `target` will be.
fn output(target: Target, source: &TrackInfo) -> TrackInfo {
    match target {
        Target::Audio(a) => TrackInfo::audio(a.codec, Default::default(), AudioShape { sample_rate: a.sample_rate, channels: a.channels }),
        Target::Video(v) => {
            let shape = source.video_shape().copied().unwrap_or_default();
            let (width, height) = v.size.unwrap_or((shape.width, shape.height));
            let profile = (v.codec == Codec::H264).then_some(H264Profile { idc: 66, constraints: 0xC0, level: 31 });
            TrackInfo::video(v.codec, Default::default(), VideoShape { width, height, profile, ..VideoShape::default() })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pair_gets_a_verdict_that_the_sink_can_live_with(
        from in any_kind(), stream in "[a-z/]{0,12}",
        tracks in (prop::option::of(any_track()), prop::option::of(any_track())),
        sink in any_sink(), rules in prop::collection::vec(any_rule(), 0..3),
        able in (prop::collection::vec(any_codec(), 0..14), prop::collection::vec(any_codec(), 0..14), any::<bool>()),
    ) {
        let able = match able {
            (_, _, true) => Abilities::all(),
            (decode, encode, _) => Abilities { decode: decode.into_iter().collect(), encode: encode.into_iter().collect() },
        };
        let (video, audio) = tracks;
        let source = Source { kind: from, bounds: Bounds::default(), stream: &stream, video: video.as_ref(), audio: audio.as_ref() };
        let plan = plan(&RuleTable::new(rules), &source, &sink, &able);
        for (kind, track, verdict) in [(Kind::Video, &video, &plan.video), (Kind::Audio, &audio, &plan.audio)] {
            prop_assert!(!verdict.reason.is_empty());
            match (verdict.action, track) {
                (Action::Pass, Some(track)) => {
                    prop_assert_eq!(track.kind(), kind);
                    prop_assert_eq!(sink.refuses(track), None, "passed what the sink refuses");
                }
                (Action::Transcode(target), Some(track)) => {
                    prop_assert_eq!(target.kind(), kind);
                    prop_assert!(able.decode.contains(track.codec) && able.encode.contains(target.codec()));
                    prop_assert_eq!(sink.refuses(&output(target, track)), None, "{}: target refused", target);
                }
                (Action::Pass | Action::Transcode(_), None) => prop_assert!(false, "a verdict about nothing: {verdict:?}"),
                (Action::Absent, Some(track)) => prop_assert_ne!(track.kind(), kind),
                (Action::Drop | Action::Absent, _) => {}
            }
        }
        prop_assert!(!plan.rule.id.is_empty() && !plan.rule.text.is_empty());
    }
}

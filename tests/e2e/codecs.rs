//! Codecs that browsers and old players do not take, by enhanced RTMP; everybody gets what they do take.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Client, Patchbay, Watching, enhanced, fixture, play_enhanced, probe, text, turn, wait_for};

#[test]
fn hevc_by_enhanced_rtmp_is_seen_in_a_browser_and_by_an_old_player() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = enhanced(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"), &["--video", "hevc", "--audio", "aac"]);
    hub.wait_live("live/a");
    assert_eq!(described(&hub, "video"), "h265 640x360 30 fps B-frames (reorders 2)");
    let seen = probe(&hub.rtmp_url("live/a"), 3);
    assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"));
    seen.assert_continuous("video", 0.5);
    seen.assert_continuous("audio", 0.06);
    let seen = play_enhanced(&hub.rtmp_url("live/a"), "hvc1", 2);
    assert_untouched(&seen, "hevc", "aac");
    let viewer = Watching::start(Client::Browser, &["--whep", &hub.url("/whep/live/a"), "--stamp", "n"]);
    let pair = wait_for("the pair", Duration::from_secs(20), || hub.pairs("whep").first().cloned());
    assert_eq!(text(&pair["video"]["code"]), "codec_not_accepted", "{pair}");
    std::thread::sleep(Duration::from_secs(8));
    let seen = viewer.report();
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(90.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
}

#[test]
fn av1_and_vp9_by_enhanced_rtmp_reach_everybody_and_opus_passes() {
    let _turn = turn();
    for (video, audio, action) in [("av1", "opus", "pass"), ("vp9", "aac", "transcode")] {
        let hub = Patchbay::start("");
        // A second picture beside the first is left out.
        let tracks = if video == "vp9" { "2" } else { "1" };
        let options = ["--video", video, "--audio", audio, "--tracks", tracks];
        let _source = enhanced(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"), &options);
        hub.wait_live("live/a");
        assert!(described(&hub, "video").starts_with(&format!("{video} 640x360")), "{}", described(&hub, "video"));
        let seen = probe(&hub.rtmp_url("live/a"), 2);
        assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"), "{video}");
        // Over RTMP by announcing it, over FLV by naming it in the URL.
        let seen = play_enhanced(&hub.rtmp_url("live/a"), "av01,vp09,Opus", 2);
        assert_untouched(&seen, if video == "av1" { "libdav1d" } else { video }, audio);
        let seen = play_enhanced(&hub.url("/flv/live/a.flv?codecs=av1,vp9"), "", 2);
        assert_untouched(&seen, if video == "av1" { "libdav1d" } else { video }, "aac");
        let viewer = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/a"), "--stamp", "n"]);
        let pair = wait_for("the pair", Duration::from_secs(20), || hub.pairs("whep").first().cloned());
        assert_eq!(text(&pair["video"]["code"]), "codec_not_accepted", "{pair}");
        assert_eq!(text(&pair["audio"]["action"]), action, "{pair}");
        std::thread::sleep(Duration::from_secs(6));
        let seen = viewer.report();
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(90.0), "{video}: {seen}");
        assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{video}: {seen}");
    }
}

/// Asserts that a player decoded these, without a gap.
#[track_caller]
fn assert_untouched(seen: &Value, video: &str, audio: &str) {
    assert_eq!((text(&seen["video"]["codec"]).as_str(), text(&seen["audio"]["codec"]).as_str()), (video, audio), "{seen}");
    assert!(seen["video"]["frames"].as_u64() >= Some(50) && seen["video"]["longestStepMs"].as_u64() < Some(80), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01) && seen["audio"]["longestStepMs"].as_u64() < Some(60), "{seen}");
}

/// What the source's track of this kind is, as the API says it.
fn described(hub: &Patchbay, kind: &str) -> String {
    let tracks = hub.get("/v1/streams")["streams"][0]["tracks"].clone();
    text(&tracks.as_array().expect("tracks").iter().find(|t| t["kind"] == kind).expect("a track of that kind")["description"])
}

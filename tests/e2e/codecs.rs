//! Codecs that browsers and old players do not take, by enhanced RTMP; everybody gets what they do take.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Client, Patchbay, Watching, enhanced, fixture, free_port, nginx, play_enhanced, probe, text, turn, wait_for};

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
    // Where re-encoding is slow the sound waits for its picture, so the middle of eight seconds may be silent.
    assert!(seen["audio"]["loudest"].as_f64() > Some(0.01), "{seen}");
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
        match video {
            "av1" => assert_untouched(&play_enhanced(&hub.rtmp_url("live/a"), "av01,Opus", 2), "libdav1d", "opus"),
            _ => assert_untouched(&play_enhanced(&hub.url("/flv/live/a.flv?codecs=vp9"), "", 2), "vp9", "aac"),
        }
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

#[test]
fn a_push_passes_what_the_other_server_takes_and_transcodes_the_rest() {
    let _turn = turn();
    let (hub, far) = (Patchbay::start(""), Patchbay::start(""));
    let (rtmp, http) = (free_port(), free_port());
    let _origin = nginx(rtmp, http);
    for (name, url) in [("new", far.rtmp_url("live/a")), ("old", format!("rtmp://127.0.0.1:{rtmp}/live/a"))] {
        let body = serde_json::json!({"name": name, "stream": "live/a", "url": url});
        ureq::post(hub.url("/v1/pushes")).send_json(&body).expect("the push is accepted");
    }
    let _source = enhanced(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"), &["--video", "hevc", "--audio", "flac"]);
    far.wait_live("live/a");
    let actions = || {
        let pairs = hub.pairs("push");
        let of = |kind: &str, action: &str| pairs.iter().filter(|pair| pair[kind]["action"] == action).count();
        ["video", "audio"].map(|kind| (of(kind, "pass"), of(kind, "transcode")))
    };
    wait_for("one verdict of each", Duration::from_secs(10), || (actions() == [(1, 1); 2]).then_some(()));
    assert_untouched(&play_enhanced(&far.rtmp_url("live/a"), "hvc1,fLaC", 2), "hevc", "flac");
    assert_untouched(&play_enhanced(&format!("rtmp://127.0.0.1:{rtmp}/live/a"), "hvc1,fLaC", 2), "h264", "aac");
    let pushes = hub.get("/v1/pushes")["pushes"].clone();
    assert!(pushes.as_array().expect("pushes").iter().all(|push| push["state"] == "live" && push["connects"] == 1), "{pushes}");
}

/// Asserts that a player decoded these, without a gap.
#[track_caller]
fn assert_untouched(seen: &Value, video: &str, audio: &str) {
    assert_eq!((text(&seen["video"]["codec"]).as_str(), text(&seen["audio"]["codec"]).as_str()), (video, audio), "{seen}");
    assert!(seen["video"]["frames"].as_u64() >= Some(50) && seen["video"]["longestStepMs"].as_u64() < Some(80), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01) && seen["audio"]["longestStepMs"].as_u64() < Some(120), "{seen}");
}

/// What the source's track of this kind is, as the API says it.
fn described(hub: &Patchbay, kind: &str) -> String {
    let tracks = hub.get("/v1/streams")["streams"][0]["tracks"].clone();
    text(&tracks.as_array().expect("tracks").iter().find(|t| t["kind"] == kind).expect("a track of that kind")["description"])
}

//! Codecs that browsers and old players do not take, by enhanced RTMP; everybody gets what they do take.

use std::time::Duration;

use crate::support::{Client, Patchbay, Watching, enhanced, fixture, probe, text, turn, wait_for};

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
    let viewer = Watching::start(Client::Browser, &["--whep", &hub.url("/whep/live/a"), "--stamp", "n"]);
    let pair = wait_for("the pair", Duration::from_secs(20), || hub.pairs("whep").first().cloned());
    assert_eq!(text(&pair["video"]["code"]), "codec_not_accepted", "{pair}");
    std::thread::sleep(Duration::from_secs(8));
    let seen = viewer.report();
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(90.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
}

/// What the source's track of this kind is, as the API says it.
fn described(hub: &Patchbay, kind: &str) -> String {
    let tracks = hub.get("/v1/streams")["streams"][0]["tracks"].clone();
    text(&tracks.as_array().expect("tracks").iter().find(|t| t["kind"] == kind).expect("a track of that kind")["description"])
}

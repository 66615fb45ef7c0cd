//! RTMP in, a browser and aiortc watch over WHEP.

use std::time::Duration;

use crate::support::{Patchbay, aiortc, browser, browser_in_background, fixture, play, publish, text, turn, wait_for};

#[test]
fn a_baseline_stream_is_passed_to_the_browser_with_its_sound_as_opus() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let url = hub.url("/whep/live/a");
    let seen = browser(&["--whep", &url, "--stamp", "n", "--seconds", "8"], Duration::from_secs(60));
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(98.0), "{seen}");
    assert!(seen["firstFrameMs"].as_f64() < Some(2_000.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    let inbound = &seen["stats"][0]["in"];
    assert_eq!(inbound["video"]["freezeCount"], 0, "{seen}");
    assert_eq!((text(&inbound["video"]["codec"]).as_str(), text(&inbound["audio"]["codec"]).as_str()), ("video/H264", "audio/opus"));

    let seen = aiortc(&["whep", &url, "--stamp", "n", "--seconds", "6"], Duration::from_secs(60));
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(98.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
}

#[test]
fn b_frames_cost_an_encoder_only_for_the_viewer_that_cannot_take_them() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("bframes-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let _player = play(&hub.rtmp_url("live/a"));
    wait_for("the RTMP player", Duration::from_secs(5), || (hub.pairs("rtmp").len() == 1).then_some(()));
    assert_eq!(hub.renditions().len(), 0);

    let url = hub.url("/whep/live/a");
    let viewer = browser_in_background(&["--whep", &url, "--no-stamp", "--seconds", "8"]);
    wait_for("the WHEP viewer", Duration::from_secs(20), || (hub.pairs("whep").len() == 1).then_some(()));
    let (whep, rtmp) = (&hub.pairs("whep")[0], &hub.pairs("rtmp")[0]);
    assert_eq!((text(&whep["video"]["action"]).as_str(), text(&whep["video"]["code"]).as_str()), ("transcode", "b_frames"), "{whep}");
    assert_eq!(text(&rtmp["video"]["action"]), "pass", "{rtmp}");
    let mut codecs: Vec<_> = hub.renditions().iter().map(|t| t.split('-').next().unwrap_or_default().to_owned()).collect();
    codecs.sort();
    assert_eq!(codecs, ["h264", "opus"]);
    drop(viewer);

    let seen = browser(&["--whep", &url, "--stamp", "n", "--seconds", "8"], Duration::from_secs(60));
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(97.0), "{seen}");
    assert_eq!(seen["stamps"]["outOfOrder"], 0, "{seen}");
    wait_for("the encoders to stop", Duration::from_secs(25), || hub.renditions().is_empty().then_some(()));
}

#[test]
fn many_viewers_share_one_audio_encoder_and_one_read_of_the_stream() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let url = hub.url("/whep/live/a");
    let viewers: Vec<_> = (0..4).map(|_| crate::support::aiortc_in_background(&["whep", &url, "--seconds", "12"])).collect();
    wait_for("four viewers with media", Duration::from_secs(20), || {
        let pairs = hub.pairs("whep");
        (pairs.len() == 4 && pairs.iter().all(|p| p["frames"].as_u64() > Some(60))).then_some(())
    });
    assert_eq!(hub.renditions().len(), 1, "{:?}", hub.renditions());
    drop(viewers);
}

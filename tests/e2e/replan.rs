//! Sources that change in the middle of a connection: every pair is planned again, and no sink is cut or left without pictures.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::changing::{B_FRAMES, BASELINE, Changing, HIGH, Part};
use crate::support::{Client, Patchbay, Proc, Watching, text, turn, wait_for};

/// Longest time a viewer may see the same picture: 200 ms on a quiet machine (docs/performance.md), more where others work too.
/// That no picture is missing is asserted exactly.
const GAP_MAX_MS: u64 = 400;

/// Plays with a real decoder that gives up at the first error.
fn play_strictly(url: &str) -> Proc {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-xerror", "-err_detect", "explode", "-rw_timeout", "10000000", "-i", url, "-f", "null", "-"]);
    Proc::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// How the source's track is described now.
fn described(hub: &Patchbay, kind: &str) -> String {
    let all = hub.get("/v1/streams");
    let tracks = all["streams"][0]["tracks"].as_array().cloned().unwrap_or_default();
    tracks.iter().find(|t| t["kind"] == kind).map(|t| text(&t["description"])).unwrap_or_default()
}

/// Goes on, and waits until the source is described with `word`.
#[track_caller]
fn go_on(hub: &Patchbay, source: &Changing, kind: &str, word: &str) {
    source.go_on();
    wait_for(&format!("{kind} with {word}, not {}", described(hub, kind)), Duration::from_secs(15), || {
        described(hub, kind).ends_with(word).then_some(())
    });
    watch_a_while(hub);
}

/// Until every pair has got two seconds more of what its source sends now.
#[track_caller]
fn watch_a_while(hub: &Patchbay) {
    let frames = || -> Vec<u64> {
        ["whep", "rtmp", "h5"].iter().flat_map(|protocol| hub.pairs(protocol)).map(|pair| pair["frames"].as_u64().unwrap_or(0)).collect()
    };
    let before = frames();
    wait_for("frames for every sink", Duration::from_secs(10), || {
        frames().iter().zip(&before).all(|(now, before)| *now > before + 140).then_some(())
    });
}

/// Codecs of the encoders that run.
fn encoders(hub: &Patchbay) -> Vec<String> {
    let mut codecs: Vec<_> = hub.renditions().iter().map(|t| t.split('-').next().unwrap_or_default().to_owned()).collect();
    codecs.sort();
    codecs
}

#[track_caller]
fn wait_encoders(hub: &Patchbay, wanted: &[&str]) {
    wait_for(&format!("the encoders {wanted:?} and no others"), Duration::from_secs(5), || (encoders(hub) == wanted).then_some(()));
}

#[test]
fn b_frames_and_sizes_come_and_go_and_a_whep_viewer_misses_nothing() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let small = Part { size: "426x240", ..Part::of(BASELINE) };
    let parts = [Part::of(BASELINE), Part::of(B_FRAMES), Part::of(HIGH), Part::of(B_FRAMES), small, Part::of(BASELINE)];
    let source = Changing::publish(&parts, &hub.rtmp_url("live/c"));
    hub.wait_live("live/c");
    let mut player = play_strictly(&hub.rtmp_url("live/c"));
    let viewer = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/c"), "--stamp", "n"]);
    wait_for("the viewer", Duration::from_secs(20), || (hub.pairs("whep").len() == 1).then_some(()));
    watch_a_while(&hub);
    let session = hub.pairs("whep")[0]["id"].clone();
    let verdict = || (text(&hub.pairs("whep")[0]["video"]["action"]), text(&hub.pairs("whep")[0]["video"]["code"]));
    wait_encoders(&hub, &["opus"]);

    for (word, code, running) in [
        ("B-frames (reorders 1)", "b_frames", &["h264", "opus"][..]),
        ("High 3.0 640x360 30 fps", "", &["opus"]),
        ("B-frames (reorders 1)", "b_frames", &["h264", "opus"]),
        ("426x240 30 fps", "", &["opus"]),
        ("640x360 30 fps", "", &["opus"]),
    ] {
        go_on(&hub, &source, "video", word);
        wait_encoders(&hub, running);
        assert_eq!(verdict().0 == "transcode", code == "b_frames", "{word}: {:?}", verdict());
        assert_eq!(hub.pairs("rtmp")[0]["video"]["action"], "pass", "{word}");
    }

    assert_eq!(hub.pairs("whep")[0]["id"], session, "the viewer is the same session");
    let seen = viewer.report();
    assert!(seen["stamps"]["longestGapMs"].as_u64() <= Some(GAP_MAX_MS), "{seen}");
    assert_eq!((&seen["stamps"]["shownPct"], &seen["stamps"]["outOfOrder"]), (&json!(100.0), &json!(0)), "{seen}");
    assert_eq!(text(&seen["size"]), "640x360", "{seen}");
    assert!(player.is_running(), "the RTMP player decodes all of it");
}

#[test]
fn the_sound_changes_its_rate_and_channels_and_everybody_goes_on_hearing_it() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let base = Part::of(BASELINE);
    let parts = [base, Part { rate: 48_000, ..base }, Part { channels: 1, ..base }, base];
    let source = Changing::publish(&parts, &hub.rtmp_url("live/c"));
    hub.wait_live("live/c");
    let mut player = play_strictly(&hub.rtmp_url("live/c"));
    let viewer = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/c"), "--stamp", "n"]);
    wait_for("the viewer", Duration::from_secs(20), || (hub.pairs("whep").len() == 1).then_some(()));
    watch_a_while(&hub);
    for word in ["48000 Hz 2 ch", "44100 Hz 1 ch", "44100 Hz 2 ch"] {
        go_on(&hub, &source, "audio", word);
        wait_encoders(&hub, &["opus"]);
    }
    let seen = viewer.report();
    assert!(seen["stamps"]["longestGapMs"].as_u64() <= Some(GAP_MAX_MS), "{seen}");
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(99.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    assert!(player.is_running(), "the RTMP player decodes all of it");
}

#[test]
fn jsmpeg_stays_through_every_change() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let base = Part::of(BASELINE);
    let small = Part { size: "426x240", ..base };
    let parts = [base, Part::of(B_FRAMES), small, base, Part { rate: 48_000, ..base }, Part { channels: 1, ..base }];
    let source = Changing::publish(&parts, &hub.rtmp_url("live/c"));
    hub.wait_live("live/c");
    let viewer = Watching::start(Client::Jsmpeg, &[&hub.url("/h5/live/c").replace("http:", "ws:"), "--stamp", "n"]);
    wait_for("the viewer", Duration::from_secs(20), || (hub.pairs("h5").len() == 1).then_some(()));
    watch_a_while(&hub);
    let session = hub.pairs("h5")[0]["id"].clone();
    for (kind, word) in [
        ("video", "(reorders 1)"),
        ("video", "426x240 30 fps"),
        ("video", "640x360 30 fps"),
        ("audio", "48000 Hz 2 ch"),
        ("audio", "44100 Hz 1 ch"),
    ] {
        go_on(&hub, &source, kind, word);
        wait_encoders(&hub, &["mp2", "mpeg1"]);
    }
    assert_eq!(hub.pairs("h5")[0]["id"], session, "the viewer is the same session");
    let seen = viewer.report();
    assert!(seen["stamps"]["longestGapMs"].as_u64() <= Some(GAP_MAX_MS), "{seen}");
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(98.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    // A decoder in WebAssembly reads size and rate once.
    assert_eq!(seen["wasm"], true, "{seen}");
    assert_eq!((&seen["sizes"], &seen["audio"]["rate"]), (&json!(["640x360"]), &json!(44_100)), "{seen}");
    assert_eq!(seen["sockets"], 1, "{seen}");
}

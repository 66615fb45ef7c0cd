//! H5: stock jsmpeg plays anything, and MPEG-1 sources reach browsers and RTMP players.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Client, Patchbay, Proc, Watching, aiortc_in_background, browser, fixture, jsmpeg, probe, publish, root, text, turn, wait_for,
};

/// `ffmpeg -f mpegts` with MPEG-1 video and MP2 sound by chunked POST.
fn publish_mpeg1(hub: &Patchbay, stream: &str) -> Proc {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", &fixture("baseline-360p.flv")]);
    command.args(["-c:v", "mpeg1video", "-b:v", "1500k", "-bf", "0", "-g", "30", "-c:a", "mp2", "-b:a", "96k", "-ar", "44100", "-ac", "1"]);
    command.args(["-muxdelay", "0.001", "-f", "mpegts", &hub.url(&format!("/h5/{stream}"))]);
    Proc::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn ws(hub: &Patchbay, stream: &str) -> String {
    hub.url(&format!("/h5/{stream}")).replace("http:", "ws:")
}

#[test]
fn every_build_of_jsmpeg_plays_an_rtmp_stream_and_viewers_share_its_encoders() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("bframes-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let url = ws(&hub, "live/a");
    let second = Watching::start(Client::Jsmpeg, &[&url]);
    wait_for("the first viewer's pictures", Duration::from_secs(20), || hub.pairs("h5").first()?["frames"].as_u64().filter(|n| *n > 60));
    // The author's own code in WebAssembly and in JavaScript, and an older build.
    for (build, wasm) in [(&[][..], true), (&["--no-wasm"], false), (&["--lib", "3"], true)] {
        let arguments = [&[&url, "--stamp", "n", "--seconds", "6"], build].concat();
        let seen = jsmpeg(&arguments, Duration::from_secs(60));
        assert_eq!(seen["wasm"], wasm, "{build:?} {seen}");
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{build:?} {seen}");
        assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{build:?} {seen}");
        assert!(seen["firstFrameMs"].as_f64() <= Some(500.0), "{build:?} {seen}");
    }
    let mut codecs: Vec<_> = hub.renditions().iter().map(|t| t.split('-').next().unwrap_or_default().to_owned()).collect();
    codecs.sort();
    assert_eq!(codecs, ["mp2", "mpeg1"], "one encoder each, whoever watches");
    drop(second);
    wait_for("the encoders to stop", Duration::from_secs(5), || hub.renditions().is_empty().then_some(()));
}

#[test]
fn an_mpeg1_source_reaches_a_browser_and_an_rtmp_player_as_h264() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish_mpeg1(&hub, "live/m");
    hub.wait_live("live/m");
    let seen = browser(&["--whep", &hub.url("/whep/live/m"), "--stamp", "n", "--seconds", "6"], Duration::from_secs(60));
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    let seen = probe(&hub.rtmp_url("live/m"), 3);
    assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"));
    seen.assert_continuous("video", 0.2);
}

#[test]
fn an_mpeg1_source_is_passed_to_jsmpeg_untouched() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish_mpeg1(&hub, "live/m");
    hub.wait_live("live/m");
    let seen = jsmpeg(&[&ws(&hub, "live/m"), "--stamp", "n", "--seconds", "6"], Duration::from_secs(60));
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{seen}");
    assert_eq!(hub.renditions(), [] as [&str; 0]);
}

#[test]
fn a_webrtc_publisher_is_watched_with_jsmpeg() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = aiortc_in_background(&["whip", &hub.url("/whip/live/w"), "--seconds", "25"]);
    hub.wait_live("live/w");
    let seen = jsmpeg(&[&ws(&hub, "live/w"), "--seconds", "6"], Duration::from_secs(60));
    assert!(seen["frames"]["presented"].as_u64() > Some(120), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    assert_eq!(text(&seen["sizes"][0]), "640x360");
}

/// Publishes a stamped picture of any size and rate in real time; `codecs` end with the container.
fn publish_stamped(picture: &str, rate: &str, codecs: &[&str], url: &str) -> Proc {
    let filter = Command::new("python3").arg(root().join("tests/clients/stamp.py")).args(["filter", "n"]).output().expect("python runs");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", &format!("testsrc2=s={picture}:r={rate}")]);
    command.args(["-f", "lavfi", "-i", "sine=440:r=44100", "-vf", String::from_utf8_lossy(&filter.stdout).trim(), "-pix_fmt", "yuv420p"]);
    Proc::spawn(command.args(codecs).arg(url).stdout(Stdio::null()).stderr(Stdio::null()))
}

const H264: &[&str] =
    &["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-b:v", "800k", "-g", "30", "-c:a", "aac", "-f", "flv"];
/// 23.976 pictures a second is the lowest rate MPEG-1 has a name for.
const MPEG1: &[&str] =
    &["-c:v", "mpeg1video", "-b:v", "1500k", "-bf", "0", "-g", "30", "-c:a", "mp2", "-muxdelay", "0.001", "-f", "mpegts"];

#[test]
fn odd_sizes_odd_rates_and_upright_pictures_are_mapped_for_jsmpeg() {
    let _turn = turn();
    let hub = Patchbay::start("");
    for (name, picture, rate, shown) in [
        ("slow", "640x360", "15", "640x360"),
        ("between", "640x360", "24.5", "640x360"),
        ("upright", "360x640", "30", "360x640"),
        ("odd", "427x241", "25", "426x240"),
    ] {
        let stream = format!("live/{name}");
        let _source = match name {
            "odd" => publish_stamped(picture, rate, MPEG1, &hub.url(&format!("/h5/{stream}"))),
            _ => publish_stamped(picture, rate, H264, &hub.rtmp_url(&stream)),
        };
        hub.wait_live(&stream);
        let seen = jsmpeg(&[&ws(&hub, &stream), "--stamp", "n", "--fps", rate, "--seconds", "5"], Duration::from_secs(60));
        assert_eq!(seen["sizes"], json!([shown]), "{name}: {seen}");
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{name}: {seen}");
        // At the source's own pace: nothing is repeated, nothing left out.
        let paced = seen["stamps"]["distinct"].as_f64().unwrap_or(0.0) / (3.0 * rate.parse::<f64>().expect("a rate"));
        assert!((0.85..1.2).contains(&paced), "{name}: {seen}");
    }
}

#[test]
fn a_rules_preset_is_what_jsmpeg_gets() {
    let _turn = turn();
    let preset = "[[rules]]\nto = [\"h5\"]\nvideo = { codec = \"mpeg1\", size = \"320x180\", fps = 15, gop_ms = 1000 }\n";
    let hub = Patchbay::start(preset);
    for (name, picture, shown) in [("wide", "640x360", "320x180"), ("upright", "360x640", "180x320")] {
        let stream = format!("live/{name}");
        let _source = publish_stamped(picture, "30", H264, &hub.rtmp_url(&stream));
        hub.wait_live(&stream);
        let seen = jsmpeg(&[&ws(&hub, &stream), "--stamp", "n", "--seconds", "6"], Duration::from_secs(60));
        assert_eq!(seen["sizes"], json!([shown]), "{name}: {seen}");
        // Every second picture of thirty.
        assert!(seen["stamps"]["shownPct"].as_f64().is_some_and(|pct| (45.0..55.0).contains(&pct)), "{name}: {seen}");
        assert!(seen["stamps"]["longestGapFrames"].as_u64() <= Some(2), "{name}: {seen}");
    }
}

#[test]
fn a_picture_reaches_jsmpeg_soon_after_it_was_taken() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let mut source = Command::new(root().join("tests/clients/live_source.sh"));
    source.args(["40", "640x360", "800", "-f", "flv", &hub.rtmp_url("live/l")]).stdout(Stdio::null()).stderr(Stdio::null());
    let _source = Proc::spawn(&mut source);
    hub.wait_live("live/l");
    let seen = jsmpeg(&[&ws(&hub, "live/l"), "--stamp", "wall", "--seconds", "6"], Duration::from_secs(60));
    // A quiet machine has less than half of it (docs/performance.md).
    assert!(seen["stamps"]["latencyMs"]["p50"].as_f64() <= Some(300.0), "{seen}");
}

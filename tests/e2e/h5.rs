//! H5: stock jsmpeg plays anything, and MPEG-1 sources reach browsers and RTMP players.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Patchbay, Proc, aiortc_in_background, browser, fixture, jsmpeg, probe, publish, text, turn, wait_for};

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
fn stock_jsmpeg_plays_an_rtmp_stream_and_two_viewers_share_its_encoders() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("bframes-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let url = ws(&hub, "live/a");
    let second = jsmpeg_in_background(&url);
    let seen = jsmpeg(&[&url, "--stamp", "n", "--seconds", "8"], Duration::from_secs(60));
    assert!(seen["stamps"]["shownPct"].as_f64() >= Some(95.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    let mut codecs: Vec<_> = hub.renditions().iter().map(|t| t.split('-').next().unwrap_or_default().to_owned()).collect();
    codecs.sort();
    assert_eq!(codecs, ["mp2", "mpeg1"], "one encoder each, whoever watches");
    drop(second);
    wait_for("the encoders to stop", Duration::from_secs(5), || hub.renditions().is_empty().then_some(()));
}

fn jsmpeg_in_background(url: &str) -> Proc {
    let mut command = Command::new("node");
    command.current_dir(crate::support::root().join("tests/clients")).args(["jsmpeg.mjs", url, "--seconds", "40"]);
    Proc::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
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
    assert_eq!(text(&seen["size"]), "640x360");
}

//! RTMP in; RTMP, HTTP-FLV, WebSocket-FLV and a push to nginx-rtmp out, untouched.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Patchbay, Proc, browser, fixture, play, probe, publish, text, turn, wait_for};

#[test]
fn a_stream_published_by_ffmpeg_is_played_untouched_over_rtmp_and_http_flv() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("bframes-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    for url in [hub.rtmp_url("live/a"), hub.url("/flv/live/a.flv"), hub.url("/flv/live/a"), hub.url("/live/a.flv")] {
        let seen = probe(&url, 3);
        assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"), "{url}");
        assert_eq!(text(&seen.stream("video")["profile"]), "High", "{url}");
        assert_eq!(text(&seen.stream("audio")["sample_rate"]), "44100", "{url}");
        seen.assert_continuous("video", 0.1);
        seen.assert_continuous("audio", 0.1);
    }
    assert_eq!(hub.renditions(), [] as [&str; 0], "nothing is encoded for players that take what the source sends");
}

#[test]
fn a_browser_plays_http_flv_and_websocket_flv() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    for url in [hub.url("/flv/live/a.flv"), hub.url("/flv/live/a.flv").replace("http:", "ws:")] {
        let seen = browser(&["--flv", &url, "--stamp", "n", "--seconds", "6"], Duration::from_secs(60));
        assert!(seen["stamps"]["shownPct"].as_f64() > Some(95.0), "{url}: {seen}");
        assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{url}: {seen}");
    }
}

#[test]
fn librtmp_plays_and_gstreamer_publishes() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let pipeline = format!(
        "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=30/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 \
         ! video/x-h264,profile=baseline ! h264parse ! flvmux name=m streamable=true ! rtmp2sink location={} \
         audiotestsrc is-live=true ! audioconvert ! audioresample ! avenc_aac ! aacparse ! m.",
        hub.rtmp_url("live/g")
    );
    let _source = Proc::spawn(
        Command::new("gst-launch-1.0").args(["-q"]).args(pipeline.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null()),
    );
    hub.wait_live("live/g");
    let file = format!("{}/dump-{}.flv", env!("CARGO_TARGET_TMPDIR"), hub.http);
    let url = hub.rtmp_url("live/g");
    let dump =
        Proc::spawn(Command::new("rtmpdump").args(["-q", "-v", "-r", &url, "-o", &file]).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("half a megabyte or so of FLV", Duration::from_secs(20), || std::fs::metadata(&file).ok().filter(|m| m.len() > 150_000));
    drop(dump);
    let seen = probe(&file, 2);
    assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"));
}

#[test]
fn a_push_carries_a_stream_to_another_server_and_shows_its_state() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let (rtmp, http) = (crate::support::free_port(), crate::support::free_port());
    let _origin = crate::support::nginx(rtmp, http);
    let body = serde_json::json!({"name": "cdn", "stream": "live/a", "url": format!("rtmp://127.0.0.1:{rtmp}/live/out")});
    let created = ureq::post(hub.url("/v1/pushes")).send_json(&body).expect("the push is accepted");
    assert_eq!(created.status(), 201);
    let state = || text(&hub.get("/v1/pushes")["pushes"][0]["state"]);
    assert_eq!(state(), "waiting", "nobody publishes yet");
    let source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    wait_for("the push to be live", Duration::from_secs(10), || (state() == "live").then_some(()));
    let seen = probe(&format!("rtmp://127.0.0.1:{rtmp}/live/out"), 3);
    assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"));
    let pair = &hub.pairs("push")[0];
    assert_eq!((text(&pair["to"]).as_str(), text(&pair["video"]["action"]).as_str()), ("cdn", "pass"));
    drop(source);
    assert_eq!(ureq::delete(hub.url("/v1/pushes/cdn")).call().expect("deleted").status(), 204);
    assert_eq!(hub.get("/v1/pushes")["pushes"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_late_player_starts_with_the_newest_group_and_a_vanished_publisher_may_come_back() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let source = publish(&fixture("bframes-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    std::thread::sleep(Duration::from_secs(3));
    let seen = probe(&hub.rtmp_url("live/a"), 1);
    assert!(seen.took < Duration::from_secs(4), "ffprobe took {:?}", seen.took);

    let mut player = play(&hub.rtmp_url("live/a"));
    wait_for("the player", Duration::from_secs(5), || (hub.pairs("rtmp").len() == 1).then_some(()));
    drop(source); // killed, not stopped
    std::thread::sleep(Duration::from_secs(1));
    let _again = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let frames = || hub.pairs("rtmp")[0]["frames"].as_u64().unwrap_or(0);
    let before = frames();
    wait_for("frames after the return", Duration::from_secs(5), || (frames() > before + 60).then_some(()));
    assert!(player.is_running(), "the player was not cut");
}

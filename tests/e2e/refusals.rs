//! What users are told when something cannot be done: one code in the reply, the API and the log.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Patchbay, fixture, play, probe, publish, turn, wait_for};

fn problem(error: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, serde_json::Value) {
    let mut response = error.expect("a reply");
    let status = response.status().as_u16();
    (status, response.body_mut().read_json().unwrap_or_default())
}

fn lenient() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

#[test]
fn http_refusals_carry_their_code() {
    let hub = Patchbay::start("");
    let http = lenient();
    let sdp = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    let post = |path: &str, mime: &str| problem(http.post(hub.url(path)).header("content-type", mime).send(sdp));
    for (path, mime, status, code) in
        [("/whep/live/none", "text/plain", 415, "unsupported"), ("/whip/..%2f..%2fetc", "application/sdp", 400, "bad_stream_name")]
    {
        let (got, body) = post(path, mime);
        assert_eq!((got, body["code"].as_str()), (status, Some(code)), "{path}: {body}");
        assert!(body["detail"].as_str().is_some_and(|d| d.len() > 10), "{body}");
    }
    let (got, body) = problem(http.get(hub.url("/flv/live/none.flv")).call());
    assert_eq!((got, body["code"].as_str()), (404, Some("stream_not_found")), "{body}");
    let (got, body) = problem(http.get(hub.url("/v1/pairs/999")).call());
    assert_eq!((got, body["code"].as_str()), (404, Some("session_not_found")), "{body}");
    let (got, body) =
        problem(http.post(hub.url("/v1/pushes")).send_json(serde_json::json!({"name": "x", "stream": "a/b", "url": "http://h/x"})));
    assert_eq!((got, body["code"].as_str()), (400, Some("bad_request")), "{body}");
    for url in ["rtmp://169.254.169.254/live/a", "rtmp://[::ffff:10.0.0.1]:6379/live/a", "rtmp://0x0a000001/live/a"] {
        let (got, body) =
            problem(http.post(hub.url("/v1/pushes")).send_json(serde_json::json!({"name": "x", "stream": "a/b", "url": url})));
        assert_eq!((got, body["code"].as_str()), (403, Some("address_refused")), "{url}: {body}");
        assert!(body["detail"].as_str().is_some_and(|d| d.contains("outbound.allow")), "{body}");
    }
}

/// FFmpeg's attempt to publish, with all it says.
fn try_to_publish(url: &str) -> std::process::Output {
    let file = fixture("baseline-360p.flv");
    let mut command = Command::new("timeout");
    command.args(["-k", "2", "15", "ffmpeg", "-nostdin", "-v", "verbose", "-re", "-i", &file, "-c", "copy", "-f", "flv", url]);
    command.stdin(Stdio::null()).output().expect("ffmpeg runs")
}

#[test]
fn a_second_rtmp_publisher_is_told_that_the_name_is_taken() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _first = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let second = try_to_publish(&hub.rtmp_url("live/a"));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(said.contains("stream_busy"), "{said}");
    assert_eq!(probe(&hub.rtmp_url("live/a"), 1).codec("video"), "h264", "the first one goes on");
}

#[test]
fn a_route_with_keys_refuses_strangers_and_lets_the_newest_holder_take_over() {
    let _turn = turn();
    let hub = Patchbay::start("[[routes]]\nstream = \"vip/*\"\npublish_key = \"open-sesame\"\n");
    let stranger = try_to_publish(&hub.rtmp_url("vip/a"));
    assert!(String::from_utf8_lossy(&stranger.stderr).contains("unauthorized"), "{}", String::from_utf8_lossy(&stranger.stderr));
    let url = hub.rtmp_url("vip/a?key=open-sesame");
    let _first = publish(&fixture("baseline-360p.flv"), &url);
    hub.wait_live("vip/a");
    let publisher = || hub.get("/v1/streams")["streams"][0]["publisher"].as_u64();
    let before = publisher();
    let mut player = play(&hub.rtmp_url("vip/a"));
    wait_for("the player", Duration::from_secs(5), || (hub.pairs("rtmp").len() == 1).then_some(()));
    let _second = publish(&fixture("baseline-360p.flv"), &url);
    wait_for("the takeover", Duration::from_secs(10), || (publisher().is_some() && publisher() != before).then_some(()));
    let frames = || hub.pairs("rtmp").first().and_then(|p| p["frames"].as_u64()).unwrap_or(0);
    let before = frames();
    wait_for("frames of the new publisher", Duration::from_secs(8), || (frames() > before + 60).then_some(()));
    assert!(player.is_running(), "the player stays through a takeover");
    assert!(!hub.log().contains("open-sesame"), "keys never reach the log");
}

#[test]
fn a_bad_configuration_is_refused_whole_with_every_problem() {
    let file = format!("{}/bad.toml", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&file, "[rtmp]\nlisen = \"0.0.0.0:1935\"\n[webrtc]\nworkers = \"four\"\n").expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_patchbay")).args(["check", &file]).output().expect("patchbay runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("rtmp.lisen") && said.contains("\"listen\"") && said.contains("webrtc.workers"), "{said}");
}

#[test]
fn a_taken_port_is_named_and_a_stop_signal_ends_everything_in_time() {
    let hub = Patchbay::start("");
    let taken = hub.http;
    let out = Command::new("timeout")
        .args(["10", env!("CARGO_BIN_EXE_patchbay"), "demo", "--http-port", &taken.to_string()])
        .output()
        .expect("patchbay runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("http.listen") && said.contains(&taken.to_string()), "{said}");
    let status = hub.stop().expect("it ends within ten seconds");
    assert!(status.success(), "{status:?}");
}

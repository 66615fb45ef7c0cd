//! The pages in a browser: every way to play, falling from one to the next, refusals, keys; and addresses from elsewhere.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Patchbay, Proc, aiortc, aiortc_in_background, browser, fixture, jsmpeg, probe, publish, text, turn, wait_for};

const LIMIT: Duration = Duration::from_secs(70);

fn hub_with_stream() -> (Patchbay, Proc) {
    let hub = Patchbay::start("");
    let source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    (hub, source)
}

/// Opens a page with sound on, and waits until it plays.
fn watch(hub: &Patchbay, path: &str, more: &[&str]) -> Value {
    let url = hub.url(path);
    let mut args = vec!["--page", &url, "--stamp", "n", "--settle", "0", "--seconds", "3"];
    args.extend(more);
    browser(&args, LIMIT)
}

/// It played over `via`, the picture moved, there was sound, and no script failed.
#[track_caller]
fn assert_plays(seen: &Value, via: &str) {
    assert_eq!((text(&seen["page"]["state"]).as_str(), text(&seen["page"]["via"]).as_str()), ("playing", via), "{seen}");
    assert!(seen["stamps"]["distinct"].as_u64() > Some(45) && seen["stamps"]["outOfOrder"] == 0, "{seen}");
    assert!(seen["audio"]["loudest"].as_f64() > Some(0.01), "{seen}");
    assert_eq!(seen["pageErrors"], Value::Array(vec![]), "{seen}");
    let video = &seen["page"]["stats"]["video"];
    assert_eq!((&video["width"], &video["height"]), (&640.into(), &360.into()), "{seen}");
    assert!(video["fps"].as_f64() > Some(15.0), "{seen}");
}

/// The ways that were given up.
fn given_up(seen: &Value) -> Vec<String> {
    seen["page"]["fallbacks"].as_array().expect("fallbacks").iter().map(|f| text(&f["via"])).collect()
}

#[test]
fn the_play_page_takes_webrtc_and_any_way_that_it_is_told() {
    let _turn = turn();
    let (hub, _source) = hub_with_stream();
    let seen = watch(&hub, "/play/live/a?muted=0", &[]);
    assert_plays(&seen, "whep");
    assert!(text(&seen["page"]["verdict"]).contains("AAC 44.1 kHz") && text(&seen["page"]["facts"]).contains("640 × 360"), "{seen}");
    let seen = watch(&hub, "/play/live/a?muted=0&via=flv", &[]);
    assert_plays(&seen, "flv");
    assert_eq!((text(&seen["page"]["pair"]["protocol"]).as_str(), given_up(&seen).len()), ("ws-flv", 0), "{seen}");
    let seen = watch(&hub, "/play/live/a?muted=0&via=h5", &[]);
    assert_plays(&seen, "h5");
    assert_eq!(text(&seen["page"]["pair"]["video"]["output"]), "mpeg1", "{seen}");
    assert_eq!(seen["page"]["session"], text(&seen["page"]["pair"]["id"].to_string().into()), "the only row is its own: {seen}");
}

#[test]
fn the_play_page_falls_to_flv_and_then_to_h5_and_says_why() {
    let _turn = turn();
    let (hub, _source) = hub_with_stream();
    let seen = watch(&hub, "/play/live/a?muted=0", &["--without", "rtc"]);
    assert_plays(&seen, "flv");
    assert_eq!(given_up(&seen), ["whep"]);
    let seen = watch(&hub, "/play/live/a?muted=0", &["--without", "rtc,mse"]);
    assert_plays(&seen, "h5");
    assert_eq!(given_up(&seen), ["whep", "flv"]);
    assert!(text(&seen["page"]["way"]).contains("Media Source"), "{seen}");
}

#[test]
fn a_browser_that_webrtc_does_not_reach_is_served_with_flv() {
    let _turn = turn();
    let (hub, _source) = hub_with_stream();
    let seen = watch(&hub, "/play/live/a?muted=0", &["--without", "ice"]);
    assert_plays(&seen, "flv");
    assert_eq!(given_up(&seen), ["whep"]);
    wait_for("the WebRTC session to be gone", Duration::from_secs(5), || hub.pairs("whep").is_empty().then_some(()));
}

#[test]
fn the_h5_page_needs_neither_webrtc_nor_media_source_extensions() {
    let _turn = turn();
    let (hub, _source) = hub_with_stream();
    let seen = watch(&hub, "/h5-play/live/a?muted=0", &["--without", "rtc,mse"]);
    assert_plays(&seen, "h5");
    assert_eq!(given_up(&seen), [] as [&str; 0], "it looks for no other way");
}

#[test]
fn a_refusal_that_is_the_same_everywhere_is_shown_and_not_tried_on_every_way() {
    let _turn = turn();
    let hub = Patchbay::start("[[routes]]\nstream = \"vip/*\"\nplay_key = \"open-sesame\"\n");
    for (path, without, via) in [("/play/live/none", "none", "whep"), ("/play/live/none", "rtc,mse", "h5")] {
        let seen = watch(&hub, path, &["--without", without, "--state", "retrying", "--seconds", "1"]);
        assert_eq!(
            (text(&seen["page"]["error"]["code"]).as_str(), text(&seen["page"]["via"]).as_str()),
            ("stream_not_found", via),
            "{seen}"
        );
    }
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("vip/a"));
    hub.wait_live("vip/a");
    let seen = watch(&hub, "/play/vip/a", &["--without", "rtc", "--state", "failed", "--seconds", "1"]);
    assert_eq!((text(&seen["page"]["error"]["code"]).as_str(), text(&seen["page"]["via"]).as_str()), ("unauthorized", "flv"), "{seen}");
}

#[test]
fn a_page_passes_its_key_on_and_plays_without_the_token_of_the_api() {
    let _turn = turn();
    let hub = Patchbay::start("[api]\ntoken = \"operators-only\"\n[[routes]]\nstream = \"vip/*\"\nplay_key = \"open sesame&\"\n");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("vip/a"));
    let media = hub.url("/flv/vip/a.flv?key=open+sesame%26");
    wait_for("vip/a to be live", Duration::from_secs(15), || ureq::get(&media).call().ok().map(|_| ()));
    let seen = watch(&hub, "/play/vip/a?muted=0&key=open+sesame%26", &[]);
    assert_plays(&seen, "whep");
    assert!(text(&seen["page"]["verdict"]).contains("API token") && seen["page"]["pair"].is_null(), "{seen}");
    let seen = watch(&hub, "/play/vip/a?muted=0&via=h5&token=open+sesame%26#token=operators-only", &[]);
    assert_plays(&seen, "h5");
    assert!(text(&seen["page"]["verdict"]).contains("MPEG-1"), "{seen}");
}

#[test]
fn addresses_of_other_servers_play_and_publish() {
    let _turn = turn();
    let (hub, _source) = hub_with_stream();
    // SRS: what WHEP answers names a resource that can be deleted.
    let seen = aiortc(&["whep", &hub.url("/rtc/v1/whep/?app=live&stream=a"), "--stamp", "n", "--seconds", "3"], LIMIT);
    assert!(seen["frames"]["presented"].as_u64() > Some(60) && seen["delete"] == 200, "{seen}");
    // The jsmpeg habit, and ZLMediaKit's FLV.
    let url = hub.url("/live/a.jsmpeg").replace("http:", "ws:");
    let seen = jsmpeg(&[&url, "--stamp", "n", "--seconds", "3"], LIMIT);
    assert!(seen["frames"]["presented"].as_u64() > Some(40), "{seen}");
    assert_eq!(probe(&hub.url("/live/a.live.flv"), 2).codec("video"), "h264");
    // MediaMTX to publish with WHIP, and jsmpeg's relay to push MPEG-TS.
    let _whip = aiortc_in_background(&["whip", &hub.url("/live/b/whip"), "--seconds", "20"]);
    hub.wait_live("live/b");
    let mut push = Command::new("ffmpeg");
    push.args(["-nostdin", "-v", "error", "-re", "-i", &fixture("baseline-360p.flv"), "-c:v", "mpeg1video", "-b:v", "1M", "-bf", "0"]);
    push.args(["-c:a", "mp2", "-f", "mpegts", &hub.url("/push/live/c?key=any")]);
    let _push = Proc::spawn(push.stdout(Stdio::null()).stderr(Stdio::null()));
    hub.wait_live("live/c");
    let kinds: Vec<_> = hub.get("/v1/streams")["streams"].as_array().expect("streams").iter().map(|s| text(&s["kind"])).collect();
    assert!(["h5", "rtmp", "webrtc"].iter().all(|kind| kinds.iter().any(|k| k == kind)), "{kinds:?}");
}

#[test]
fn a_browser_at_a_streams_name_is_sent_to_its_page() {
    let hub = Patchbay::start("");
    let http: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let get = |path: &str, accept: &str| {
        let response = http.get(hub.url(path)).header("accept", accept).call().expect("a reply");
        let to = response.headers().get("location").map(|to| to.to_str().expect("text").to_owned());
        (response.status().as_u16(), to.unwrap_or_default())
    };
    assert_eq!(get("/live/a?muted=0", "text/html,*/*"), (307, "/play/live/a?muted=0".into()));
    assert_eq!(get("/live/a/publish", "text/html"), (307, "/publish/live/a".into()));
    assert_eq!(get("/live/a", "*/*").0, 404, "a player is told the truth");
    assert_eq!(get("/favicon.ico", "text/html").0, 404);
    assert_eq!(get("/healthz", "text/html").0, 200);
}

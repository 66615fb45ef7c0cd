//! Keys, tokens, and URLs that hold them, on ways that succeed and ways that fail: none is ever seen in log, metrics, API or
//! error.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::support::{Patchbay, fixture, free_port, publish, turn, wait_for};

/// Each begins with what no answer may hold.
const PUBLISH_KEY: &str = "s3cret-publish";
const PLAY_KEY: &str = "s3cret-play";
const API_TOKEN: &str = "s3cret-api";
const WRONG_KEY: &str = "s3cret-guess";
/// A token as they look, and none that is good: its middle part is `{"sub":"s3cret"}`.
const BAD_TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJzM2NyZXQifQ.c2lnbmF0dXJlLW9mLXMzY3JldA";

fn configuration(closed: u16) -> String {
    format!(
        "[log]\nlevel = \"debug\"\n[api]\ntoken = \"{API_TOKEN}\"\n\
         [auth.jwt]\nsecret = \"s3cret-jwt-of-at-least-thirty-two-bytes\"\n\
         [auth.webhook]\nurl = \"http://127.0.0.1:{closed}/s3cret-hook\"\nsecret = \"s3cret-signature\"\nwhen_down = \"allow\"\n\
         [[routes]]\nstream = \"live/*\"\npublish_key = \"{PUBLISH_KEY}\"\nplay_key = \"{PLAY_KEY}\"\n\
         [[pushes]]\nname = \"down\"\nstream = \"live/a\"\nurl = \"rtmp://127.0.0.1:{closed}/app\"\nstream_key = \"s3cret-push\"\n"
    )
}

/// A request with what it brings, and all that is answered.
fn ask(hub: &Patchbay, method: &str, path: &str, bearer: &str, body: &str) -> String {
    let limits = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10)));
    // Nobody here says that a body may come.
    let http: ureq::Agent = limits.timeout_await_100(Some(Duration::from_millis(1))).http_status_as_error(false).build().into();
    let request = ureq::http::Request::builder().method(method).uri(hub.url(path));
    let request = request.header("authorization", format!("Bearer {bearer}")).header("content-type", "application/json");
    let mut reply = http.run(request.body(body.to_owned()).expect("a request")).expect("a reply");
    let head = format!("{method} {} {:?}", reply.status(), reply.headers());
    // A stream that was let in has no end.
    let text = if reply.headers().get("content-type").is_some_and(|t| t == "video/x-flv") {
        String::new()
    } else {
        reply.body_mut().read_to_string().expect("text")
    };
    head + &text
}

fn rtmp_attempt(url: &str) -> String {
    let file = fixture("baseline-360p.flv");
    let mut command = Command::new("timeout");
    command.args(["-k", "2", "15", "ffmpeg", "-nostdin", "-v", "error", "-re", "-i", &file, "-c", "copy", "-f", "flv", url]);
    String::from_utf8_lossy(&command.stdin(Stdio::null()).output().expect("ffmpeg runs").stderr).into_owned()
}

#[test]
fn secrets_are_seen_nowhere() {
    let _turn = turn();
    let hub = Patchbay::start(&configuration(free_port()));
    let mut said = Vec::new();
    // FFmpeg repeats its own URL; what the server said is in the log.
    for bad in [WRONG_KEY, BAD_TOKEN] {
        rtmp_attempt(&hub.rtmp_url(&format!("live/a?token={bad}")));
        rtmp_attempt(&hub.rtmp_url("live/a").replace("rtmp://", &format!("rtmp://user:{bad}@")));
    }
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url(&format!("live/a?key={PUBLISH_KEY}")));
    let streams = || ask(&hub, "GET", "/v1/streams", API_TOKEN, "");
    wait_for("live/a", Duration::from_secs(15), || streams().contains("\"h264\"").then_some(()));
    for key in [PLAY_KEY, WRONG_KEY, BAD_TOKEN, API_TOKEN] {
        for path in ["/flv/live/a.flv", "/whep/live/a", "/whip/live/b", "/h5/live/a", "/live/a.jsmpeg", "/nowhere", "/v1/streams"] {
            said.push(ask(&hub, "GET", &format!("{path}?token={key}"), "", ""));
            said.push(ask(&hub, "POST", path, key, "s3cret-body"));
        }
    }
    let pushes = [
        json!({ "name": "good", "stream": "live/a", "url": format!("rtmp://u:s3cret@127.0.0.1:{}/app/s3cret-name?k=s3cret", free_port()) }),
        json!({ "name": "good", "stream": "live/a", "url": "rtmp://127.0.0.1/app/s3cret-name" }),
        json!({ "name": "bad", "stream": "live/a", "url": "http://u:s3cret@h/s3cret" }),
        json!({ "name": "bad", "stream": "live/a", "url": ["s3cret"] }),
    ];
    said.extend(pushes.iter().map(|push| ask(&hub, "POST", "/v1/pushes", API_TOKEN, &push.to_string())));
    std::thread::sleep(Duration::from_millis(1_500));
    for path in ["streams", "sessions", "pairs", "pushes", "rules", "refusals", "info", "load", "openapi.json"] {
        said.push(ask(&hub, "GET", &format!("/v1/{path}"), API_TOKEN, ""));
    }
    said.push(ask(&hub, "GET", "/metrics", "", ""));
    said.push(hub.log());
    assert!(hub.log().contains("the webhook does not answer") && said.iter().any(|text| text.contains("\"backoff\"")), "{said:?}");
    for text in &said {
        assert!(!text.contains("s3cret"), "{}", around(text, "s3cret"));
        for part in BAD_TOKEN.split('.').skip(1) {
            assert!(!text.contains(part), "{}", around(text, part));
        }
    }
}

/// The line of `text` with `word` in it.
fn around<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.contains(word)).unwrap_or_default()
}

#[test]
fn answers_have_the_headers_that_keep_browsers_honest() {
    let hub = Patchbay::start("");
    let http: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let head = |method: &str, path: &str, origin: Option<&str>| {
        let request = ureq::http::Request::builder().method(method).uri(hub.url(path));
        let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
        let reply = http.run(request.body(()).expect("a request")).expect("a reply");
        (reply.status().as_u16(), reply.headers().clone())
    };
    for (path, page) in [("/", true), ("/play/live/a", true), ("/v1/streams", false), ("/metrics", false), ("/nowhere", false)] {
        let (_, headers) = head("GET", path, None);
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers.contains_key("content-security-policy"), page, "{path}");
    }
    for path in ["/v1/streams", "/h5/live/a", "/whip/live/a", "/metrics"] {
        let (status, headers) = head("PUT", path, None);
        assert!(status == 405 && headers.contains_key("allow"), "{path} {status} {headers:?}");
    }
    let publish = |origin| head("POST", "/h5/live/a", Some(origin)).0;
    assert_eq!(publish("https://stranger.example"), 401, "a stranger's page is no caller on this machine");
    assert_ne!(publish("http://127.0.0.1:9"), 401);
}

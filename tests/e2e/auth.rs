//! Who may publish, play and use the API, with real clients: tokens and their bounds.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::socket::SocketViewer;
use crate::support::{Patchbay, fixture, play, publish, text, turn, wait_for};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// A token that is good for five minutes.
fn token(jti: &str, permissions: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({ "sub": format!("holder-of-{jti}"), "jti": jti, "aud": "patchbay", "exp": now + 300, "patchbay": permissions });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("signed")
}

fn lenient() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// FFmpeg's attempt to publish, with all it says.
fn said_to_publisher(url: &str) -> String {
    let file = fixture("baseline-360p.flv");
    let mut command = Command::new("timeout");
    command.args(["-k", "2", "15", "ffmpeg", "-nostdin", "-v", "verbose", "-re", "-i", &file, "-c", "copy", "-f", "flv", url]);
    let out = command.stdin(Stdio::null()).output().expect("ffmpeg runs");
    assert!(!out.status.success(), "it was let in");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn tokens_open_names_bound_what_is_sent_and_can_be_revoked() {
    let _turn = turn();
    let hub = Patchbay::start(&format!("[auth.jwt]\nsecret = \"{SECRET}\"\nneeded_for = [\"publish\", \"play\"]\n"));
    let camera = token("cam", json!({ "publish": ["live/cam"], "play": ["live/**"] }));
    let refusal = said_to_publisher(&hub.rtmp_url("live/cam"));
    assert!(refusal.contains("unauthorized") && refusal.contains("needs a token"), "{refusal}");
    let refusal = said_to_publisher(&hub.rtmp_url(&format!("live/other?token={camera}")));
    assert!(refusal.contains("forbidden"), "{refusal}");

    let mut source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url(&format!("live/cam?token={camera}")));
    hub.wait_live("live/cam");
    let phone = token("phone", json!({ "play": ["live/*"], "max_height": 180 }));
    let thrifty = token("thrifty", json!({ "play": ["live/*"], "max_height": 180, "no_transcode": true }));
    let _small = play(&format!("{}?jwt={phone}", hub.url("/flv/live/cam.flv")));
    let _none = play(&format!("{}?token={thrifty}", hub.url("/flv/live/cam.flv")));
    let pairs = wait_for("two planned pairs", Duration::from_secs(10), || {
        let pairs = hub.pairs("http-flv");
        (pairs.len() == 2 && pairs.iter().all(|p| p["video"].is_object())).then_some(pairs)
    });
    let mut seen: Vec<_> = pairs.iter().map(|p| (text(&p["video"]["action"]), text(&p["video"]["code"]))).collect();
    seen.sort();
    assert_eq!(seen, [("drop".into(), "token_passes_only".into()), ("transcode".into(), "size_too_large".into())], "{pairs:?}");
    assert!(hub.renditions().iter().any(|target| target.contains("320x180")), "{:?}", hub.renditions());

    let http = lenient();
    let refused = http.get(hub.url("/flv/live/cam.flv")).call().expect("a reply");
    assert_eq!(refused.status(), 401);
    assert!(refused.headers()["www-authenticate"].to_str().is_ok_and(|v| v.starts_with("Bearer")));

    let sessions = hub.get("/v1/sessions");
    assert!(sessions["sessions"].as_array().is_some_and(|all| all.iter().any(|s| s["subject"] == "holder-of-cam")), "{sessions}");
    let revoked =
        http.post(hub.url("/v1/tokens/revoke")).send_json(json!({ "jti": "cam" })).expect("a reply").body_mut().read_json::<Value>();
    assert_eq!(revoked.expect("JSON")["ended"], 1);
    wait_for("the publisher to be sent away", Duration::from_secs(8), || (!source.is_running()).then_some(()));
    let refusal = said_to_publisher(&hub.rtmp_url(&format!("live/cam?token={camera}")));
    assert!(refusal.contains("revoked"), "{refusal}");
    for secret in [&camera, &phone, &thrifty] {
        assert!(!hub.log().contains(secret.as_str()), "tokens never reach the log");
    }
}

#[test]
fn what_a_publisher_may_bounds_everybody_who_plays_its_stream() {
    let _turn = turn();
    let hub = Patchbay::start(&format!("[auth.jwt]\nsecret = \"{SECRET}\"\n"));
    let camera = token("cam", json!({ "publish": ["live/cam"], "no_transcode": true, "no_record": true }));
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url(&format!("live/cam?token={camera}")));
    hub.wait_live("live/cam");
    let _same = play(&hub.url("/flv/live/cam.flv"));
    // What jsmpeg takes (MPEG-1, MP2) would have to be made.
    let _other = SocketViewer::open(&hub, "live/cam");
    let decided = |protocol| {
        let pairs = wait_for("a planned pair", Duration::from_secs(10), || {
            let pairs = hub.pairs(protocol);
            pairs.first().is_some_and(|p| p["video"].is_object() && p["audio"].is_object()).then_some(pairs)
        });
        ["video", "audio"].map(|kind| (text(&pairs[0][kind]["action"]), text(&pairs[0][kind]["code"])))
    };
    assert!(decided("http-flv").iter().all(|(action, _)| action == "pass"));
    assert_eq!(decided("h5"), [(); 2].map(|()| ("drop".into(), "token_passes_only".into())));
    assert!(hub.renditions().is_empty(), "{:?}", hub.renditions());
    assert_eq!(hub.get("/v1/streams")["streams"][0]["record"], false);
}

#[test]
fn the_api_takes_its_token_or_one_with_the_right() {
    let hub = Patchbay::start(&format!("[api]\ntoken = \"api-key\"\n[auth.jwt]\nsecret = \"{SECRET}\"\n"));
    let http = lenient();
    let status = |method: &str, path: &str, bearer: &str| {
        let request = ureq::http::Request::builder().method(method).uri(hub.url(path)).header("authorization", format!("Bearer {bearer}"));
        http.run(request.body(()).expect("a request")).expect("a reply").status().as_u16()
    };
    let (reader, controller) = (token("r", json!({ "api": ["read"] })), token("c", json!({ "api": ["control"] })));
    let other = token("o", json!({ "publish": ["**"] }));
    for (bearer, read, control) in
        [("api-key", 200, 404), (&reader, 200, 403), (&controller, 200, 404), (&other, 403, 403), ("guess", 401, 401), ("", 401, 401)]
    {
        assert_eq!(status("GET", "/v1/streams", bearer), read, "{bearer}");
        assert_eq!(status("DELETE", "/v1/sessions/99", bearer), control, "{bearer}");
    }
}

#[test]
fn behind_a_proxy_nobody_counts_as_a_caller_on_this_machine() {
    let hub = Patchbay::start("[[routes]]\nstream = \"open/*\"\npublish = \"anyone\"\n");
    let http = lenient();
    let publish = |name: &str, client: &str| {
        let mut reply =
            http.post(hub.url(&format!("/h5/{name}"))).header("x-forwarded-for", client).send(&[0x47; 188][..]).expect("a reply");
        (reply.status().as_u16(), text(&reply.body_mut().read_json::<Value>().unwrap_or_default()["detail"]))
    };
    let (status, why) = publish("live/a", "192.0.2.1");
    assert!(status == 401 && why.contains("auth.open"), "{status} {why}");
    assert_ne!(publish("live/a", "127.0.0.1").0, 401);
    assert_ne!(publish("open/a", "192.0.2.1").0, 401);
    let asked = |client| http.get(hub.url("/v1/streams")).header("x-forwarded-for", client).call().expect("a reply").status().as_u16();
    assert_eq!((asked("192.0.2.1"), asked("127.0.0.1")), (401, 200));
}

#[test]
fn one_address_has_so_many_sessions_and_comes_so_fast() {
    let hub = Patchbay::start("[limits]\nper_address_sessions_max = 2\nper_address_new_per_s = 2\n");
    let http = lenient();
    let watch = |client: &str| {
        let reply = http.get(hub.url("/flv/live/a.flv?wait=1")).header("x-forwarded-for", client).call().expect("a reply");
        (reply.status().as_u16(), reply)
    };
    let held: Vec<_> = (0..4).map(|_| watch("192.0.2.1")).collect();
    assert_eq!(held.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 429, 429]);
    assert!(held[2].1.headers().contains_key("retry-after"));
    assert_eq!(watch("192.0.2.2").0, 200, "another address has its own");
    drop(held);
    wait_for("places to be given back", Duration::from_secs(5), || (hub.pairs("http-flv").is_empty()).then_some(()));
    let fast: Vec<_> = (0..8).map(|_| watch("192.0.2.1").0).collect();
    assert!(fast[0] == 200 && fast[7] == 429, "{fast:?}");
    let counted = hub.get("/v1/refusals");
    let row = |r: &&Value| r["wanted"] == "play" && r["code"] == "address_limit";
    assert!(
        counted["refusals"].as_array().and_then(|all| all.iter().find(row)).is_some_and(|r| r["count"].as_u64() >= Some(3)),
        "{counted}"
    );
    let metrics = http.get(hub.url("/metrics")).call().expect("a reply").body_mut().read_to_string().expect("text");
    assert!(
        metrics.contains("patchbay_refused_total{wanted=\"play\",code=\"address_limit\"}") && !metrics.contains("192.0.2"),
        "{metrics}"
    );
}

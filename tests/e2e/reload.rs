//! The configuration is read again while everything runs: whole or not at all, and no live session notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Patchbay, Watching, fixture, free_port, play, publish, text, turn, wait_for};

/// Reads the configuration again, as the API does it.
fn reload(hub: &Patchbay) -> (u16, Value) {
    let http: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut response = http.post(hub.url("/v1/reload")).send_empty().expect("an answer");
    (response.status().as_u16(), response.body_mut().read_json().expect("JSON"))
}

fn publish_key(key: &str) -> String {
    format!("[[routes]]\nstream = \"vip/**\"\npublish_key = \"{key}\"\n")
}

#[test]
fn routes_and_pushes_follow_the_file_and_what_must_wait_is_named() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let push = format!("[[pushes]]\nname = \"p\"\nstream = \"live/a\"\nurl = \"rtmp://127.0.0.1:{}/live/a\"\n", free_port());
    hub.rewrite(&format!("{}{push}", publish_key("k")));
    assert_eq!(reload(&hub), (200, json!({ "applied": ["routes", "pushes"], "at_next_start": [] })));
    assert_eq!(hub.get("/v1/pushes")["pushes"][0]["name"], "p");
    let mut refused = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("vip/a"));
    wait_for("the refusal", Duration::from_secs(5), || (!refused.is_running()).then_some(()));
    let _source = publish(&fixture("baseline-360p.flv"), &format!("{}?key=k", hub.rtmp_url("vip/a")));
    hub.wait_live("vip/a");

    hub.rewrite(&format!("{}[transcode]\nthreads = 1\n", publish_key("other")));
    assert_eq!(reload(&hub), (200, json!({ "applied": ["routes", "pushes"], "at_next_start": ["transcode"] })));
    assert_eq!(hub.get("/v1/pushes")["pushes"], json!([]));
    hub.wait_live("vip/a");
}

#[test]
fn a_wrong_file_changes_nothing_and_a_mended_one_is_taken_by_itself() {
    let _turn = turn();
    let hub = Patchbay::start("");
    hub.rewrite(&format!("{}[limits]\nsessions_mx = 5\n", publish_key("k")));
    let (status, body) = reload(&hub);
    assert_eq!((status, text(&body["code"]).as_str()), (422, "unprocessable"), "{body}");
    assert!(text(&body["detail"]).contains("limits.sessions_mx: unknown key; did you mean \"sessions_max\"?"), "{body}");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("vip/a"));
    hub.wait_live("vip/a");
    hub.rewrite("[limits]\nsessions_max = 1\n");
    wait_for("the limit", Duration::from_secs(8), || {
        ureq::get(hub.url("/live/vip/a.flv")).call().is_err_and(|e| e.to_string().contains("503")).then_some(())
    });
    assert!(hub.log().contains("configuration read again"), "{}", hub.log());
}

#[test]
fn fifty_reloads_a_second_cost_no_viewer_a_frame() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let mut player = play(&hub.rtmp_url("live/a"));
    let viewer = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/a"), "--stamp", "n"]);
    wait_for("both", Duration::from_secs(20), || (hub.get("/v1/pairs")["pairs"].as_array()?.len() == 2).then_some(()));
    let seconds = std::env::var("RELOAD_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let (begin, mut times) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_secs(seconds) {
        let rules = format!("[[rules]]\nname = \"r{times}\"\nto = [\"h5\"]\nvideo = {{ codec = \"mpeg1\", fps = {} }}\n", 10 + times % 20);
        hub.rewrite(&format!("{rules}{}", publish_key(&times.to_string())));
        assert_eq!(reload(&hub), (200, json!({ "applied": ["routes", "rules"], "at_next_start": [] })));
        times += 1;
        std::thread::sleep((begin + Duration::from_millis(20) * times).saturating_duration_since(Instant::now()));
    }
    let seen = viewer.report();
    eprintln!("{times} reloads in {seconds} s");
    assert!(times > 20 * seconds as u32, "{times} reloads in {seconds} s");
    assert_eq!((&seen["stamps"]["shownPct"], &seen["stamps"]["outOfOrder"]), (&json!(100.0), &json!(0)), "{seen}");
    assert!(player.is_running());
    assert!(hub.get("/v1/pairs")["pairs"].as_array().is_some_and(|all| all.iter().all(|pair| pair["skipped"] == 0 && pair["lost"] == 0)));
}

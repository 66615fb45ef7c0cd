//! Rules are replaced while everything runs: what would change is told before, and who is not concerned does not notice.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::socket::SocketViewer;
use crate::support::{Patchbay, fixture, play, publish, text, turn, wait_for};

fn send(hub: &Patchbay, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let http: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = match method {
        "PUT" => http.put(hub.url(path)),
        _ => http.post(hub.url(path)),
    };
    let mut response = request.send_json(body).expect("an answer");
    (response.status().as_u16(), response.body_mut().read_json().expect("JSON"))
}

fn frames(hub: &Patchbay, protocol: &str) -> u64 {
    hub.pairs(protocol).first().and_then(|p| p["frames"].as_u64()).unwrap_or(0)
}

fn rendition(hub: &Patchbay) -> String {
    hub.pairs("h5").first().map(|p| text(&p["video"]["rendition"])).unwrap_or_default()
}

#[test]
fn a_table_is_planned_then_put_in_force_and_only_its_pairs_go_over() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/a"));
    hub.wait_live("live/a");
    let mut player = play(&hub.rtmp_url("live/a"));
    let viewer = SocketViewer::open(&hub, "live/a");
    wait_for("both sinks", Duration::from_secs(10), || (frames(&hub, "rtmp") > 10 && frames(&hub, "h5") > 10).then_some(()));
    let before = (hub.pairs("h5")[0]["id"].clone(), hub.pairs("rtmp")[0]["id"].clone());

    let slow = json!({ "rules": [{ "name": "slow", "to": ["h5"], "video": { "codec": "mpeg1", "bitrate_kbps": 500, "fps": 15 } }] });
    let (status, plan) = send(&hub, "POST", "/v1/rules/plan", &slow);
    assert_eq!(status, 200, "{plan}");
    assert_eq!((plan["unchanged"].as_u64(), plan["changed"].as_array().map(Vec::len)), (Some(1), Some(1)), "{plan}");
    let changed = &plan["changed"][0];
    assert_eq!((text(&changed["rule"]).as_str(), &changed["id"]), ("slow", &before.0), "{plan}");
    assert!(text(&changed["video"]["then"]).contains("15fps-500k"), "{plan}");
    assert_eq!(plan["start"][0]["target"], changed["video"]["then"], "{plan}");
    assert_eq!(plan["stop"][0]["target"], changed["video"]["now"], "{plan}");
    assert!(plan["start"][0]["cores"].as_f64() < plan["stop"][0]["cores"].as_f64() && plan["fits"] == true, "{plan}");
    assert!(plan["cores_then"].as_f64() < plan["cores_now"].as_f64(), "{plan}");
    assert!(!rendition(&hub).contains("15fps"), "planning changes nothing");
    let as_planned = plan;

    let (status, done) = send(&hub, "PUT", "/v1/rules", &slow);
    assert_eq!((status, &done["changed"]), (200, &as_planned["changed"]));
    wait_for("the slower picture", Duration::from_secs(5), || rendition(&hub).contains("15fps-500k").then_some(()));
    assert_eq!(
        hub.get("/v1/rules"),
        json!({ "rules": [
        { "name": "slow", "to": ["h5"], "stream": "**", "video": { "codec": "mpeg1", "bitrate_kbps": 500, "fps": 15 }, "audio": "auto" }
    ] })
    );
    wait_for("the old encoder to stop", Duration::from_secs(3), || (hub.renditions().len() == 2).then_some(()));
    viewer.wait_for_more();
    let (h5, rtmp) = (frames(&hub, "h5"), frames(&hub, "rtmp"));
    wait_for("frames for both", Duration::from_secs(5), || (frames(&hub, "h5") > h5 && frames(&hub, "rtmp") > rtmp).then_some(()));
    assert_eq!(before, (hub.pairs("h5")[0]["id"].clone(), hub.pairs("rtmp")[0]["id"].clone()), "the same sessions");
    assert!(viewer.is_open() && player.is_running());
    assert_eq!(hub.pairs("rtmp")[0]["skipped"], 0);
}

#[test]
fn bad_rules_are_refused_whole_with_the_place() {
    let hub = Patchbay::start("");
    let bad = json!({ "rules": [{ "to": ["h5"] }, { "to": ["h5"], "video": { "codec": "mpeg1", "fps": 999 } }] });
    for (method, path) in [("PUT", "/v1/rules"), ("POST", "/v1/rules/plan")] {
        let (status, body) = send(&hub, method, path, &bad);
        assert_eq!((status, text(&body["code"]).as_str()), (400, "bad_request"), "{body}");
        assert!(text(&body["detail"]).contains("rules[1].video") && text(&body["detail"]).contains("1 to 120 is possible"), "{body}");
    }
    assert_eq!(hub.get("/v1/rules"), json!({ "rules": [] }));
}

#[test]
fn a_hangup_reads_the_rules_again_and_a_broken_file_leaves_them() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let hang_up = || assert!(Command::new("kill").args(["-HUP", &hub.id().to_string()]).status().is_ok_and(|s| s.success()));
    let names = || hub.get("/v1/rules")["rules"].as_array().map(|rules| rules.iter().map(|r| text(&r["name"])).collect::<Vec<_>>());
    hub.rewrite("[[rules]]\nname = \"quiet\"\naudio = \"drop\"\n");
    hang_up();
    wait_for("the new rule", Duration::from_secs(5), || (names() == Some(vec!["quiet".into()])).then_some(()));
    hub.rewrite("[[rules]]\nname = \"loud\"\naudio = \"shout\"\n");
    hang_up();
    wait_for("the refusal", Duration::from_secs(5), || hub.log().contains("configuration not read again").then_some(()));
    assert!(hub.log().contains("rules[0].audio"), "{}", hub.log());
    assert_eq!(names(), Some(vec!["quiet".to_owned()]));
}

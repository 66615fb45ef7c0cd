//! The transcode budget: what does not fit steps down or is refused with a reason, and what passes through never notices.

use std::time::Duration;

use serde_json::Value;

use crate::socket::SocketViewer;
use crate::support::{Patchbay, Proc, fixture, publish, root, text, turn, wait_for};

/// Small pictures made large cost much to encode and nothing to publish.
const DEAR: &str = "[[rules]]\nname = \"dear\"\nto = [\"h5\"]\nvideo = { codec = \"mpeg1\", size = \"1280x720\" }\n";

fn sources(hub: &Patchbay, count: usize) -> Vec<Proc> {
    let all = (0..count).map(|n| publish(&fixture("baseline-360p.flv"), &hub.rtmp_url(&format!("live/s{n}")))).collect();
    (0..count).for_each(|n| hub.wait_live(&format!("live/s{n}")));
    all
}

fn video_of(pairs: &[Value], code: &str) -> Vec<String> {
    pairs.iter().filter(|p| p["video"]["code"] == code).map(|p| text(&p["video"]["reason"])).collect()
}

/// Plays over RTMP and reads the number of each picture.
fn stamps_over_rtmp(url: String) -> std::thread::JoinHandle<Value> {
    std::thread::spawn(move || {
        let mut command = std::process::Command::new(root().join(".venv/bin/python"));
        command.arg(root().join("tests/clients/stamp.py")).args(["read", &url, "--kind", "n", "--seconds", "12"]);
        let out = command.output().expect("the reader runs");
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
    })
}

#[test]
fn three_times_too_much_steps_down_and_refuses_and_costs_a_passing_pair_nothing() {
    let _turn = turn();
    let hub = Patchbay::start(&format!("[transcode]\ncpu_budget = 0.26\nladder = [\"fps\"]\n{DEAR}"));
    let _sources = sources(&hub, 6);
    let passing = stamps_over_rtmp(hub.rtmp_url("live/s0"));
    wait_for("the passing player", Duration::from_secs(10), || (hub.pairs("rtmp").len() == 1).then_some(()));

    let viewers: Vec<_> = (0..6).map(|n| SocketViewer::open(&hub, &format!("live/s{n}"))).collect();
    let load = || hub.get("/v1/load");
    wait_for("the step down", Duration::from_secs(5), || (load()["level"] == 1).then_some(()));
    assert_eq!(load()["steps"], serde_json::json!(["fps"]));
    let refused = wait_for("refusals", Duration::from_secs(5), || {
        let pairs = hub.pairs("h5");
        (pairs.len() == 6).then(|| video_of(&pairs, "budget_spent")).filter(|r| !r.is_empty())
    });
    assert!(refused[0].contains("transcode budget of 0.26 cores is spent (transcode.cpu_budget"), "{refused:?}");
    let pairs = hub.pairs("h5");
    let running: Vec<_> = pairs.iter().filter(|p| p["video"]["action"] == "transcode").collect();
    assert!(!running.is_empty() && running.len() < 6, "{running:?}");
    for pair in running {
        assert!(text(&pair["video"]["rendition"]).contains("mpeg1-1280x720-15fps"), "{pair}");
        assert!(text(&pair["video"]["reason"]).contains("stepped down (fps)"), "{pair}");
    }
    // Sound costs so little that all have it.
    assert!(pairs.iter().all(|p| p["audio"]["action"] == "transcode"), "{pairs:?}");
    assert!(viewers.iter().all(SocketViewer::is_open), "nobody is cut");

    let seen = passing.join().expect("the reader ends");
    assert_eq!((seen["stamps"]["shownPct"].as_f64(), seen["stamps"]["longestGapFrames"].as_u64()), (Some(100.0), Some(0)), "{seen}");
    assert!(load()["used_cores"].as_f64() < Some(0.26 * 1.3), "{}", load());
    let metrics = ureq::get(hub.url("/metrics")).call().expect("metrics").body_mut().read_to_string().expect("text");
    assert!(
        metrics.contains("patchbay_transcode_step_down 1\n") && metrics.contains("patchbay_transcode_budget_cores 0.26\n"),
        "{metrics}"
    );

    // All but one leave: that one gets its full rate back, without a new session.
    let session = hub.pairs("h5").iter().find(|p| p["stream"] == "live/s0").map(|p| p["id"].clone());
    let mut viewers = viewers.into_iter();
    let first = viewers.next().expect("six");
    drop(viewers);
    wait_for("the step up", Duration::from_secs(20), || {
        let pairs = hub.pairs("h5");
        let full = pairs.len() == 1 && text(&pairs[0]["video"]["rendition"]).contains("mpeg1-1280x720-4000k");
        full.then(|| assert_eq!(Some(&pairs[0]["id"]), session.as_ref()))
    });
    first.wait_for_more();
}

#[test]
fn with_no_budget_at_all_sound_goes_on_alone() {
    let _turn = turn();
    let hub = Patchbay::start(&format!("[transcode]\ncpu_budget = 0.015\n{DEAR}"));
    let _sources = sources(&hub, 1);
    let viewer = SocketViewer::open(&hub, "live/s0");
    let pair = wait_for("the pair", Duration::from_secs(5), || hub.pairs("h5").first().cloned());
    assert_eq!((text(&pair["video"]["action"]).as_str(), text(&pair["video"]["code"]).as_str()), ("drop", "budget_spent"), "{pair}");
    assert_eq!(text(&pair["audio"]["action"]), "transcode", "{pair}");
    viewer.wait_for_more();
}

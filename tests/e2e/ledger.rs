//! What `matrix explain` predicts, what `/v1/pairs` shows and what goes over the wire are the same.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Patchbay, aiortc_in_background, browser_in_background, fixture, play, probe, publish, text, turn, wait_for};

fn explain(from: &str, to: &str, video: &str, audio: &str) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_patchbay"))
        .args(["matrix", "explain", "--from", from, "--to", to, "--video", video, "--audio", audio, "--json"])
        .output()
        .expect("patchbay runs");
    let all: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stderr)));
    all["plan"].clone()
}

/// Action and reason code per track, by `explain`.
#[track_caller]
fn assert_agrees(pair: &Value, predicted: &Value) {
    for kind in ["video", "audio"] {
        for field in ["action", "code"] {
            assert_eq!(pair[kind][field], predicted[kind][field], "{kind}.{field}\nledger: {pair}\nexplain: {predicted}");
        }
    }
    assert_eq!(pair["rule"]["id"], predicted["rule"]["id"], "ledger: {pair}\nexplain: {predicted}");
}

#[test]
fn the_matrix_is_printed_with_the_cells_of_the_mission() {
    let out = Command::new(env!("CARGO_BIN_EXE_patchbay")).arg("matrix").output().expect("patchbay runs");
    let table = String::from_utf8_lossy(&out.stdout).into_owned();
    let row = |name: &str| {
        let line = table.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_else(|| panic!("no row {name} in\n{table}"));
        line.split(|c: char| c.is_whitespace() || c == '|' || c == '│')
            .filter(|w| ["=", "A", "V", "?"].contains(w))
            .take(6)
            .collect::<String>()
    };
    let rows =
        [("webrtc", "=VAA?A"), ("h5", "V=VVVV"), ("miniprogram", "AV==?="), ("rtmp", "AV==?="), ("udp", "?V??=?"), ("cdn", "AV==?=")];
    for (kind, cells) in rows {
        assert_eq!(row(kind), cells, "row {kind} of\n{table}");
    }
}

#[test]
fn rtmp_to_webrtc_and_rtmp_agree_in_prediction_ledger_and_on_the_wire() {
    let _turn = turn();
    for (file, video) in [("baseline-360p.flv", "h264:baseline"), ("bframes-360p.flv", "h264:high:bframes=2")] {
        let hub = Patchbay::start("");
        let _source = publish(&fixture(file), &hub.rtmp_url("live/a"));
        hub.wait_live("live/a");
        let _viewer = browser_in_background(&["--whep", &hub.url("/whep/live/a"), "--no-stamp", "--seconds", "15"]);
        let _player = play(&hub.rtmp_url("live/a"));
        wait_for("both sinks", Duration::from_secs(20), || (hub.pairs("whep").len() == 1 && hub.pairs("rtmp").len() == 1).then_some(()));
        assert_agrees(&hub.pairs("whep")[0], &explain("rtmp", "webrtc", video, "aac:44100:2"));
        assert_agrees(&hub.pairs("rtmp")[0], &explain("rtmp", "rtmp", video, "aac:44100:2"));
        let seen = probe(&hub.rtmp_url("live/a"), 1);
        let pair = &hub.pairs("rtmp")[0];
        assert_eq!((seen.codec("video"), seen.codec("audio")), (text(&pair["video"]["output"]), text(&pair["audio"]["output"])));
    }
}

#[test]
fn webrtc_to_rtmp_agrees_in_prediction_ledger_and_on_the_wire() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = aiortc_in_background(&["whip", &hub.url("/whip/live/w"), "--seconds", "25"]);
    hub.wait_live("live/w");
    let _player = play(&hub.rtmp_url("live/w"));
    wait_for("the player", Duration::from_secs(10), || (hub.pairs("rtmp").len() == 1).then_some(()));
    assert_agrees(&hub.pairs("rtmp")[0], &explain("webrtc", "rtmp", "h264:baseline", "opus:48000:2"));
    let seen = probe(&hub.rtmp_url("live/w"), 2);
    let pair = &hub.pairs("rtmp")[0];
    assert_eq!((seen.codec("video"), seen.codec("audio")), (text(&pair["video"]["output"]), text(&pair["audio"]["output"])));
}

#[test]
fn a_user_rule_comes_before_the_matrix_and_a_route_names_the_kind() {
    let _turn = turn();
    let hub = Patchbay::start(
        "[[rules]]\nname = \"mute\"\nfrom = [\"miniprogram\"]\nto = [\"miniprogram\"]\nstream = \"wx/*\"\naudio = \"drop\"\n\
         [[routes]]\nstream = \"wx/**\"\nkind = \"miniprogram\"\n",
    );
    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("wx/a"));
    hub.wait_live("wx/a");
    let _player = play(&hub.rtmp_url("wx/a"));
    wait_for("the player", Duration::from_secs(10), || (hub.pairs("rtmp").len() == 1).then_some(()));
    let pair = &hub.pairs("rtmp")[0];
    assert_eq!((text(&pair["from"]).as_str(), text(&pair["to"]).as_str()), ("miniprogram", "miniprogram"));
    assert_eq!((text(&pair["rule"]["id"]).as_str(), text(&pair["audio"]["action"]).as_str()), ("mute", "drop"));
    let seen = probe(&hub.rtmp_url("wx/a"), 1);
    assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", ""));
}

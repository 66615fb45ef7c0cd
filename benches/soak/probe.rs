//! A real browser that looks in now and then, on a clean path.

use std::process::Command;

use serde_json::{Value, json};

/// Seconds that one is measured for.
const SECONDS: &str = "15";

/// What Chromium saw of `url`; blocks.
pub fn look(url: &str) -> Value {
    let clients = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    let mut command = Command::new("timeout");
    command.current_dir(clients).args(["-k", "2", "90", "node", "browser.mjs", "--whep", url, "--codec", "H264"]);
    let output = command.args(["--stamp", "n", "--seconds", SECONDS]).output().expect("timeout(1) runs");
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let video = &seen["stats"][0]["in"]["video"];
    json!({
        "ok": seen["ok"],
        "error": seen["error"],
        "shown_pct": seen["stamps"]["shownPct"],
        "longest_gap_ms": seen["stamps"]["longestGapMs"],
        "lip_sync_ms": seen["lipSyncMs"]["p50"],
        "playout_offset_ms": seen["playoutOffsetMs"]["p50"],
        "freezes": video["freezeCount"],
        "frames_dropped": video["framesDropped"],
    })
}

//! The arrows between the crates point one way: `src → gateways → contract → matrix`, `src → transcode → matrix`.

use std::collections::BTreeMap;
use std::process::Command;

/// Which of our crates each of our crates may know. A new gateway is one more line.
const ALLOWED: &[(&str, &[&str])] = &[
    ("patchbay-media", &[]),
    ("patchbay-bus", &["patchbay-media"]),
    ("patchbay-rules", &["patchbay-media"]),
    ("patchbay-transcode", &["patchbay-media", "patchbay-bus"]),
    ("patchbay-contract", &["patchbay-media", "patchbay-bus", "patchbay-rules"]),
    ("patchbay-rtp", &["patchbay-media"]),
    ("patchbay-inbound", &[]),
    ("patchbay-outbound", &[]),
    ("patchbay-rtmp", GATEWAY),
    ("patchbay-webrtc", GATEWAY),
    ("patchbay-h5", GATEWAY),
    ("patchbay-certificates", &[]),
    ("patchbay-impair", &[]),
    ("patchbay-seeds", &[]),
];

/// What a gateway may know: the seam and what lies below it, never another gateway nor the transcoder.
const GATEWAY: &[&str] =
    &["patchbay-contract", "patchbay-media", "patchbay-bus", "patchbay-rules", "patchbay-rtp", "patchbay-inbound", "patchbay-outbound"];

/// Libraries that must not reach the pure middle.
const BANNED_IN_MATRIX: &[&str] = &["tokio", "axum", "str0m", "ffmpeg-next", "opus", "fdk-aac"];

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()
        .expect("cargo metadata runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let normal = |d: &&serde_json::Value| d["kind"].is_null();
    let of = |p: &serde_json::Value| p["dependencies"].as_array().into_iter().flatten().filter(normal).map(|d| text(&d["name"])).collect();
    metadata["packages"].as_array().expect("packages").iter().map(|p| (text(&p["name"]), of(p))).collect()
}

#[test]
fn crates_know_only_what_lies_below_them() {
    let all = dependencies();
    for (name, deps) in &all {
        let ours: Vec<_> = deps.iter().filter(|d| d.starts_with("patchbay-")).collect();
        if name == "patchbay" {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name} has no line in ALLOWED")).1;
        for dep in ours {
            assert!(allowed.contains(&dep.as_str()), "{name} must not know {dep}");
        }
    }
    assert!(all.len() > ALLOWED.len(), "the workspace was read: {:?}", all.keys());
}

#[test]
fn the_middle_knows_no_runtime_and_no_codec_library() {
    let all = dependencies();
    for name in ["patchbay-media", "patchbay-bus", "patchbay-rules"] {
        for banned in BANNED_IN_MATRIX {
            assert!(!all[name].iter().any(|d| d == banned), "{name} must not know {banned}");
        }
    }
}

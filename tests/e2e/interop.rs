//! The matrix as a test: `patchbay interop` with every client, with a converter taken away, and against a running deployment.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Patchbay, root, text, turn};

const KINDS: [&str; 5] = ["webrtc", "h5", "miniprogram", "rtmp", "cdn"];

/// A file of this run.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("interop-{}-{name}", std::process::id()))
}

/// Runs the tool to its end, or asks it to stop when it hangs.
fn interop(args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "20", "400", env!("CARGO_BIN_EXE_patchbay"), "interop", "--strict"]).args(args);
    command.current_dir(root()).stdin(Stdio::null()).output().expect("timeout(1) runs")
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn cells(json: &Path) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("the report is written")).expect("it is JSON");
    report["cells"].as_array().expect("cells").clone()
}

fn pair(cell: &Value) -> (String, String) {
    (text(&cell["from"]), text(&cell["to"]))
}

/// Every viewer of a green cell saw enough, heard something, and got what its row of the ledger names.
fn assert_proven(cell: &Value) {
    let ways: &[&str] = match cell["to"].as_str() {
        Some("webrtc") => &["WHEP"],
        Some("h5") => &["WebSocket"],
        Some("cdn") => &["push"],
        _ => &["RTMP", "HTTP-FLV"],
    };
    let legs = cell["legs"].as_array().expect("legs");
    assert_eq!(legs.iter().map(|leg| text(&leg["way"])).collect::<Vec<_>>(), ways, "{cell:#}");
    for leg in legs {
        let (seen, row) = (&leg["observed"], &leg["row"]);
        assert_eq!((text(&row["from"]), text(&row["to"])), pair(cell), "{leg:#}");
        for kind in ["video", "audio"] {
            assert_eq!(seen[kind], row[kind]["output"], "{leg:#}");
        }
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let shown = number(&seen["stamps"]["distinct"]) + number(&seen["unread"]);
        assert!(shown >= 0.95 * number(&seen["stamps"]["expected"]) && shown >= 60.0, "{leg:#}");
        assert!(number(&seen["loudness"]) > 0.01, "{leg:#}");
    }
}

/// The table in a page's measured section.
fn table(page: &Path) -> Vec<String> {
    let page = std::fs::read_to_string(page).expect("the page");
    let section = page.split("<!-- interop: begin -->").nth(1).expect("the marker");
    let section = section.split("<!-- interop: end -->").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect()
}

#[test]
fn every_cell_of_the_five_kinds_is_green_and_the_page_says_so() {
    let _turn = turn();
    let (json, page) = (scratch("grid.json"), scratch("matrix.md"));
    std::fs::copy(root().join("docs/matrix.md"), &page).expect("the page is copied");
    let out = interop(&["--json", json.to_str().expect("utf-8"), "--markdown", page.to_str().expect("utf-8")]);
    assert!(out.status.success(), "{}", said(&out));
    let cells = cells(&json);
    let wanted: BTreeSet<_> = KINDS.iter().flat_map(|from| KINDS.map(|to| ((*from).to_owned(), to.to_owned()))).collect();
    assert_eq!(cells.iter().map(pair).collect::<BTreeSet<_>>(), wanted);
    cells.iter().for_each(assert_proven);
    assert_eq!(table(&page), table(&root().join("docs/matrix.md")), "docs/matrix.md is stale: patchbay interop --markdown docs/matrix.md");
}

#[test]
fn without_one_encoder_exactly_the_cells_that_need_it_are_red() {
    let _turn = turn();
    let json = scratch("red.json");
    let without = ["--set", "transcode.disable_encoders=mpeg1"];
    let out = interop(&[&without[..], &["--to", "h5", "--to", "rtmp", "--json", json.to_str().expect("utf-8")]].concat());
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let cells = cells(&json);
    assert_eq!(cells.len(), 10);
    for cell in &cells {
        let (from, to) = pair(cell);
        if to == "h5" && from != "h5" {
            assert_eq!(cell["state"], "red", "{cell:#}");
            let why = text(&cell["reason"]);
            let wanted =
                "no pictures; ledger: video drop: video is left out: h264 is not taken by h5, and there is no encoder for what h5 takes";
            assert_eq!(why, format!("WebSocket: {wanted}"));
        } else {
            assert_eq!(cell["state"], "green", "{cell:#}");
            assert_proven(cell);
        }
    }
}

#[test]
fn a_running_deployment_with_keys_is_tested_from_outside() {
    let _turn = turn();
    let hub = Patchbay::start(
        "[api]\ntoken = \"letmein\"\n[[routes]]\nstream = \"probe/**\"\npublish_key = \"p&k\"\nplay_key = \"p&k\"\n\
         [[rules]]\nfrom = [\"cdn\"]\nto = [\"miniprogram\"]\nvideo = { codec = \"h264\", bitrate_kbps = 700 }\n",
    );
    let (url, json) = (hub.url(""), scratch("outside.json"));
    let common = ["--url", &url, "--app", "probe", "--from", "cdn", "--to", "miniprogram", "--seconds", "3"];
    let out = interop(&common);
    assert!(out.status.code() == Some(1) && said(&out).contains("give --token"), "{}", said(&out));

    let keyed = [&common[..], &["--token", "letmein", "--key", "p&k", "--json", json.to_str().expect("utf-8")]].concat();
    let out = interop(&keyed);
    assert!(out.status.success(), "{}", said(&out));
    let cells = cells(&json);
    assert_proven(&cells[0]);
    assert_eq!(text(&cells[0]["legs"][0]["row"]["video"]["action"]), "transcode", "its own rules hold there");
    assert_eq!(text(&cells[0]["source"]), "FFmpeg through nginx-rtmp");
    let everything = format!("{}{}", said(&out), std::fs::read_to_string(&json).unwrap_or_default());
    assert!(!everything.contains("p&k") && !everything.contains("letmein"), "keys are shown to nobody:\n{everything}");
}

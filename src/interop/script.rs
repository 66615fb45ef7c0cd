//! The players that are scripts: Chromium and aiortc over WHEP, stock jsmpeg in Chromium.
//!
//! Each prints one JSON object (tests/clients/README.md); here it becomes what was seen and heard. Refuses: to judge it.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::Process;
use super::stamp::Counts;
use super::tools::{Script, WebrtcClient};
use super::{Bench, FPS, Fault, Observed, SETTLE};

/// How long a script may take beyond the seconds it is to watch: a browser starts and ends within.
const OVERHEAD_MAX: Duration = Duration::from_secs(30);
/// Chromium renders WebRTC's sound at this rate.
const BROWSER_RATE: f64 = 48_000.0;

/// Watches the stream over WHEP.
///
/// # Errors
/// When the client is missing or cannot be started.
pub fn whep(bench: &Bench, stream: &str, counts: Counts) -> Result<Observed, Fault> {
    let (client, script) = bench.tools.webrtc().map_err(Fault::Missing)?;
    let url = bench.deployment.url(&format!("/whep/{stream}"), &[]);
    let mut command = script.command();
    match client {
        WebrtcClient::Chromium => command.args(["--whep", url.as_str()]),
        WebrtcClient::Aiortc => command.args(["whep", url.as_str(), "--sdp"]),
    };
    if let Some(key) = bench.deployment.key() {
        command.args(["--token", key]);
    }
    let report = run(bench, command, counts)?;
    Ok(match client {
        WebrtcClient::Chromium => of_browser(&report),
        WebrtcClient::Aiortc => of_aiortc(&report, watched(bench)),
    })
}

/// Watches the stream with stock jsmpeg.
///
/// # Errors
/// When the client is missing or cannot be started.
pub fn jsmpeg(bench: &Bench, stream: &str, counts: Counts) -> Result<Observed, Fault> {
    let script: &Script = bench.tools.jsmpeg.as_ref().map_err(Fault::missing)?;
    let mut url = bench.deployment.url(&format!("/h5/{stream}"), &[]);
    // http is as special a scheme as ws: this change cannot fail.
    _ = url.set_scheme("ws");
    let mut command = script.command();
    command.arg(url.as_str());
    Ok(of_jsmpeg(&run(bench, command, counts)?, watched(bench)))
}

/// How long a script looks on.
fn watched(bench: &Bench) -> Duration {
    SETTLE + bench.seconds
}

fn run(bench: &Bench, mut command: Command, counts: Counts) -> Result<Value, Fault> {
    let watch = watched(bench);
    command.args(["--seconds", &watch.as_secs_f64().to_string(), "--stamp", counts.word(), "--fps", &FPS.to_string()]);
    let mut process = Process::start(&mut command, &bench.space).map_err(Fault::Failed)?;
    if !process.ended_by(Instant::now() + watch + OVERHEAD_MAX, &bench.stop) {
        return Err(Fault::Failed(format!("its client did not end within {} s", (watch + OVERHEAD_MAX).as_secs())));
    }
    let printed = process.printed();
    let report = printed.find('{').and_then(|start| serde_json::from_str(&printed[start..]).ok());
    report.ok_or_else(|| Fault::Failed(format!("its client said nothing of use: {}", process.last_words(&bench.space))))
}

/// What all reports have in common.
fn common(report: &Value, client: &str) -> Observed {
    Observed {
        client: client.into(),
        pictures: report["frames"]["presented"].as_u64().unwrap_or(0),
        // Nothing seen, nothing stamped.
        stamps: serde_json::from_value(report["stamps"].clone()).unwrap_or_default(),
        unread: report["frames"]["unread"].as_u64().unwrap_or(0),
        loudness: report["audio"]["rms"].as_f64().unwrap_or(0.0),
        complaint: report["error"].as_str().map(str::to_owned),
        ..Observed::default()
    }
}

fn of_browser(report: &Value) -> Observed {
    let inbound = &report["stats"][0]["in"];
    let codec = |kind: &str| Some(inbound[kind]["codec"].as_str()?.rsplit('/').next()?.to_ascii_lowercase());
    let samples = |name: &str| inbound["audio"][name].as_f64().unwrap_or(0.0);
    Observed {
        video: codec("video"),
        audio: codec("audio"),
        // What was made up because nothing came is no sound that was heard.
        listened_s: samples("totalSamplesReceived") / BROWSER_RATE,
        sound_s: (samples("totalSamplesReceived") - samples("concealedSamples")) / BROWSER_RATE,
        ..common(report, &chromium(report))
    }
}

fn of_aiortc(report: &Value, watched: Duration) -> Observed {
    let answer = report["answer"].as_str().unwrap_or_default();
    Observed { video: negotiated(answer, "video"), audio: negotiated(answer, "audio"), ..with_samples(report, "aiortc", watched) }
}

fn of_jsmpeg(report: &Value, watched: Duration) -> Observed {
    let seen = with_samples(report, &format!("jsmpeg in {}", chromium(report)), watched);
    // It has no other decoders: what it shows is MPEG-1, what it sounds is MP2.
    let (video, audio) = ((seen.pictures > 0).then(|| "mpeg1".into()), (seen.sound_s > 0.0).then(|| "mp2".into()));
    Observed { video, audio, ..seen }
}

/// The browser with its main version.
fn chromium(report: &Value) -> String {
    let version = report["chromium"].as_str().and_then(|version| version.split('.').next());
    version.map_or_else(|| "Chromium".into(), |version| format!("Chromium {version}"))
}

/// Sound by its samples, beside the time since the first picture.
fn with_samples(report: &Value, client: &str, watched: Duration) -> Observed {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let (samples, rate) = (number(&report["audio"]["samples"]), number(&report["audio"]["rate"]).max(1.0));
    let listened_s = watched.as_secs_f64() - number(&report["firstFrameMs"]) / 1e3;
    Observed { listened_s, sound_s: samples / rate, ..common(report, client) }
}

/// The codec an SDP answer names first for a kind of media.
fn negotiated(answer: &str, kind: &str) -> Option<String> {
    let mut lines = answer.lines().skip_while(|line| !line.starts_with(&format!("m={kind} ")));
    // m=video 9 UDP/TLS/RTP/SAVPF 102 …
    let payload_type = lines.next()?.split(' ').nth(3)?;
    let map = lines.find_map(|line| line.strip_prefix(&format!("a=rtpmap:{payload_type} ")))?;
    Some(map.split('/').next()?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_browsers_report_is_understood() {
        let inbound = json!({
            "video": { "codec": "video/H264" },
            "audio": { "codec": "audio/opus", "totalSamplesReceived": 96_000, "concealedSamples": 48_000 },
        });
        let seen = of_browser(&json!({
            "ok": true, "chromium": "148.0.7778.96", "frames": { "presented": 210, "unread": 3 }, "audio": { "seconds": 7, "rms": 0.15 },
            "stamps": { "distinct": 149, "expected": 150, "outOfOrder": 0, "longestGapFrames": 1, "first": 5, "last": 154, "read": 149 },
            "stats": [{ "in": inbound }],
        }));
        assert_eq!((seen.client.as_str(), seen.video.as_deref(), seen.audio.as_deref()), ("Chromium 148", Some("h264"), Some("opus")));
        assert_eq!((seen.pictures, seen.stamps.distinct, seen.unread), (210, 149, 3));
        assert_eq!((seen.listened_s, seen.sound_s, seen.loudness, seen.complaint), (2.0, 1.0, 0.15, None));
    }

    #[test]
    fn a_player_that_saw_nothing_names_no_codec() {
        let nothing =
            json!({ "ok": false, "frames": { "presented": 0 }, "stamps": { "first": null }, "audio": { "samples": 0, "rate": null } });
        let seen = of_jsmpeg(&nothing, Duration::from_secs(7));
        assert_eq!((seen.video, seen.audio, seen.pictures, seen.sound_s), (None, None, 0, 0.0));
        let seen = of_browser(&json!({ "ok": false, "error": "not connected" }));
        assert_eq!((seen.video, seen.complaint.as_deref()), (None, Some("not connected")));
    }

    #[test]
    fn the_answer_names_the_codec() {
        let answer = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/48000/2\r\nm=video 9 UDP/TLS/RTP/SAVPF 102 103\r\n\
                      a=rtpmap:103 rtx/90000\r\na=rtpmap:102 H264/90000\r\n";
        assert_eq!((negotiated(answer, "video").as_deref(), negotiated(answer, "audio").as_deref()), (Some("h264"), Some("opus")));
        assert_eq!(negotiated("", "video"), None);
    }
}

//! Publishers that vanish, return as something else, take over from each other or stand by: nobody who watches is cut.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Client, Patchbay, Proc, Watching, fixture, free_port, nginx, publish, text, turn, wait_for};

/// A group of pictures of any source here.
pub const GROUP: Duration = Duration::from_secs(2);
/// What a machine where others work too adds.
pub const SLACK: Duration = Duration::from_millis(700);
const KEYED: &str = "[[routes]]\nstream = \"**\"\npublish_key = \"k\"\n";

/// Everybody who watches `live/s`: WHEP, RTMP, HTTP-FLV, and a push to another server.
pub struct Audience {
    whep: Watching,
    players: [Proc; 2],
    _origin: Proc,
    sessions: Vec<Value>,
}

impl Audience {
    pub fn gather(hub: &Patchbay) -> Self {
        let (rtmp, http) = (free_port(), free_port());
        let origin = nginx(rtmp, http);
        let body = serde_json::json!({"name": "p", "stream": "live/s", "url": format!("rtmp://127.0.0.1:{rtmp}/live/s")});
        ureq::post(hub.url("/v1/pushes")).send_json(&body).expect("the push is accepted");
        let players = [hub.rtmp_url("live/s"), hub.url("/live/s.flv")].map(|url| decode(&url));
        let whep = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/s"), "--stamp", "n", "--settle", "0"]);
        wait_for("four pairs", Duration::from_secs(20), || (pairs(hub).len() == 4).then_some(()));
        wait_frames(hub);
        Self { whep, players, _origin: origin, sessions: pairs(hub) }
    }

    /// Asserts that it is still the same, and returns the longest time that the WHEP viewer saw one picture.
    #[track_caller]
    pub fn dismiss(mut self, hub: &Patchbay) -> Duration {
        assert_eq!(pairs(hub), self.sessions, "the same sessions all the time");
        assert!(self.players.iter_mut().all(Proc::is_running), "the players decode all of it");
        assert_eq!(hub.get("/v1/pushes")["pushes"][0]["state"], "live");
        let seen = self.whep.report();
        assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
        Duration::from_millis(seen["stamps"]["longestGapMs"].as_u64().expect("a figure"))
    }
}

/// Plays with a real decoder, which ends when its connection does.
fn decode(url: &str) -> Proc {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-rw_timeout", "30000000", "-i", url, "-f", "null", "-"]);
    Proc::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Number, protocol and stream of every pair.
fn pairs(hub: &Patchbay) -> Vec<Value> {
    let all = hub.get("/v1/pairs")["pairs"].clone();
    all.as_array().into_iter().flatten().map(|pair| serde_json::json!([pair["id"], pair["protocol"]])).collect()
}

/// Until everybody has got a second more.
#[track_caller]
pub fn wait_frames(hub: &Patchbay) {
    let frames = || -> Vec<u64> {
        let all = hub.get("/v1/pairs")["pairs"].clone();
        all.as_array().into_iter().flatten().map(|pair| pair["frames"].as_u64().unwrap_or(0)).collect()
    };
    let before = frames();
    wait_for("frames for everybody", Duration::from_secs(10), || {
        frames().iter().zip(&before).all(|(now, before)| *now > before + 60).then_some(())
    });
}

/// A file that differs from the other fixtures in size, rate and channels, made once.
fn small_mono() -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small-mono.flv");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-t", "20", "-i", &fixture("baseline-360p.flv"), "-s", "426x240", "-r", "25"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-profile:v", "baseline", "-g", "25", "-b:v", "500k"]);
    command.args(["-c:a", "aac", "-ar", "48000", "-ac", "1", "-f", "flv"]).arg(&file);
    assert!(command.status().expect("ffmpeg runs").success(), "{command:?}");
    file.to_string_lossy().into_owned()
}

#[test]
fn everybody_stays_while_a_publisher_is_away_and_returns_as_something_else() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let mut source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/s"));
    hub.wait_live("live/s");
    let audience = Audience::gather(&hub);
    let mut away_max = Duration::ZERO;
    for (pause, file) in [(1, small_mono()), (14, fixture("bframes-360p.flv")), (5, fixture("baseline-360p.flv"))] {
        let gone = Instant::now();
        source.kill();
        std::thread::sleep(Duration::from_secs(pause));
        source = publish(&file, &hub.rtmp_url("live/s"));
        hub.wait_live("live/s");
        away_max = away_max.max(gone.elapsed());
        wait_frames(&hub);
    }
    let dark = audience.dismiss(&hub);
    eprintln!("away for {away_max:?}, one picture for {dark:?}");
    assert!(dark < away_max + GROUP + SLACK, "{dark:?} without a new picture, {away_max:?} without a publisher");
}

#[test]
fn publishers_of_every_shape_take_over_from_each_other_and_nobody_is_cut() {
    let _turn = turn();
    let hub = Patchbay::start(KEYED);
    let url = format!("{}?key=k", hub.rtmp_url("live/s"));
    let files = [fixture("baseline-360p.flv"), small_mono(), fixture("bframes-360p.flv")];
    let mut source = publish(&files[0], &url);
    hub.wait_live("live/s");
    let audience = Audience::gather(&hub);
    let times = std::env::var("TAKEOVERS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for file in files.iter().cycle().skip(1).take(times) {
        let before = publisher(&hub);
        let next = publish(file, &url);
        wait_for("the newest publisher", Duration::from_secs(5), || (publisher(&hub) != before).then_some(()));
        wait_for("the old one's end", Duration::from_secs(5), || (!source.is_running()).then_some(()));
        wait_frames(&hub);
        source = next;
    }
    let dark = audience.dismiss(&hub);
    eprintln!("{times} takeovers, one picture for {dark:?}");
    assert!(dark < GROUP + SLACK, "{dark:?} without a new picture");
}

#[test]
fn a_publisher_that_stands_by_goes_live_when_the_first_is_killed() {
    let _turn = turn();
    let hub = Patchbay::start("[[routes]]\nstream = \"**\"\nsecond_publisher = \"backup\"\n");
    let mut first = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("live/s"));
    hub.wait_live("live/s");
    let audience = Audience::gather(&hub);
    let _second = publish(&fixture("bframes-360p.flv"), &hub.rtmp_url("live/s"));
    let standby = || {
        let all = hub.get("/v1/sessions")["sessions"].clone();
        all.as_array().into_iter().flatten().find(|s| s["standby"] == true).map(|s| s["id"].clone())
    };
    let waiting = wait_for("the second publisher", Duration::from_secs(5), standby);
    std::thread::sleep(GROUP);
    assert_ne!(publisher(&hub), waiting);
    first.kill();
    wait_for("the second to go live", Duration::from_secs(5), || (publisher(&hub) == waiting).then_some(()));
    wait_frames(&hub);
    let dark = audience.dismiss(&hub);
    eprintln!("failover, one picture for {dark:?}");
    assert!(dark < GROUP + SLACK, "{dark:?} without a new picture");
}

fn publisher(hub: &Patchbay) -> Value {
    let all = hub.get("/v1/streams");
    all["streams"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|s| text(&s["name"]) == "live/s")
        .map(|s| s["publisher"].clone())
        .unwrap_or_default()
}

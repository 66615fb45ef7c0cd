//! A mini-program's pusher as it behaves on a phone, scripted: the picture turns and changes its size, the program goes to
//! the background, the network is lost and the pusher connects again, three times.

use std::time::Duration;

use crate::changing::{BASELINE, Changing, Part};
use crate::sources::{Audience, GROUP, SLACK, wait_frames};
use crate::support::{Patchbay, text, turn, wait_for};

const ROUTE: &str = "[[routes]]\nstream = \"live/**\"\nkind = \"miniprogram\"\npublish_key = \"k\"\n";

fn upright(size: &'static str) -> Part {
    Part { size, rate: 48_000, channels: 1, ..Part::of(BASELINE) }
}

fn video(hub: &Patchbay) -> String {
    let all = hub.get("/v1/streams");
    let tracks = all["streams"][0]["tracks"].as_array().cloned().unwrap_or_default();
    tracks.iter().find(|t| t["kind"] == "video").map(|t| text(&t["description"])).unwrap_or_default()
}

#[test]
fn a_phone_that_turns_waits_and_reconnects_loses_no_viewer() {
    let _turn = turn();
    let hub = Patchbay::start(ROUTE);
    let url = format!("{}?key=k", hub.rtmp_url("live/s"));
    let waiting = Part { waiting: true, ..upright("270x480") };
    let mut phone = Changing::publish(&[upright("270x480"), upright("480x270"), waiting, upright("360x640")], &url);
    hub.wait_live("live/s");
    let audience = Audience::gather(&hub);
    assert!(hub.pairs("whep").iter().all(|pair| pair["from"] == "miniprogram"));

    for size in ["480x270", "270x480 2 fps", "360x640"] {
        phone.go_on();
        wait_for(&format!("{size}, not {}", video(&hub)), Duration::from_secs(20), || video(&hub).contains(size).then_some(()));
        if size.ends_with("2 fps") {
            // Three minutes on a phone; sinks are told nothing, and hear silence.
            let seconds = std::env::var("BACKGROUND_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
            std::thread::sleep(Duration::from_secs(seconds));
            hub.wait_live("live/s");
        } else {
            wait_frames(&hub);
        }
    }
    for size in ["270x480", "480x270", "360x640"] {
        phone.freeze();
        std::thread::sleep(Duration::from_secs(1));
        let again = Changing::publish(&[upright(size)], &url);
        wait_for(&format!("{size}, not {}", video(&hub)), Duration::from_secs(10), || video(&hub).contains(size).then_some(()));
        wait_frames(&hub);
        phone = again;
    }
    let dark = audience.dismiss(&hub);
    eprintln!("one picture for {dark:?}");
    assert!(dark < Duration::from_secs(3) + GROUP + SLACK, "{dark:?} without a new picture");
}

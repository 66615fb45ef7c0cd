//! `patchbay demo` and the pages, in a browser.

use std::time::Duration;

use crate::support::{Patchbay, aiortc_in_background, browser, turn, wait_for};

#[test]
fn the_demo_page_plays_in_a_browser_with_sound() {
    let _turn = turn();
    let hub = Patchbay::demo();
    let page = hub.url("/play/live/demo");
    let seen = browser(&["--page", &page, "--seconds", "6"], Duration::from_secs(60));
    assert!(seen["advancedSeconds"].as_f64() > Some(4.0), "{seen}");
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    assert!(hub.log().contains("/play/live/demo"), "the URLs are printed");
}

#[test]
fn the_demo_stops_cleanly_while_somebody_watches() {
    let _turn = turn();
    let hub = Patchbay::demo();
    let _viewer = aiortc_in_background(&["whep", &hub.url("/whep/live/demo"), "--seconds", "20"]);
    wait_for("the viewer's sound", Duration::from_secs(15), || (hub.renditions().len() == 1).then_some(()));
    let log = hub.log_path();
    let status = hub.stop().expect("it ends within ten seconds");
    let said = std::fs::read_to_string(log).unwrap_or_default();
    assert!(status.success(), "{status:?}\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

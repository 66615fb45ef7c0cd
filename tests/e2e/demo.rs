//! `patchbay demo` and the pages, in a browser.

use std::time::Duration;

use crate::support::{Patchbay, browser, turn};

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

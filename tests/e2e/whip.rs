//! A browser or aiortc publishes over WHIP; RTMP players, HTTP-FLV and an RTMP server get H.264 and AAC.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Patchbay, Watching, aiortc_in_background, browser_in_background, free_port, nginx, play, probe, text, turn, wait_for,
};

fn assert_h264_and_aac(url: &str) {
    let begin = Instant::now();
    let seen = probe(url, 4);
    assert_eq!((seen.codec("video").as_str(), seen.codec("audio").as_str()), ("h264", "aac"), "{url}");
    assert_eq!(text(&seen.stream("audio")["profile"]), "LC", "{url}");
    seen.assert_continuous("audio", 0.06);
    seen.assert_continuous("video", 0.5);
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_browser_publishes_and_rtmp_flv_and_a_pushed_to_server_get_h264_and_aac() {
    let _turn = turn();
    let (origin, http) = (free_port(), free_port());
    let _nginx = nginx(origin, http);
    let hub =
        Patchbay::start(&format!("[[pushes]]\nname = \"cdn\"\nstream = \"live/cam\"\nurl = \"rtmp://127.0.0.1:{origin}/live/out\"\n"));
    let whip = hub.url("/whip/live/cam");
    let mut source = browser_in_background(&["--whip", &whip, "--canvas", "--min-kbps", "500", "--max-kbps", "1000", "--seconds", "40"]);
    hub.wait_live("live/cam");
    assert_h264_and_aac(&hub.rtmp_url("live/cam"));
    assert_h264_and_aac(&hub.url("/flv/live/cam.flv"));
    wait_for("the push to be live", Duration::from_secs(10), || {
        (text(&hub.get("/v1/pushes")["pushes"][0]["state"]) == "live").then_some(())
    });
    assert_h264_and_aac(&format!("rtmp://127.0.0.1:{origin}/live/out"));
    assert_eq!(hub.renditions().len(), 1, "one AAC encoder serves all: {:?}", hub.renditions());
    assert!(source.is_running());
}

#[test]
fn a_browser_without_h264_publishes_vp8_vp9_or_av1_and_everybody_gets_h264() {
    let _turn = turn();
    for codec in ["VP8", "VP9", "AV1"] {
        let hub = Patchbay::start("");
        let options = ["--canvas", "--codec", codec, "--min-kbps", "500", "--max-kbps", "1000", "--seconds", "40"];
        let _source = browser_in_background(&[&["--whip", &hub.url("/whip/live/cam")], &options[..]].concat());
        hub.wait_live("live/cam");
        let tracks = hub.get("/v1/streams")["streams"][0]["tracks"].clone();
        let described = text(&tracks.as_array().expect("tracks").iter().find(|t| t["kind"] == "video").expect("video")["description"]);
        assert!(described.starts_with(&codec.to_lowercase()), "{described}");
        assert_h264_and_aac(&hub.rtmp_url("live/cam"));
        let viewer = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/cam"), "--stamp", "wall"]);
        let pair = wait_for("the pair", Duration::from_secs(20), || hub.pairs("whep").first().cloned());
        assert_eq!(text(&pair["video"]["code"]), "codec_not_accepted", "{pair}");
        std::thread::sleep(Duration::from_secs(5));
        let seen = viewer.report();
        assert!(seen["stamps"]["shownPct"].as_f64() >= Some(90.0), "{codec}: {seen}");
        assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{codec}: {seen}");
    }
}

#[test]
fn of_a_simulcast_every_viewer_gets_the_layer_that_serves_it() {
    let _turn = turn();
    let hub = Patchbay::start(
        "[[rules]]\nname = \"small\"\nstream = \"**\"\nto = [\"rtmp\"]\nvideo = { codec = \"h264\", size = \"480x270\" }\n",
    );
    let options = ["--canvas", "--simulcast", "--width", "960", "--height", "540", "--leave-out-after", "16", "--seconds", "60"];
    let mut source = browser_in_background(&[&["--whip", &hub.url("/whip/live/cam")], &options[..]].concat());
    let sizes = || {
        let tracks = hub.get("/v1/streams")["streams"][0]["tracks"].clone();
        let described = |t: &serde_json::Value| text(&t["description"]).split(' ').find(|word| word.contains('x')).map(str::to_owned);
        let mut all: Vec<_> = tracks.as_array().into_iter().flatten().filter_map(described).collect();
        all.sort();
        all
    };
    wait_for("three layers", Duration::from_secs(20), || (sizes() == ["240x134", "480x270", "960x540"]).then_some(()));
    let viewer = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/live/cam"), "--stamp", "wall", "--settle", "0"]);
    let _player = play(&hub.rtmp_url("live/cam"));
    let source_of = |protocol| hub.pairs(protocol).first().map(|pair| (text(&pair["video"]["source"]), text(&pair["video"]["action"])));
    let shows = |protocol, size| {
        wait_for(&format!("{size} for {protocol}, not {:?}", source_of(protocol)), Duration::from_secs(25), || {
            source_of(protocol).is_some_and(|(source, action)| source.contains(size) && action == "pass").then_some(())
        });
    };
    shows("whep", "960x540");
    shows("rtmp", "480x270");
    assert!(hub.renditions().iter().all(|target| target.starts_with("aac")), "{:?}", hub.renditions());
    // Its sender leaves the largest out.
    shows("whep", "480x270");
    std::thread::sleep(Duration::from_secs(2));
    let seen = viewer.report();
    assert_eq!(text(&seen["size"]), "480x270", "{seen}");
    assert!(seen["stamps"]["longestGapMs"].as_u64() <= Some(2_500), "{seen}");
    assert!(source.is_running());
}

#[test]
fn aiortc_publishes_and_an_rtmp_player_gets_h264_and_aac() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = aiortc_in_background(&["whip", &hub.url("/whip/live/py"), "--seconds", "25"]);
    hub.wait_live("live/py");
    assert_h264_and_aac(&hub.rtmp_url("live/py"));
}

#[test]
fn a_publisher_that_says_goodbye_ends_its_viewers_at_once() {
    let _turn = turn();
    let hub = Patchbay::start("");
    let _source = aiortc_in_background(&["whip", &hub.url("/whip/live/py"), "--seconds", "6"]);
    hub.wait_live("live/py");
    let mut player = crate::support::play(&hub.rtmp_url("live/py"));
    wait_for("the player", Duration::from_secs(5), || (hub.pairs("rtmp").len() == 1).then_some(()));
    wait_for("the goodbye", Duration::from_secs(15), || hub.get("/v1/streams")["streams"].as_array()?.is_empty().then_some(()));
    wait_for("the player's end", Duration::from_secs(3), || (!player.is_running()).then_some(()));
}

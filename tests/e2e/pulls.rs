//! Streams of another server, fetched while somebody plays them.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sources::wait_frames;
use crate::support::{Client, Patchbay, Watching, fixture, free_port, nginx, play, publish, text, turn, wait_for};

fn pulling(rtmp: u16, more: &str) -> Patchbay {
    Patchbay::start(&format!("[[pulls]]\nstream = \"far/*\"\nurl = \"rtmp://127.0.0.1:{rtmp}/live/{{name}}\"\n{more}\n"))
}

fn pull(hub: &Patchbay) -> Value {
    hub.get("/v1/pulls")["pulls"][0].clone()
}

fn publications(hub: &Patchbay) -> Vec<Value> {
    let all = hub.get("/v1/sessions")["sessions"].clone();
    all.as_array().expect("sessions").iter().filter(|session| session["role"] == "publish").cloned().collect()
}

fn ask(hub: &Patchbay, name: &str) -> (u16, Value) {
    let http: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut answer = http.get(hub.url(&format!("/flv/{name}.flv"))).call().expect("an answer");
    (answer.status().as_u16(), answer.body_mut().read_json::<Value>().unwrap_or_default())
}

#[test]
fn a_pulled_stream_comes_with_its_first_viewer_outlives_its_server_and_goes_after_the_last() {
    let _turn = turn();
    let (rtmp, http) = (free_port(), free_port());
    let far = format!("rtmp://127.0.0.1:{rtmp}/live/a");
    let server = nginx(rtmp, http);
    let source = publish(&fixture("baseline-360p.flv"), &far);
    let hub = pulling(rtmp, "idle_s = 4");
    assert_eq!((text(&pull(&hub)["state"]), publications(&hub).len()), ("waiting".into(), 0), "nobody plays it yet");

    let mut player = play(&hub.rtmp_url("far/a"));
    let whep = Watching::start(Client::Aiortc, &["whep", &hub.url("/whep/far/a"), "--stamp", "n", "--settle", "0"]);
    let viewers = || [hub.pairs("rtmp"), hub.pairs("whep")].concat().iter().map(|pair| pair["id"].clone()).collect::<Vec<_>>();
    wait_for("both viewers", Duration::from_secs(15), || (viewers().len() == 2).then_some(()));
    wait_frames(&hub);
    let published = publications(&hub);
    assert_eq!((published.len(), text(&published[0]["protocol"])), (1, "pull".into()), "{published:?}");
    assert_eq!((text(&pull(&hub)["state"]), pull(&hub)["connects"].as_u64()), ("live".into(), Some(1)), "{}", pull(&hub));
    assert_eq!(text(&pull(&hub)["url"]), format!("rtmp://127.0.0.1:{rtmp}/live/***"));

    let before = viewers();
    drop((server, source));
    wait_for("the loss", Duration::from_secs(5), || (text(&pull(&hub)["state"]) == "backoff").then_some(()));
    let late = play(&hub.rtmp_url("far/a"));
    wait_for("one more to wait with them", Duration::from_secs(3), || (viewers().len() == 3).then_some(()));
    assert_eq!(text(&pull(&hub)["state"]), "backoff");
    drop(late);
    wait_for("it to leave", Duration::from_secs(3), || (viewers().len() == 2).then_some(()));
    let server = nginx(rtmp, http);
    let _source = publish(&fixture("baseline-360p.flv"), &far);
    let back = Instant::now();
    wait_for("the return", Duration::from_secs(10), || (text(&pull(&hub)["state"]) == "live").then_some(()));
    eprintln!("live again {:?} after the server was", back.elapsed());
    wait_frames(&hub);
    assert_eq!((viewers(), player.is_running()), (before, true), "everybody stayed");

    let seen = whep.report();
    assert!(seen["audio"]["rms"].as_f64() > Some(0.01), "{seen}");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(publications(&hub).len(), 1, "one viewer is left");
    drop(player);
    wait_for("its viewer to leave", Duration::from_secs(3), || viewers().is_empty().then_some(()));
    let left = Instant::now();
    wait_for("its end", Duration::from_secs(8), || publications(&hub).is_empty().then_some(()));
    assert!(left.elapsed() > Duration::from_secs(3), "it was kept for a while: {:?}", left.elapsed());
    assert_eq!(text(&pull(&hub)["state"]), "waiting");
    drop(server);
}

#[test]
fn whoever_plays_what_does_not_come_is_told_why_in_time_and_a_publisher_here_comes_first() {
    let _turn = turn();
    let rtmp = free_port();
    let hub = pulling(rtmp, "idle_s = 60\nwait_s = 1");
    let ask = |name: &str| ask(&hub, name);
    let begun = Instant::now();
    let (status, body) = ask("far/none");
    let told = text(&body["detail"]);
    assert_eq!((status, text(&body["code"])), (404, "stream_not_found".into()), "{body}");
    assert_eq!(told, "nobody publishes far/none here, and its pull is backoff", "why is not everybody's to know");
    assert!(text(&pull(&hub)["detail"]).contains("cannot connect to 127.0.0.1"), "{}", pull(&hub));
    assert!((1..=3).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(ask("near/none").0, 404, "no pull, no wait");
    assert_eq!(hub.get("/v1/pulls")["pulls"].as_array().map(Vec::len), Some(1));

    let _source = publish(&fixture("baseline-360p.flv"), &hub.rtmp_url("far/none"));
    hub.wait_live("far/none");
    wait_for("the end of the pull", Duration::from_secs(5), || (text(&pull(&hub)["state"]) == "waiting").then_some(()));

    hub.rewrite("");
    ureq::post(hub.url("/v1/reload")).send_empty().expect("read again");
    assert_eq!(hub.get("/v1/pulls")["pulls"], serde_json::json!([]));
}

#[test]
fn whoever_waits_keeps_the_pull_and_whoever_publishes_here_takes_over_from_it() {
    let _turn = turn();
    let (rtmp, http) = (free_port(), free_port());
    let backup = "[[routes]]\nstream = \"far/b\"\nsecond_publisher = \"backup\"";
    let hub = pulling(rtmp, &format!("idle_s = 1\nwait_s = 2\n{backup}"));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(ask(&hub, "far/a").0, 404));
        std::thread::sleep(Duration::from_millis(1_400));
        let begun = Instant::now();
        assert_eq!(ask(&hub, "far/a").0, 404);
        assert!(begun.elapsed() > Duration::from_millis(1_900), "{:?}", begun.elapsed());
    });

    let _server = nginx(rtmp, http);
    let names = ["a", "b"];
    let _far = names.map(|name| publish(&fixture("baseline-360p.flv"), &format!("rtmp://127.0.0.1:{rtmp}/live/{name}")));
    std::thread::sleep(Duration::from_secs(1));
    let players = names.map(|name| play(&hub.rtmp_url(&format!("far/{name}"))));
    let all_by = |protocol: &str| {
        let all = publications(&hub);
        (all.len() == 2 && all.iter().all(|publication| publication["protocol"] == protocol)).then_some(())
    };
    let viewers = || hub.pairs("rtmp").iter().map(|pair| pair["id"].clone()).collect::<Vec<_>>();
    wait_for("both pulls, watched", Duration::from_secs(10), || all_by("pull").filter(|()| viewers().len() == 2));
    let before = viewers();

    let _here = names.map(|name| publish(&fixture("baseline-360p.flv"), &hub.rtmp_url(&format!("far/{name}"))));
    wait_for("the publishers here, and nobody else", Duration::from_secs(8), || all_by("rtmp"));
    let is_over = || hub.get("/v1/pulls")["pulls"].as_array().map(|all| all.iter().all(|pull| pull["state"] == "waiting"));
    wait_for("the end of the pulls", Duration::from_secs(3), || is_over().filter(|over| *over));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((viewers(), all_by("rtmp")), (before, Some(())), "everybody stayed");
    wait_frames(&hub);
    drop(players);
}

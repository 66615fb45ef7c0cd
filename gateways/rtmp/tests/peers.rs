//! The gateway between programs that other people wrote.

mod common;

use std::time::Duration;

use common::media::{self, baseline, largest_step, probe, publish};
use common::nginx::Nginx;
use common::{Running, wait_for};
use patchbay_outbound::Policy;
use patchbay_rtmp::Config;
use patchbay_rtmp::push::{Destination, Push, State, Target};
use patchbay_rules::EndpointKind;

/// H.264 and AAC, as they were published.
fn assert_baseline_and_aac(streams: &str) {
    for part in ["codec_name=h264", "Constrained Baseline", "width=320", "codec_name=aac", "sample_rate=44100"] {
        assert!(streams.contains(part), "{part} is missing in:\n{streams}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg_publishes_and_ffprobe_plays_over_rtmp_and_http_flv() {
    let gateway = Running::start(Config::default(), None).await;
    let _publisher = publish(baseline(), &gateway.rtmp_url("live/demo"));
    gateway.hub.wait_live("live/demo", 2).await;
    let urls = [
        gateway.rtmp_url("live/demo"),
        format!("http://{}/flv/live/demo", gateway.http),
        format!("http://{}/flv/live/demo.flv", gateway.http),
    ];
    for url in urls {
        let (streams, packets) = probe(&url).await;
        assert_baseline_and_aac(&streams);
        for stream in [0, 1] {
            let step = largest_step(&packets, stream);
            assert!(step <= 70, "{url}: a step of {step} ms in stream {stream}");
        }
    }
    let seen = gateway.hub.seen();
    let protocols: Vec<_> = seen.callers.iter().map(|c| c.protocol).collect();
    assert_eq!(protocols, ["rtmp", "rtmp", "http-flv", "http-flv"]);
    assert!(seen.callers[0].agent.as_deref().is_some_and(|a| a.starts_with("FMLE")), "{:?}", seen.callers[0].agent);
    assert!(seen.callers[2].agent.as_deref().is_some_and(|a| a.starts_with("Lavf")), "{:?}", seen.callers[2].agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_player_may_come_before_the_publisher() {
    let gateway = Running::start(Config::default(), None).await;
    let url = gateway.rtmp_url("live/later");
    let player = tokio::spawn(async move { probe(&url).await });
    wait_for("the player", Duration::from_secs(5), || gateway.hub.viewers().len() == 1).await;
    let _publisher = publish(baseline(), &gateway.rtmp_url("live/later"));
    let (streams, _) = player.await.unwrap();
    assert_baseline_and_aac(&streams);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rtmpdump_plays() {
    let gateway = Running::start(Config::default(), None).await;
    let _publisher = publish(baseline(), &gateway.rtmp_url("live/demo"));
    gateway.hub.wait_live("live/demo", 2).await;
    let file = media::folder().join("dump.flv");
    let (url, file) = (gateway.rtmp_url("live/demo"), file.to_str().unwrap());
    media::run(10, "rtmpdump", &["-q", "-v", "-r", &url, "-B", "2", "-o", file]).await;
    let (streams, packets) = probe(file).await;
    assert_baseline_and_aac(&streams);
    assert!(largest_step(&packets, 0) <= 70);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gstreamer_publishes() {
    let gateway = Running::start(Config::default(), None).await;
    let location = format!("location={}", gateway.rtmp_url("live/gst"));
    let video = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 ! x264enc tune=zerolatency key-int-max=30 ! \
                 video/x-h264,profile=constrained-baseline ! h264parse ! mux.";
    let audio = "audiotestsrc is-live=true ! audio/x-raw,rate=44100,channels=2 ! avenc_aac ! aacparse ! mux.";
    let line = format!("flvmux name=mux streamable=true ! rtmp2sink {location} {video} {audio}");
    let _publisher = media::Running::start("gst-launch-1.0", &line.split_whitespace().collect::<Vec<_>>());
    gateway.hub.wait_live("live/gst", 2).await;
    let (streams, packets) = probe(&gateway.rtmp_url("live/gst")).await;
    assert_baseline_and_aac(&streams);
    assert!(largest_step(&packets, 0) <= 100);
}

fn push(gateway: &Running, stream: &str, url: &str) -> Push {
    Push::start(gateway.hub.clone(), stream.parse().unwrap(), EndpointKind::Cdn, Destination::new(Target::parse(url).unwrap(), Policy::ALL))
}

async fn wait_state(push: &Push, state: State) {
    wait_for(state.as_str(), Duration::from_secs(10), || push.status().state == state).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_follows_its_stream_to_nginx_and_waits_when_it_ends() {
    let (gateway, nginx) = (Running::start(Config::default(), None).await, Nginx::start("push").await);
    let push = push(&gateway, "live/demo", &nginx.url("live/pushed?k=1"));
    wait_state(&push, State::Waiting).await;
    let publisher = publish(baseline(), &gateway.rtmp_url("live/demo"));
    wait_state(&push, State::Live).await;
    let (streams, packets) = probe(&nginx.url("live/pushed")).await;
    assert_baseline_and_aac(&streams);
    assert!(largest_step(&packets, 0) <= 70 && largest_step(&packets, 1) <= 70);

    drop(publisher);
    wait_state(&push, State::Waiting).await;
    let _again = publish(baseline(), &gateway.rtmp_url("live/demo"));
    wait_state(&push, State::Live).await;
    assert_eq!(push.status().connects, 2);
    drop(push);
    wait_for("the leg's end", Duration::from_secs(3), || gateway.hub.viewers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_refused_or_finds_nobody_says_so() {
    let gateway = Running::start(Config::default(), None).await;
    let _publisher = publish(baseline(), &gateway.rtmp_url("live/demo"));
    let nobody = push(&gateway, "live/demo", "rtmp://127.0.0.1:9/live/a");
    wait_state(&nobody, State::Backoff).await;
    assert!(nobody.status().detail.starts_with("cannot connect"), "{}", nobody.status().detail);
    let busy = push(&gateway, "live/demo", &gateway.rtmp_url("live/demo"));
    wait_state(&busy, State::Rejected).await;
    let status = busy.status();
    assert!(status.detail.contains("stream_busy") && status.detail.contains("has a publisher already"), "{}", status.detail);
    assert_eq!(status.connects, 0);
}

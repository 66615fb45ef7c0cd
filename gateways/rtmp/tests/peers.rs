//! The gateway between programs that other people wrote.

mod common;

use std::time::Duration;

use common::media::{self, baseline, largest_step, probe, publish};
use common::{Running, wait_for};
use patchbay_rtmp::Config;

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
        format!("http://{}/live/demo.flv", gateway.http),
        format!("http://{}/live/demo.live.flv", gateway.http),
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
    assert_eq!(protocols, ["rtmp", "rtmp", "http-flv", "http-flv", "http-flv"]);
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

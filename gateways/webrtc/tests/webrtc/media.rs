//! Media through the gateway, with real sockets, DTLS and SRTP.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::{Server, h264, opus, slices};
use patchbay_bus::{Publisher, TrackWriter};
use patchbay_media::h264::{AccessUnit, ParameterSets};
use patchbay_media::{AudioShape, Codec, Frame, Kind, MediaTime, TrackInfo};
use str0m::media::{Direction, Frequency, MediaTime as RtpTime};

const SECOND: Duration = Duration::from_secs(1);

/// A source inside the process.
struct Source {
    _publisher: Publisher,
    video: TrackWriter,
    audio: TrackWriter,
    units: Vec<AccessUnit>,
    began: MediaTime,
}

impl Source {
    fn start(server: &Server, name: &str, frames: usize, group: usize) -> Self {
        let mut sets = ParameterSets::default();
        let units: Vec<_> = h264(frames, group).iter().map(|unit| AccessUnit::from_annex_b(unit, &mut sets)).collect();
        let publisher = server.hub.bus.publish(name.parse().unwrap()).unwrap();
        let video = publisher.add_track(sets.track_info().unwrap());
        let shape = AudioShape { sample_rate: 48_000, channels: 2 };
        let audio = publisher.add_track(TrackInfo::audio(Codec::Opus, bytes::Bytes::new(), shape));
        Self { _publisher: publisher, video, audio, units, began: patchbay_bus::now() }
    }

    fn at(&self, n: usize) -> MediaTime {
        self.began + MediaTime::from_ticks(n as i64, 30)
    }

    fn push(&mut self, n: usize) {
        let (pts, unit) = (self.at(n), &self.units[n]);
        let frame =
            |payload, pts, key| Frame { pts, dts: pts, duration: MediaTime::ZERO, key, loss: 0, arrival: patchbay_bus::now(), payload };
        self.video.push(frame(unit.payload.clone(), pts, unit.key));
        self.audio.push(frame(opus(n).into(), pts, true));
    }

    /// Pushes in real time while `client` runs.
    fn play(&mut self, range: std::ops::Range<usize>, clients: &mut [&mut Client]) {
        for n in range {
            let due = self.at(n) - patchbay_bus::now();
            let wait = due.to_duration().div_f64(clients.len().max(1) as f64);
            for client in &mut *clients {
                client.run(wait, |_| false);
            }
            self.push(n);
        }
    }
}

#[test]
fn what_one_peer_publishes_another_plays_frame_for_frame() {
    let server = Server::start(2);
    let units = h264(90, 30);
    let mut publisher = Client::open(&server.url("/whip/live/a"), Direction::SendOnly);
    assert!(publisher.answer.contains("a=ice-lite") && publisher.answer.contains("a=setup:passive"));
    assert_eq!(publisher.answer.matches("a=recvonly").count(), 2, "{}", publisher.answer);
    publisher.connect();
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    for (n, unit) in units.iter().enumerate() {
        publisher.write(publisher.video, RtpTime::new(n as u64 * 3_000, Frequency::NINETY_KHZ), unit);
        publisher.write(publisher.audio, RtpTime::new(n as u64 * 960, Frequency::FORTY_EIGHT_KHZ), &opus(n));
        publisher.run(Duration::from_millis(5), |_| false);
        viewer.run(Duration::from_millis(5), |_| false);
    }
    viewer.run(SECOND, |v| v.received(v.video).len() >= units.len());
    let played: Vec<_> = viewer.received(viewer.video).iter().map(|m| slices(&m.data)).collect();
    let sent: Vec<_> = units.iter().map(|unit| slices(unit)).collect();
    assert!(played.len() > 80, "{} of {} pictures", played.len(), sent.len());
    let first = sent.iter().position(|s| *s == played[0]).expect("the first picture was sent");
    assert_eq!(first % 30, 0, "play begins with a key frame");
    assert_eq!(played[..], sent[first..first + played.len()]);
    let sound: Vec<_> = viewer.received(viewer.audio).iter().map(|m| m.data.to_vec()).collect();
    let first = (0..90).position(|n| opus(n) == sound[0]).expect("the first packet was sent");
    assert!(sound.iter().enumerate().all(|(i, packet)| *packet == opus(first + i)), "packets in order, none missing");
    let stream = server.hub.bus.get(&"live/a".parse().unwrap()).unwrap();
    let (info, _) = stream.track(Kind::Video).unwrap().info().unwrap();
    assert_eq!(info.video_shape().map(|s| (s.width, s.height)), Some((320, 180)));
}

#[test]
fn viewers_of_one_worker_share_one_reader_per_track() {
    let server = Server::start(1);
    let mut source = Source::start(&server, "live/a", 120, 30);
    let mut one = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    let mut two = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    one.connect();
    two.connect();
    source.began = patchbay_bus::now();
    source.play(0..60, &mut [&mut one, &mut two]);
    assert!(one.received(one.video).len() > 50 && two.received(two.video).len() > 50);
    assert_eq!((source.video.track().reader_count(), source.audio.track().reader_count()), (1, 1));
    assert_eq!(one.delete(), 200);
    assert_eq!(source.video.track().reader_count(), 1);
    assert_eq!(two.delete(), 200);
    assert_eq!((source.video.track().reader_count(), source.audio.track().reader_count()), (0, 0));
}

#[test]
fn a_late_viewer_starts_from_the_cached_group_and_is_not_behind() {
    let server = Server::start(1);
    let mut source = Source::start(&server, "live/a", 200, 1_000);
    // 100 frames of a group that will not end: 3.3 s of media, pushed as if it had been watched live.
    source.began = patchbay_bus::now() - MediaTime::from_ticks(100, 30);
    (0..100).for_each(|n| source.push(n));
    let posted = Instant::now();
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    assert!(viewer.run(2 * SECOND, |v| !v.received(v.video).is_empty()), "no picture");
    assert!(posted.elapsed() < SECOND, "first picture after {:?}", posted.elapsed());
    source.play(100..130, &mut [&mut viewer]);
    viewer.run(SECOND / 5, |_| false);
    let pictures = viewer.received(viewer.video);
    assert_eq!(slices(&pictures[0].data).len(), 1);
    assert!(pictures.len() >= 125, "{} pictures", pictures.len());
    // On the RTP clock the 100 cached frames take a tenth of a second; live frames follow at their own distance.
    let span = |a: usize, b: usize| (pictures[b].time.numer() - pictures[a].time.numer()) as f64 / 90_000.0;
    assert!(span(0, 90) < 0.2, "cached frames span {} s", span(0, 90));
    let last = pictures.len() - 1;
    assert!((span(last - 10, last) - 10.0 / 30.0).abs() < 0.01, "live frames span {} s", span(last - 10, last));
}

#[test]
fn delete_ends_media_at_once_and_the_url_is_gone() {
    let server = Server::start(1);
    let mut source = Source::start(&server, "live/a", 90, 30);
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    source.began = patchbay_bus::now();
    source.play(0..30, &mut [&mut viewer]);
    assert_eq!(viewer.delete(), 200);
    assert!(viewer.run(SECOND, |v| v.closed), "the peer is told by DTLS");
    let before = viewer.datagrams;
    source.play(30..50, &mut [&mut viewer]);
    assert_eq!(viewer.datagrams, before, "nothing is sent after DELETE was answered");
    assert!(matches!(ureq::delete(&viewer.session).call(), Err(ureq::Error::StatusCode(404))));
    let ended = server.hub.ended.lock().unwrap();
    assert_eq!(ended.iter().map(|(protocol, cause)| (*protocol, cause.code)).collect::<Vec<_>>(), [("whep", "deleted")]);
}

#[test]
fn a_viewers_keyframe_request_reaches_the_publisher() {
    let server = Server::start(1);
    let units = h264(90, 1_000);
    let mut publisher = Client::open(&server.url("/whip/live/a"), Direction::SendOnly);
    publisher.connect();
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    for (n, unit) in units.iter().enumerate() {
        publisher.write(publisher.video, RtpTime::new(n as u64 * 3_000, Frequency::NINETY_KHZ), unit);
        publisher.run(Duration::from_millis(10), |_| false);
        viewer.run(Duration::from_millis(5), |_| false);
        if n == 60 {
            assert_eq!(publisher.keyframe_requests, 0, "nobody has asked yet");
            viewer.request_keyframe();
        }
    }
    assert_eq!(publisher.keyframe_requests, 1);
}

#[test]
fn a_peer_that_falls_silent_is_let_go() {
    let server = Server::with(patchbay_webrtc::Config { workers: 1, idle_timeout_s: 5, ..Default::default() });
    let source = Source::start(&server, "live/a", 30, 30);
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    viewer.run(SECOND, |_| false);
    assert_eq!(source.video.track().reader_count(), 1);
    std::thread::sleep(6 * SECOND);
    assert_eq!(server.hub.ended.lock().unwrap().iter().map(|(_, cause)| cause.code).collect::<Vec<_>>(), ["timeout"]);
    assert_eq!(source.video.track().reader_count(), 0);
}

#[test]
fn viewers_follow_a_feed_to_another_track_at_its_key_frame() {
    let server = Server::start(1);
    let mut source = Source::start(&server, "live/a", 90, 30);
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    source.began = patchbay_bus::now();
    source.play(0..30, &mut [&mut viewer]);
    // Another rendition of the same pictures, in mid-group when the feed turns to it, and five pictures late.
    let mut other = Source::start(&server, "live/b", 90, 30);
    other.began = source.began;
    (0..25).for_each(|n| other.push(n));
    server.hub.point_video(&"live/a".parse().unwrap(), other.video.track());
    for n in 30..80 {
        source.play(n..n + 1, &mut [&mut viewer]);
        other.push(n - 5);
    }
    viewer.run(SECOND / 5, |_| false);
    assert_eq!((source.video.track().reader_count(), other.video.track().reader_count()), (0, 1));
    let pictures = viewer.received(viewer.video);
    let steps: Vec<_> = pictures.windows(2).map(|w| w[1].time.numer() - w[0].time.numer()).collect();
    // Picture 30 of the other track comes when 35 has been sent; 30 to 35 are squeezed behind it.
    let odd: Vec<_> = steps.iter().copied().filter(|step| !(2_990..=3_010).contains(step)).collect();
    assert!((5..=7).contains(&odd.len()) && odd.iter().all(|step| *step < 3_000), "{odd:?}");
}

//! Peers without UDP, and strangers on the TCP port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use str0m::media::{Direction, Frequency, MediaTime as RtpTime};

use crate::support::client::Client;
use crate::support::wire::tcp_candidate;
use crate::support::{Server, h264, opus, slices};

const SECOND: Duration = Duration::from_secs(1);

fn send_picture(publisher: &mut Client, n: usize, unit: &[u8]) {
    publisher.write(publisher.video, RtpTime::new(n as u64 * 3_000, Frequency::NINETY_KHZ), unit);
    publisher.write(publisher.audio, RtpTime::new(n as u64 * 960, Frequency::FORTY_EIGHT_KHZ), &opus(n));
}

#[test]
fn what_one_peer_publishes_over_tcp_another_plays_over_tcp_frame_for_frame() {
    let server = Server::start(2);
    let units = h264(60, 30);
    let mut publisher = Client::open_tcp(&server.url("/whip/live/a"), Direction::SendOnly);
    publisher.connect();
    let mut viewer = Client::open_tcp(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    for (n, unit) in units.iter().enumerate() {
        send_picture(&mut publisher, n, unit);
        publisher.run(Duration::from_millis(20), |_| false);
        viewer.run(Duration::from_millis(10), |_| false);
    }
    viewer.run(2 * SECOND, |v| v.received(v.video).len() >= units.len());
    let played: Vec<_> = viewer.received(viewer.video).iter().map(|m| slices(&m.data)).collect();
    assert_eq!(played, units.iter().map(|unit| slices(unit)).collect::<Vec<_>>());
    let counters = server.hub.played.lock().unwrap()[0].clone();
    assert_eq!(counters.transport().map(|t| t.as_str()), Some("tcp"));
    assert_eq!(counters.lost.load(Ordering::Relaxed), 0);

    assert_eq!(viewer.delete(), 200);
    assert!(viewer.run(SECOND, |v| v.closed), "the goodbye came");
}

/// What comes until the server closes the connection, and when that was.
fn closed(mut socket: TcpStream, limit: Duration) -> Option<(Vec<u8>, Duration)> {
    let (begin, mut read) = (Instant::now(), Vec::new());
    socket.set_read_timeout(Some(limit)).unwrap();
    match socket.read_to_end(&mut read) {
        Ok(_) => Some((read, begin.elapsed())),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => Some((read, begin.elapsed())),
        Err(_) => None,
    }
}

fn connect(address: SocketAddr, hello: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(hello).unwrap();
    socket
}

/// A check for a session, without its password.
fn check(answer: &str) -> Vec<u8> {
    let ufrag = answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().trim();
    let name = format!("{ufrag}:me");
    let mut attributes = vec![0, 6];
    attributes.extend((name.len() as u16).to_be_bytes());
    attributes.extend(name.as_bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    let mut request = vec![0, 1];
    request.extend((attributes.len() as u16).to_be_bytes());
    request.extend([0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    request.extend(attributes);
    [&(request.len() as u16).to_be_bytes()[..], &request].concat()
}

#[test]
fn strangers_on_the_tcp_port_are_closed_without_a_word() {
    let server = Server::start(1);
    let client = Client::open_tcp(&server.url("/whip/live/a"), Direction::SendOnly);
    let address = tcp_candidate(&client.answer);
    let unknown = check("a=ice-ufrag:0123456789abcdef\r\n");
    for hello in [&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], &[0xff; 4], &[0, 4, 1, 2, 3, 4], &[0, 0], &unknown] {
        let (read, took) = closed(connect(address, hello), 2 * SECOND).expect("closed");
        assert!(read.is_empty() && took < SECOND, "{hello:?}: {read:?} after {took:?}");
    }
    // Nothing, half a frame, and a check without the password have as long as an honest peer.
    let slow = [connect(address, b""), connect(address, &[0, 100, 0, 1]), connect(address, &check(&client.answer))];
    for socket in slow {
        let (read, took) = closed(socket, 7 * SECOND).expect("closed");
        assert!(read.is_empty() && took < 6 * SECOND, "{read:?} after {took:?}");
    }
}

#[test]
fn many_strangers_on_the_tcp_port_keep_nobody_out() {
    let server = Server::with(patchbay_webrtc::Config { workers: 1, half_open_max: 16, ..Default::default() });
    let mut honest = Client::open_tcp(&server.url("/whip/live/a"), Direction::SendOnly);
    let address = tcp_candidate(&honest.answer);
    let strangers: Vec<_> = (0..100).map(|_| connect(address, &check(&honest.answer))).collect();
    let mut second = Client::open_tcp(&server.url("/whip/live/b"), Direction::SendOnly);
    second.connect();
    assert!(!honest.run(SECOND / 2, |c| c.connected), "it was the oldest, and made room");
    let open = strangers.into_iter().filter(|socket| {
        socket.set_nonblocking(true).unwrap();
        matches!(socket.peek(&mut [0]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    });
    assert!(open.count() <= 16);
}

#[test]
fn a_viewer_that_reads_slowly_goes_on_with_a_key_frame_and_holds_up_nobody() {
    let server = Server::start(1);
    // 36 KB per picture: twice as much as goes into the kernel's buffers and the queue, in two seconds.
    let units: Vec<_> = h264(150, 15).into_iter().map(|unit| padded(unit, 36_000)).collect();
    let mut publisher = Client::open(&server.url("/whip/live/a"), Direction::SendOnly);
    publisher.connect();
    let mut slow = Client::open_tcp(&server.url("/whep/live/a"), Direction::RecvOnly);
    slow.connect();
    let mut quick = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    quick.connect();
    for (n, unit) in units.iter().enumerate() {
        send_picture(&mut publisher, n, unit);
        publisher.run(Duration::from_millis(18), |_| false);
        quick.run(Duration::from_millis(14), |_| false);
        if !(20..110).contains(&n) {
            slow.run(Duration::from_millis(8), |_| false);
        }
    }
    slow.run(3 * SECOND, |v| v.received(v.video).last().is_some_and(|m| slices(&m.data) == slices(&units[149])));
    quick.run(SECOND, |v| v.received(v.video).len() >= units.len());
    let counters = server.hub.played.lock().unwrap().clone();
    let skipped = counters[0].skipped.load(Ordering::Relaxed);
    assert!(skipped > 10, "{skipped} were left out");
    assert_eq!(counters[1].skipped.load(Ordering::Relaxed), 0);
    let sent: Vec<_> = units.iter().map(|unit| slices(unit)).collect();
    let index = |v: &Client| -> Vec<usize> {
        v.received(v.video).iter().map(|m| sent.iter().position(|s| *s == slices(&m.data)).expect("a whole picture")).collect()
    };
    let (seen, all) = (index(&slow), index(&quick));
    assert!(all.len() > 140, "{all:?}");
    assert_eq!(seen.last(), Some(&149), "{seen:?}");
    for pair in seen.windows(2) {
        assert!(pair[1] == pair[0] + 1 || pair[1] % 15 == 0, "after a gap comes a key frame: {seen:?}");
    }
}

/// A picture that is as long, by a filler that decoders skip (H.264 §7.4.2.7).
fn padded(mut unit: Vec<u8>, size: usize) -> Vec<u8> {
    unit.extend([0, 0, 0, 1, 12]);
    unit.resize(size.max(unit.len()), 0xff);
    unit.push(0x80);
    unit
}

//! Peers that lie, repeat, cut short and flood: honest sessions on the same port notice nothing.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::{Server, h264, opus, slices};
use str0m::media::{Direction, Frequency, MediaTime as RtpTime};

/// A datagram that belongs to SRTP or SRTCP (RFC 7983 §7).
fn is_srtp(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| (128..192).contains(first))
}

/// A DTLS 1.2 ClientHello that offers a suite without encryption (RFC 6347 §4.2.2; TLS_RSA_WITH_NULL_SHA).
fn null_cipher_hello() -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend([7; 32]);
    // No session, no cookie, one suite, no compression.
    body.extend([0, 0, 0, 2, 0, 2, 1, 0]);
    let length = (body.len() as u32).to_be_bytes();
    let mut handshake = vec![1, length[1], length[2], length[3], 0, 0, 0, 0, 0, length[1], length[2], length[3]];
    handshake.extend(body);
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}

fn send_picture(publisher: &mut Client, n: usize, unit: &[u8]) {
    publisher.write(publisher.video, RtpTime::new(n as u64 * 3_000, Frequency::NINETY_KHZ), unit);
    publisher.write(publisher.audio, RtpTime::new(n as u64 * 960, Frequency::FORTY_EIGHT_KHZ), &opus(n));
}

#[test]
fn client_hellos_of_strangers_neither_get_an_answer_nor_keep_anybody_out() {
    let server = Server::start(2);
    let strangers: Vec<_> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let hello = null_cipher_hello();
    for n in 0..20 {
        let mut honest = Client::open(&server.url(&format!("/whip/live/{n}")), Direction::SendOnly);
        for _ in 0..10 {
            for stranger in &strangers {
                stranger.send_to(&hello, server.udp).unwrap();
            }
            honest.run(Duration::from_millis(1), |_| false);
        }
        honest.connect();
        assert_eq!(honest.delete(), 200);
    }
    for stranger in strangers {
        stranger.set_nonblocking(true).unwrap();
        assert!(stranger.recv_from(&mut [0; 2_000]).is_err(), "a stranger was answered");
    }
}

#[test]
fn replayed_cut_and_forged_packets_deliver_nothing_and_end_nothing() {
    let server = Server::start(1);
    let units = h264(60, 30);
    let mut publisher = Client::open(&server.url("/whip/live/a"), Direction::SendOnly);
    publisher.connect();
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    publisher.sent = Some(Vec::new());
    let exchange = |publisher: &mut Client, viewer: &mut Client, range: std::ops::Range<usize>| {
        for n in range {
            send_picture(publisher, n, &units[n]);
            publisher.run(Duration::from_millis(5), |_| false);
            viewer.run(Duration::from_millis(5), |_| false);
        }
        publisher.run(Duration::from_millis(100), |_| false);
        viewer.run(Duration::from_millis(300), |_| false);
    };
    exchange(&mut publisher, &mut viewer, 0..40);
    let recorded: Vec<_> = publisher.sent.take().unwrap().into_iter().filter(|datagram| is_srtp(datagram)).collect();
    assert!(recorded.len() > 80, "{} packets", recorded.len());
    let before = (viewer.received(viewer.video).len(), viewer.received(viewer.audio).len());
    for (i, packet) in recorded.iter().enumerate() {
        publisher.inject(packet, server.udp);
        publisher.inject(&packet[..i % packet.len()], server.udp);
        // Its last ten bytes are the tag of SRTP.
        publisher.inject(&packet[packet.len() - 10..], server.udp);
        let mut forged = packet.clone();
        // The next roll-over of the sequence number, and another payload.
        forged[2] ^= 0x80;
        *forged.last_mut().unwrap() ^= 1;
        publisher.inject(&forged, server.udp);
        if i % 20 == 0 {
            publisher.run(Duration::from_millis(5), |_| false);
            viewer.run(Duration::from_millis(5), |_| false);
        }
    }
    viewer.run(Duration::from_millis(300), |_| false);
    assert_eq!((viewer.received(viewer.video).len(), viewer.received(viewer.audio).len()), before, "nothing came twice");
    exchange(&mut publisher, &mut viewer, 40..60);
    let played: Vec<_> = viewer.received(viewer.video).iter().map(|m| slices(&m.data)).collect();
    let sent: Vec<_> = units.iter().map(|unit| slices(unit)).collect();
    assert_eq!(played[..], sent[sent.len() - played.len()..], "every picture once, in order, to the last");
    assert!(played.len() >= 50, "{} pictures", played.len());
    assert!(server.hub.ended.lock().unwrap().is_empty(), "nobody was cut");
}

#[test]
fn media_of_strangers_reaches_nobody() {
    let server = Server::start(1);
    let units = h264(30, 30);
    let mut publisher = Client::open(&server.url("/whip/live/a"), Direction::SendOnly);
    publisher.connect();
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    publisher.sent = Some(Vec::new());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (n, unit) in units.iter().enumerate() {
        send_picture(&mut publisher, n, unit);
        publisher.run(Duration::from_millis(5), |_| false);
        // What the publisher itself has just sent, from another address, before and after its own.
        for datagram in publisher.sent.replace(Vec::new()).unwrap_or_default() {
            stranger.send_to(&datagram, server.udp).unwrap();
        }
        viewer.run(Duration::from_millis(5), |_| false);
    }
    viewer.run(Duration::from_secs(1), |v| v.received(v.video).len() >= units.len());
    let played = viewer.received(viewer.video).len();
    assert!((25..=units.len()).contains(&played), "{played} pictures");
    stranger.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2_000];
    while let Ok((len, _)) = stranger.recv_from(&mut buffer) {
        assert!(!is_srtp(&buffer[..len]), "a stranger got media");
    }
}

#[test]
fn a_flood_of_keyframe_requests_reaches_the_publisher_as_a_few() {
    let server = Server::start(1);
    let units = h264(100, 1_000);
    let mut publisher = Client::open(&server.url("/whip/live/a"), Direction::SendOnly);
    publisher.connect();
    let mut viewer = Client::open(&server.url("/whep/live/a"), Direction::RecvOnly);
    viewer.connect();
    let begin = std::time::Instant::now();
    let mut asked = 0;
    for (n, unit) in units.iter().enumerate() {
        send_picture(&mut publisher, n, unit);
        publisher.run(Duration::from_millis(10), |_| false);
        if !viewer.received(viewer.video).is_empty() {
            viewer.request_keyframe();
            asked += 1;
        }
        viewer.run(Duration::from_millis(5), |_| false);
    }
    let (got, limit) = (publisher.keyframe_requests, begin.elapsed().as_millis() as usize / 500 + 2);
    assert!(asked > 50 && (1..=limit).contains(&got), "{got} of {asked} requests, {limit} at most");
}

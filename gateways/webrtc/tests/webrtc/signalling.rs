//! What the HTTP side promises, and what strangers on the UDP port get: nothing.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::Server;
use crate::support::client::Client;
use str0m::media::Direction;
use ureq::http::Response;
use ureq::{Agent, Body};

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).allow_non_standard_methods(true).build().into()
}

fn post(url: &str, content_type: &str, body: &str) -> Response<Body> {
    agent().post(url).header("content-type", content_type).send(body).unwrap()
}

fn code(mut response: Response<Body>) -> (u16, String) {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
    (response.status().as_u16(), problem["code"].as_str().unwrap().to_owned())
}

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 40:0F:88:08:0F:57:A6:B4:2D:EB:2F:30:66:B8:4E:66:6B:3D:B1:63:8A:33:63:B8:F9:6B:A8:6C:62:16:72:D0\r\n\
    a=setup:actpass\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n";

#[test]
fn refusals_say_what_is_wrong() {
    let server = Server::start(1);
    let (whip, whep) = (server.url("/whip/live/a"), server.url("/whep/live/a"));
    assert_eq!(code(post(&whip, "text/plain", OFFER)), (415, "unsupported".into()));
    assert_eq!(code(post(&whip, "application/sdp", "hello")), (400, "bad_request".into()));
    assert_eq!(code(post(&whip, "application/sdp", OFFER)), (422, "unprocessable".into()), "recvonly cannot publish");
    let absent = post(&whep, "application/sdp", OFFER);
    assert!(absent.headers().contains_key("retry-after"));
    assert_eq!(code(absent), (409, "stream_not_found".into()));
    assert_eq!(code(post(&whep, "application/sdp", &OFFER.replace("opus", "ilbc"))), (406, "not_acceptable".into()));
    assert_eq!(code(post(&server.url("/whip/live/-rf"), "application/sdp", OFFER)), (400, "bad_stream_name".into()));
    assert_eq!(post(&whip, "application/sdp", &"v".repeat(100_000)).status(), 413);
    assert!(server.hub.bus.list().is_empty(), "a refused offer leaves nothing behind");
}

#[test]
fn sessions_are_resources() {
    let server = Server::start(1);
    let response = post(&server.url("/whep/live/a?wait=1"), "application/sdp; charset=utf-8", OFFER);
    assert_eq!(response.status(), 201);
    assert!(response.headers().contains_key("etag"));
    let number: u64 = response.headers()["patchbay-session"].to_str().unwrap().parse().expect("the number of its ledger row");
    assert!(number > 0);
    let url = server.url(response.headers()["location"].to_str().unwrap());
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "a strong tag: {etag}");
    let patch = |content_type: &str, if_match: &str, body: &str| {
        let request = agent().patch(&url).header("content-type", content_type);
        let request = if if_match.is_empty() { request } else { request.header("if-match", if_match) };
        request.send(body).unwrap()
    };
    let fragment = "application/trickle-ice-sdpfrag";
    let candidates = "a=ice-ufrag:abcd\r\na=ice-pwd:x\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n";
    let trickled = patch(fragment, &etag, candidates);
    assert_eq!((trickled.status().as_u16(), trickled.headers().contains_key("etag")), (204, false));
    assert_eq!(patch("text/plain", &etag, "").status(), 415);
    assert_eq!(patch(fragment, &etag, "garbage").status(), 400);
    assert_eq!(code(patch(fragment, "", candidates)), (428, "precondition_required".into()));
    assert_eq!(code(patch(fragment, "\"9\"", candidates)), (412, "precondition_failed".into()));
    let put = agent().put(&url).send("").unwrap();
    assert_eq!((put.status().as_u16(), put.headers()["allow"].to_str().unwrap().contains("PATCH")), (405, true));
    assert_eq!(agent().get(&url).call().unwrap().status(), 204);
    let stranger = agent().delete(&url).header("authorization", "Bearer other").call().unwrap();
    assert_eq!((stranger.status().as_u16(), stranger.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer")), (401, true));
    assert_eq!(agent().delete(&url).call().unwrap().status(), 200);
    assert_eq!(code(agent().delete(&url).call().unwrap()), (404, "session_not_found".into()));
}

#[test]
fn clients_are_told_of_stun_and_turn_servers() {
    let servers = serde_json::json!([{"urls": ["stun:s.example:3478"]}, {"urls": ["turn:t.example"], "shared_secret": "north"}]);
    let ice_servers = serde_json::from_value(servers).unwrap();
    let server = Server::with(patchbay_webrtc::Config { workers: 1, ice_servers, ..Default::default() });
    let response = post(&server.url("/whep/live/a?wait=1"), "application/sdp", OFFER);
    let links: Vec<_> = response.headers().get_all("link").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(links.len(), 2, "{links:?}");
    assert_eq!(links[0], "<stun:s.example:3478>; rel=\"ice-server\"");
    assert!(links[1].starts_with("<turn:t.example>; rel=\"ice-server\"; username=\"") && !links[1].contains("north"), "{links:?}");
}

#[test]
fn an_ice_restart_gives_new_credentials_and_the_session_goes_on() {
    let server = Server::start(1);
    let mut viewer = Client::open(&server.url("/whep/live/a?wait=1"), Direction::RecvOnly);
    viewer.connect();
    let fragment = "application/trickle-ice-sdpfrag";
    let restart = |if_match: &str, body: &str| {
        agent().patch(&viewer.session).header("content-type", fragment).header("if-match", if_match).send(body).unwrap()
    };
    assert_eq!(restart("*", "a=ice-ufrag:else\r\n").status(), 400, "no password");
    let mut answer = restart("*", "a=ice-ufrag:else\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:m0\r\n");
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (200, fragment));
    let etag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let body = answer.body_mut().read_to_string().unwrap();
    let ours = |text: &str| text.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().trim().to_owned();
    assert!(ours(&body) != ours(&viewer.answer) && body.contains("a=mid:m0") && body.contains(" typ host"), "{body}");
    let trickle = "a=ice-ufrag:else\r\na=ice-pwd:0123456789012345678901\r\n";
    assert_eq!(restart("\"0\"", trickle).status(), 412, "the tag from before");
    assert_eq!(restart(&etag, trickle).status(), 204);
    viewer.restart_ice(("else", "0123456789012345678901"), &body);
    assert!(viewer.run(Duration::from_secs(3), |v| v.restarted), "no check was answered with the new credentials");
    assert_eq!(viewer.delete(), 200);
}

#[test]
fn browsers_of_other_origins_may_use_it() {
    let server = Server::start(1);
    for path in ["/whip/live/a", "/whep/live/a"] {
        let response =
            agent().options(server.url(path)).header("origin", "http://x").header("access-control-request-method", "POST").call().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert_eq!(response.headers()["accept-post"], "application/sdp");
        assert_eq!(agent().get(server.url(path)).call().unwrap().status(), 204);
    }
    let response = agent().post(server.url("/whep/live/a?wait=1")).header("origin", "http://x");
    let response = response.header("content-type", "application/sdp").send(OFFER).unwrap();
    assert_eq!(response.status(), 201);
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap().to_ascii_lowercase();
    assert!(exposed.contains("location") && exposed.contains("etag") && exposed.contains("link") && exposed.contains("patchbay-session"));
}

#[test]
fn strangers_on_the_port_get_no_answer() {
    let server = Server::start(2);
    let session = post(&server.url("/whep/live/a?wait=1"), "application/sdp", OFFER);
    assert_eq!(session.status(), 201);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let unknown_ufrag = {
        let mut request = vec![0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42];
        request.extend([9; 12]);
        request.extend([0, 6, 0, 9]);
        request.extend(b"nope:abcd\0\0\0");
        request
    };
    let client_hello = [[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 1].as_slice(), &[0; 99]].concat();
    for datagram in [&unknown_ufrag[..], &client_hello, &[0x80, 0x60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1], &[0xff; 1_400], &[0], &[]] {
        socket.send_to(datagram, server.udp).unwrap();
        assert!(socket.recv_from(&mut [0; 2_000]).is_err(), "{:02x?} was answered", &datagram[..datagram.len().min(8)]);
    }
}

#[test]
fn a_known_ufrag_without_the_password_gets_no_answer_and_opens_nothing() {
    let server = Server::start(1);
    let mut session = post(&server.url("/whep/live/a?wait=1"), "application/sdp", OFFER);
    let answer = session.body_mut().read_to_string().unwrap();
    let ufrag = answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().trim().to_owned();
    let name = format!("{ufrag}:abcd");
    let mut body = vec![0, 6, 0, name.len() as u8];
    body.extend(name.as_bytes());
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend([0, 0x24, 0, 4, 1, 2, 3, 4, 0, 0x25, 0, 0, 0x80, 0x2a, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 8, 0, 20]);
    body.extend([0xee; 20]);
    let mut request = vec![0, 1, 0, body.len() as u8, 0x21, 0x12, 0xa4, 0x42];
    request.extend([9; 12]);
    request.extend(body);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send_to(&request, server.udp).unwrap();
    assert!(socket.recv_from(&mut [0; 2_000]).is_err());
    socket.send_to(&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], server.udp).unwrap();
    assert!(socket.recv_from(&mut [0; 2_000]).is_err());
}

#[test]
fn a_session_that_never_connects_is_taken_back() {
    let server = Server::with(patchbay_webrtc::Config { workers: 1, connect_timeout_s: 1, half_open_max: 1, ..Default::default() });
    let whep = server.url("/whep/live/a?wait=1");
    assert_eq!(post(&whep, "application/sdp", OFFER).status(), 201);
    assert_eq!(post(&whep, "application/sdp", OFFER).status(), 201);
    let ended = || server.hub.ended.lock().unwrap().iter().map(|(_, cause)| (cause.code, cause.detail.clone())).collect::<Vec<_>>();
    std::thread::sleep(Duration::from_millis(600));
    assert!(matches!(&ended()[..], [("never_connected", why)] if why.contains("half_open_max")), "{:?}", ended());
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(matches!(&ended()[..], [_, ("never_connected", why)] if why.contains("1 s")), "{:?}", ended());
    let mut viewer = Client::open(&whep, Direction::RecvOnly);
    viewer.connect();
}

#[test]
fn a_player_that_waits_for_the_hub_takes_nobodys_place() {
    let server = Server::with(patchbay_webrtc::Config { workers: 1, half_open_max: 1, ..Default::default() });
    *server.hub.slow.lock().unwrap() = Some(("live/slow".parse().unwrap(), Duration::from_secs(2)));
    assert_eq!(post(&server.url("/whep/live/a?wait=1"), "application/sdp", OFFER).status(), 201);
    let slow = server.url("/whep/live/slow?wait=1");
    let waiting = std::thread::spawn(move || post(&slow, "application/sdp", OFFER).status());
    std::thread::sleep(Duration::from_secs(1));
    assert!(server.hub.ended.lock().unwrap().is_empty());
    assert_eq!(waiting.join().unwrap(), 201);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(server.hub.ended.lock().unwrap().len(), 1, "it is answered, and has the place");
}

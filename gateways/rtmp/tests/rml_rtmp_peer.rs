//! Another implementation publishes to and plays from our server session.

use bytes::{Bytes, BytesMut};
use patchbay_rtmp::proto::chunk::encode_message;
use patchbay_rtmp::proto::message::{csid, type_id};
use patchbay_rtmp::proto::server::{Event, ServerConfig, ServerSession};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType, StreamMetadata};
use rml_rtmp::time::RtmpTimestamp;

struct Peers {
    client: ClientSession,
    server: ServerSession,
    to_server: Vec<u8>,
    at_client: Vec<ClientSessionEvent>,
    at_server: Vec<Event>,
}

impl Peers {
    /// Shakes hands and starts both sessions.
    fn new() -> Self {
        let mut server = ServerSession::new(ServerConfig::default(), 5);
        let mut handshake = Handshake::new(PeerType::Client);
        server.receive(handshake.generate_outbound_p0_and_p1().unwrap().into());
        assert_eq!(server.poll(), Ok(None));
        let answer = server.take_output();
        let (response, rest) = match handshake.process_bytes(&answer).unwrap() {
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => (response_bytes, remaining_bytes),
            HandshakeProcessResult::InProgress { .. } => panic!("the handshake is not complete"),
        };
        assert!(rest.is_empty());
        let (client, results) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let (at_client, at_server) = (Vec::new(), Vec::new());
        let mut this = Self { client, server, to_server: response, at_client, at_server };
        this.take(results);
        this
    }

    fn take(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => {
                    self.to_server.extend_from_slice(&packet.bytes);
                }
                ClientSessionResult::RaisedEvent(event) => self.at_client.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }

    fn run(&mut self) {
        loop {
            let to_server = std::mem::take(&mut self.to_server);
            let sent = !to_server.is_empty();
            self.server.receive(to_server.into());
            while let Some(event) = self.server.poll().unwrap() {
                if matches!(event, Event::Connect(_) | Event::Publish { .. } | Event::Play { .. }) {
                    self.server.accept().unwrap();
                }
                self.at_server.push(event);
            }
            let to_client = self.server.take_output();
            if to_client.is_empty() && !sent {
                return;
            }
            let results = self.client.handle_input(&to_client).unwrap();
            self.take(results);
        }
    }
}

#[test]
fn it_publishes_to_us() {
    let mut peers = Peers::new();
    let request = peers.client.request_connection("live".into()).unwrap();
    peers.take(vec![request]);
    peers.run();
    let request = peers.client.request_publishing("a?k=1".into(), PublishRequestType::Live).unwrap();
    peers.take(vec![request]);
    peers.run();
    assert!(peers.at_client.contains(&ClientSessionEvent::PublishRequestAccepted));
    let mut metadata = StreamMetadata::new();
    metadata.video_width = Some(320);
    let sent = peers.client.publish_metadata(&metadata).unwrap();
    peers.take(vec![sent]);
    for timestamp in [0, 40, 80, 120, 0x0100_0000] {
        let data = Bytes::from(vec![0x17; 5000]);
        let time = RtmpTimestamp::new(timestamp);
        let sent = peers.client.publish_video_data(data, time, false).unwrap();
        peers.take(vec![sent]);
    }
    peers.run();
    let results = peers.client.stop_publishing().unwrap();
    peers.take(results);
    peers.run();
    let times: Vec<u32> = peers
        .at_server
        .iter()
        .filter_map(|event| match event {
            Event::Video { timestamp, payload, .. } if payload.len() == 5000 => Some(*timestamp),
            _ => None,
        })
        .collect();
    assert_eq!(times, [0, 40, 80, 120, 0x0100_0000]);
    assert!(peers.at_server.iter().any(|event| matches!(event, Event::Data { .. })));
    assert!(matches!(peers.at_server.last(), Some(Event::Closed { .. })));
}

#[test]
fn it_plays_from_us() {
    let mut peers = Peers::new();
    let request = peers.client.request_connection("live".into()).unwrap();
    peers.take(vec![request]);
    peers.run();
    let request = peers.client.request_playback("a".into()).unwrap();
    peers.take(vec![request]);
    peers.run();
    assert!(peers.at_client.contains(&ClientSessionEvent::PlaybackRequestAccepted));
    let Some(id) = peers.at_server.iter().find_map(|event| match event {
        Event::Play { stream, .. } => Some(stream.stream_id),
        _ => None,
    }) else {
        panic!("no play request")
    };
    let mut out = BytesMut::new();
    let size = peers.server.chunk_size();
    encode_message(&mut out, csid::VIDEO, 7, type_id::VIDEO, id, &[9; 70_000], size);
    let results = peers.client.handle_input(&out).unwrap();
    peers.take(results);
    let (timestamp, data) = (RtmpTimestamp::new(7), Bytes::from(vec![9; 70_000]));
    let expected = ClientSessionEvent::VideoDataReceived { timestamp, data };
    assert_eq!(peers.at_client.last(), Some(&expected));
}

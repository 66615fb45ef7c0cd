//! Both session state machines against each other and against another implementation, in memory.

use bytes::{Bytes, BytesMut};
use patchbay_rtmp::proto::Error;
use patchbay_rtmp::proto::amf0::Value;
use patchbay_rtmp::proto::chunk::{ChunkError, DEFAULT_CHUNK_SIZE, encode_message};
use patchbay_rtmp::proto::client::{ClientEvent, ClientSession, Mode};
use patchbay_rtmp::proto::handshake::{Handshake, HandshakeError};
use patchbay_rtmp::proto::message::{Body, Command, Data, UserControl, csid, type_id};
use patchbay_rtmp::proto::server::{Event, PublishKind, Refusal, ServerConfig, ServerSession};
use patchbay_rtmp::proto::url::RtmpUrl;

/// A client and a server whose bytes are carried in pieces of a given size.
struct Pair {
    client: ClientSession,
    server: ServerSession,
    piece: usize,
    /// What to say to requests; connect is always accepted.
    refuse: Option<Refusal>,
    at_client: Vec<ClientEvent>,
    at_server: Vec<Event>,
}

impl Pair {
    fn new(url: &str, mode: Mode, piece: usize) -> Self {
        let url = RtmpUrl::parse(url).unwrap();
        Self {
            client: ClientSession::new(url, mode, 4096, 1),
            server: ServerSession::new(ServerConfig::default(), 2),
            piece,
            refuse: None,
            at_client: Vec::new(),
            at_server: Vec::new(),
        }
    }

    /// Carries bytes until neither side has any.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            let (to_server, to_client) = (self.client.take_output(), self.server.take_output());
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
            for piece in to_server.chunks(self.piece) {
                self.server.receive(Bytes::copy_from_slice(piece));
                while let Some(event) = self.server.poll()? {
                    self.decide(&event);
                    self.at_server.push(event);
                }
            }
            for piece in to_client.chunks(self.piece) {
                self.client.receive(Bytes::copy_from_slice(piece));
                while let Some(event) = self.client.poll()? {
                    self.at_client.push(event);
                }
            }
        }
    }

    fn decide(&mut self, event: &Event) {
        match (event, self.refuse) {
            (Event::Connect(_), _) => self.server.accept().unwrap(),
            (Event::Publish { .. } | Event::Play { .. }, None) => self.server.accept().unwrap(),
            (Event::Publish { .. } | Event::Play { .. }, Some(refusal)) => {
                self.server.reject(refusal, "because").unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn a_client_publishes_whatever_the_cut_of_its_bytes() {
    for piece in [1, 7, 1000, usize::MAX] {
        let mut pair = Pair::new("rtmp://h/live/inst/a?key=k", Mode::Publish, piece);
        pair.run().unwrap();
        assert_eq!(pair.at_client, [ClientEvent::Started]);
        let video: Vec<u8> = (0..20_000u32).map(|i| i as u8).collect();
        pair.client.send_metadata(Value::object([("width", Value::Number(640.0))])).unwrap();
        pair.client.send_video(40, &video).unwrap();
        pair.client.send_audio(0xFFFF_FFF0, &[0xAF, 1, 2]).unwrap();
        pair.client.finish();
        pair.run().unwrap();

        let mut events = pair.at_server.into_iter();
        let Some(Event::Connect(connect)) = events.next() else { panic!("no connect") };
        assert_eq!((&*connect.app, &*connect.tc_url), ("live/inst", "rtmp://h/live/inst"));
        let Some(Event::Publish { stream, kind }) = events.next() else { panic!("no publish") };
        assert_eq!((&*stream.name, &*stream.query, kind), ("a", "key=k", PublishKind::Live));
        let Some(Event::Data { data, .. }) = events.next() else { panic!("no metadata") };
        assert_eq!(data.name, "onMetaData");
        assert_eq!(data.values[0].get("width"), Some(&Value::Number(640.0)));
        let stream_id = stream.stream_id;
        let payload = Bytes::from(video);
        assert_eq!(events.next(), Some(Event::Video { stream_id, timestamp: 40, payload }));
        let (timestamp, payload) = (0xFFFF_FFF0, Bytes::from_static(&[0xAF, 1, 2]));
        assert_eq!(events.next(), Some(Event::Audio { stream_id, timestamp, payload }));
        assert_eq!(events.next(), Some(Event::Closed { stream_id }));
        assert_eq!(events.next(), None);
    }
}

#[test]
fn a_client_plays_what_is_encoded_once() {
    let mut pair = Pair::new("rtmp://h/live/a", Mode::Play, 11);
    pair.run().unwrap();
    let Some(Event::Play { stream, start }) = pair.at_server.get(1).cloned() else { panic!("no play") };
    assert_eq!((&*stream.name, start), ("a", -2.0));
    assert!(matches!(pair.at_server[2], Event::BufferLength { millis: 1000, .. }));

    let data = Data { name: "onMetaData".into(), values: vec![Value::EcmaArray(vec![])] };
    pair.server.send_data(stream.stream_id, 0, data.clone());
    pair.run().unwrap();
    let mut shared = BytesMut::new();
    let (id, size) = (stream.stream_id, pair.server.chunk_size());
    encode_message(&mut shared, csid::VIDEO, 33, type_id::VIDEO, id, &[7; 100_000], size);
    encode_message(&mut shared, csid::AUDIO, 34, type_id::AUDIO, id, &[8; 10], size);
    pair.client.receive(shared.freeze());
    while let Some(event) = pair.client.poll().unwrap() {
        pair.at_client.push(event);
    }
    pair.server.end_play(stream.stream_id, "over");
    pair.run().unwrap();

    let access = vec![Value::Boolean(true), Value::Boolean(true)];
    let access = Data { name: "|RtmpSampleAccess".into(), values: access };
    let expected = [
        ClientEvent::Started,
        ClientEvent::Data { timestamp: 0, data: access },
        ClientEvent::Data { timestamp: 0, data },
        ClientEvent::Video { timestamp: 33, payload: vec![7; 100_000].into() },
        ClientEvent::Audio { timestamp: 34, payload: vec![8; 10].into() },
        ClientEvent::Ended,
    ];
    assert_eq!(pair.at_client, expected);
}

#[test]
fn refusals_reach_the_client_in_the_servers_words() {
    for (mode, refusal, stage, code) in [
        (Mode::Publish, Refusal::Busy, "publish", "NetStream.Publish.BadName"),
        (Mode::Publish, Refusal::Denied, "publish", "NetStream.Publish.Denied"),
        (Mode::Play, Refusal::NotFound, "play", "NetStream.Play.StreamNotFound"),
        (Mode::Play, Refusal::Failed, "play", "NetStream.Play.Failed"),
    ] {
        let mut pair = Pair::new("rtmp://h/live/a", mode, 500);
        pair.refuse = Some(refusal);
        let (code, description) = (code.to_owned(), "because".to_owned());
        assert_eq!(pair.run(), Err(Error::Refused { stage, code, description }));
    }
}

#[test]
fn a_client_of_ours_is_asked_to_connect_again_and_hears_where() {
    for (mode, tc_url) in [(Mode::Publish, Some("rtmp://other/live")), (Mode::Play, None)] {
        let mut pair = Pair::new("rtmp://h/live/a", mode, 9);
        pair.run().unwrap();
        assert!(pair.server.request_reconnect(tc_url, "about to stop"));
        pair.run().unwrap();
        let tc_url = tc_url.map(str::to_owned);
        assert_eq!(pair.at_client.last(), Some(&ClientEvent::ReconnectRequest { tc_url }));
        assert!(pair.client.is_started(), "it goes on until it leaves");
    }
}

#[test]
fn media_before_the_start_is_refused() {
    let mut pair = Pair::new("rtmp://h/live/a", Mode::Publish, 500);
    assert_eq!(pair.client.send_audio(0, &[1]), Err(Error::NotReady));
    assert_eq!(pair.server.accept(), Err(Error::NothingPending));
}

/// A hand-made peer that writes single messages after a good handshake.
struct Raw {
    server: ServerSession,
    events: Vec<Event>,
}

impl Raw {
    fn new() -> Self {
        let mut server = ServerSession::new(ServerConfig::default(), 0);
        let mut hello = BytesMut::new();
        Handshake::client(0, &mut hello);
        hello.extend_from_slice(&[0; 1536]);
        server.receive(hello.freeze());
        assert_eq!(server.poll(), Ok(None));
        server.take_output();
        Self { server, events: Vec::new() }
    }

    fn connected() -> Self {
        let mut raw = Self::new();
        let mut connect = Command::new("connect", 1.0, vec![]);
        connect.object =
            Value::object([("app", Value::string("live?vhost=x")), ("fourCcList", Value::StrictArray(vec![Value::string("hvc1")]))]);
        raw.send(0, Body::Command(connect)).unwrap();
        raw
    }

    fn send(&mut self, stream_id: u32, body: Body) -> Result<(), Error> {
        let (type_id, payload) = body.encode();
        self.send_raw(type_id, stream_id, &payload)
    }

    fn send_raw(&mut self, type_id: u8, stream_id: u32, payload: &[u8]) -> Result<(), Error> {
        let mut out = BytesMut::new();
        encode_message(&mut out, 3, 0, type_id, stream_id, payload, DEFAULT_CHUNK_SIZE);
        self.server.receive(out.freeze());
        while let Some(event) = self.server.poll()? {
            if matches!(event, Event::Connect(_) | Event::Publish { .. } | Event::Play { .. }) {
                self.server.accept().unwrap();
            }
            self.events.push(event);
        }
        Ok(())
    }

    fn call(&mut self, stream_id: u32, name: &str, args: Vec<Value>) -> Result<(), Error> {
        self.send(stream_id, Body::Command(Command::new(name, 9.0, args)))
    }

    fn output_contains(&mut self, text: &str) -> bool {
        let output = self.server.take_output();
        output.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

#[test]
fn the_query_of_the_app_is_split_off() {
    let raw = Raw::connected();
    let Event::Connect(connect) = &raw.events[0] else { panic!("no connect") };
    assert!(!format!("{connect:?}").contains("vhost"), "the query shows in Debug");
    assert_eq!((&*connect.app, &*connect.query), ("live", "vhost=x"));
    assert!(connect.fourccs.takes(*b"hvc1") && !connect.fourccs.takes(*b"av01"));
}

#[test]
fn codecs_are_told_to_those_who_name_theirs_only() {
    assert!(Raw::connected().output_contains("fourCcList"));
    let mut plain = Raw::new();
    let mut connect = Command::new("connect", 1.0, vec![]);
    connect.object = Value::object([("app", Value::string("live"))]);
    plain.send(0, Body::Command(connect)).unwrap();
    let answer = String::from_utf8_lossy(&plain.server.take_output()).into_owned();
    assert!(answer.contains("NetConnection.Connect.Success") && !answer.contains("fourCcList"), "{answer}");
}

/// Byte by byte as the enhanced RTMP specification (v2, "Reconnect Request") has it: a command on the connection's own stream.
#[test]
fn only_those_who_obey_are_asked_to_connect_again() {
    for (caps_ex, asked) in [(Value::Number(1.0), true), (Value::Number(3.0), true), (Value::Number(2.0), false), (Value::Null, false)] {
        let mut raw = Raw::new();
        let mut connect = Command::new("connect", 1.0, vec![]);
        connect.object = Value::object([("app", Value::string("live")), ("capsEx", caps_ex)]);
        raw.send(0, Body::Command(connect)).unwrap();
        raw.server.take_output();
        assert_eq!(raw.server.request_reconnect(Some("rtmp://b/live"), "bye"), asked);
        let info = b"\x03\0\x05level\x02\0\x06status\0\x04code\x02\0\x26NetConnection.Connect.ReconnectRequest\
            \0\x0bdescription\x02\0\x03bye\0\x05tcUrl\x02\0\x0drtmp://b/live\0\0\x09";
        let body = [&b"\x02\0\x08onStatus\0\0\0\0\0\0\0\0\0\x05"[..], info].concat();
        let message = [&[3, 0, 0, 0, 0, 0, body.len() as u8, type_id::COMMAND, 0, 0, 0, 0], &body[..]].concat();
        assert_eq!(raw.server.take_output(), if asked { message } else { Vec::new() });
    }
}

#[test]
fn obs_and_librtmp_extras_are_answered() {
    let mut raw = Raw::connected();
    raw.server.take_output();
    for name in ["releaseStream", "FCPublish", "_checkbw", "getStreamLength", "FCUnpublish"] {
        raw.call(0, name, vec![Value::string("a")]).unwrap();
        assert!(raw.output_contains("_result"), "{name} was not answered");
    }
    raw.call(0, "someCall", vec![]).unwrap();
    assert!(raw.output_contains("NetConnection.Call.Failed"));
    raw.send(0, Body::UserControl(UserControl::PingRequest(77))).unwrap();
    assert!(raw.output_contains("\x00\x07\x00\x00\x00\x4D"), "no ping response");
}

#[test]
fn acknowledgements_follow_the_window() {
    let mut raw = Raw::connected();
    raw.send(0, Body::WindowAckSize(1000)).unwrap();
    raw.server.take_output();
    raw.send_raw(type_id::AUDIO, 1, &[0; 900]).unwrap();
    raw.send_raw(type_id::AUDIO, 1, &[0; 900]).unwrap();
    let output = raw.server.take_output();
    assert!(!output.is_empty() && output[7] == type_id::ACK, "no acknowledgement");
}

#[test]
fn streams_are_bounded_and_ids_used_again() {
    let mut raw = Raw::connected();
    for _ in 0..4 {
        raw.call(0, "createStream", vec![]).unwrap();
    }
    raw.server.take_output();
    raw.call(0, "createStream", vec![]).unwrap();
    assert!(raw.output_contains("Too many streams."));
    raw.call(0, "deleteStream", vec![Value::Number(f64::NAN)]).unwrap();
    raw.call(0, "deleteStream", vec![Value::Number(2.0)]).unwrap();
    raw.call(0, "createStream", vec![]).unwrap();
    raw.call(2, "play", vec![Value::string("a")]).unwrap();
    assert!(matches!(raw.events.last(), Some(Event::Play { stream, .. }) if stream.stream_id == 2));
}

#[test]
fn commands_out_of_order_are_refused() {
    let mut raw = Raw::new();
    let error = Error::UnexpectedCommand { command: "any", state: "before connect" };
    assert_eq!(raw.call(0, "publish", vec![Value::string("a")]), Err(error));
    let mut raw = Raw::connected();
    let error = Error::UnexpectedCommand { command: "connect", state: "twice" };
    assert_eq!(raw.call(0, "connect", vec![]), Err(error));
    let mut raw = Raw::connected();
    let state = "on a stream that was not created";
    let error = Error::UnexpectedCommand { command: "play", state };
    assert_eq!(raw.call(5, "play", vec![Value::string("a")]), Err(error));
    let mut raw = Raw::connected();
    raw.call(0, "createStream", vec![]).unwrap();
    let error = Error::MissingArgument { command: "publish", argument: "name" };
    assert_eq!(raw.call(1, "publish", vec![Value::Null]), Err(error));
}

#[test]
fn media_of_a_peer_that_was_not_let_in_goes_nowhere() {
    let mut raw = Raw::connected();
    raw.call(0, "createStream", vec![]).unwrap();
    raw.events.clear();
    raw.send(1, Body::Audio(Bytes::from_static(&[1]))).unwrap();
    assert_eq!(raw.events, []);
    raw.call(1, "publish", vec![Value::string("a"), Value::string("live")]).unwrap();
    raw.send(1, Body::Audio(Bytes::from_static(&[1]))).unwrap();
    assert_eq!(raw.events.len(), 2);
    raw.call(1, "closeStream", vec![]).unwrap();
    raw.send(1, Body::Audio(Bytes::from_static(&[1]))).unwrap();
    assert_eq!(raw.events[2..], [Event::Closed { stream_id: 1 }]);
}

#[test]
fn the_message_limit_grows_only_when_a_publisher_is_accepted() {
    let long = vec![0; 300 * 1024];
    let mut raw = Raw::connected();
    let got = raw.send_raw(type_id::VIDEO, 1, &long);
    assert!(matches!(got, Err(Error::Chunk(ChunkError::MessageTooLong { .. }))), "{got:?}");
    let mut raw = Raw::connected();
    raw.call(0, "createStream", vec![]).unwrap();
    raw.call(1, "publish", vec![Value::string("a")]).unwrap();
    raw.send_raw(type_id::VIDEO, 1, &long).unwrap();
    assert!(matches!(raw.events.last(), Some(Event::Video { .. })));
}

#[test]
fn a_peer_that_asks_and_never_reads_is_cut_off() {
    let mut raw = Raw::connected();
    let got = (0..100_000).try_for_each(|_| raw.call(0, "createStream", vec![]));
    assert!(matches!(got, Err(Error::OutputFull { .. })), "{got:?}");
}

#[test]
fn input_after_a_request_waits_for_its_decision() {
    let mut raw = Raw::new();
    let mut bytes = BytesMut::new();
    for name in ["connect", "createStream"] {
        let (type_id, payload) = Body::Command(Command::new(name, 1.0, vec![])).encode();
        encode_message(&mut bytes, 3, 0, type_id, 0, &payload, DEFAULT_CHUNK_SIZE);
    }
    raw.server.receive(bytes.freeze());
    assert!(matches!(raw.server.poll(), Ok(Some(Event::Connect(_)))));
    assert_eq!(raw.server.poll(), Ok(None));
    assert!(raw.server.take_output().is_empty());
    raw.server.reject(Refusal::NotFound, "no such app").unwrap();
    assert!(raw.output_contains("NetConnection.Connect.InvalidApp"));
}

#[test]
fn other_protocols_on_the_port_are_named() {
    for (bytes, error) in
        [(&b"GET / HTTP/1.1\r\n\r\n"[..], HandshakeError::Http), (&[0x16, 3, 1], HandshakeError::Tls), (&[6], HandshakeError::Encrypted(6))]
    {
        let mut server = ServerSession::new(ServerConfig::default(), 0);
        server.receive(Bytes::copy_from_slice(bytes));
        assert_eq!(server.poll(), Err(Error::Handshake(error)));
    }
}

#[test]
fn saved_inputs_do_no_harm() {
    patchbay_seeds::replay(&patchbay_rtmp::fuzz_entry::TARGETS);
}

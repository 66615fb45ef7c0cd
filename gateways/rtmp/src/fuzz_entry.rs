//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's
//! tests run the same code. Each must return, whatever the bytes are.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use patchbay_bus::{Bus, EndReason};
use patchbay_contract::{Cause, Publication};
use patchbay_media::MediaTime;
use tokio_util::sync::CancellationToken;

use crate::flv::tag::{AudioTag, VideoTag};
use crate::ingest::Ingest;
use crate::proto::amf0;
use crate::proto::chunk::{ChunkReader, Limits, encode_message};
use crate::proto::client::{ClientSession, Mode};
use crate::proto::handshake::Handshake;
use crate::proto::message::{Body, Data};
use crate::proto::server::{Event, Refusal, ServerConfig, ServerSession};
use crate::proto::url::RtmpUrl;

const LIMITS: Limits = Limits { message: 64 * 1024, chunk_streams: 8, buffered: 1024 * 1024 };

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 6] = [
    ("chunk_reader", chunk_reader),
    ("amf0", amf0),
    ("rtmp_server", rtmp_server),
    ("rtmp_client", rtmp_client),
    ("flv_tag", flv_tag),
    ("flv_ingest", flv_ingest),
];

/// The first byte says how the rest is cut; what is read must not depend on it, and must survive
/// being written and read again.
pub fn chunk_reader(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let read = |piece: usize| {
        let mut reader = ChunkReader::new(LIMITS);
        let mut messages = Vec::new();
        for bytes in data.chunks(piece.max(1)) {
            reader.push(Bytes::copy_from_slice(bytes));
            loop {
                match reader.next() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(_) => return messages,
                }
            }
            assert!(reader.buffered() <= LIMITS.buffered);
        }
        messages
    };
    let whole = read(data.len());
    assert_eq!(whole, read(usize::from(*cut)));
    for message in whole {
        let _ = Body::decode(&message);
        let (csid, timestamp) = (message.csid, message.timestamp);
        let (type_id, stream_id) = (message.type_id, message.stream_id);
        let mut out = BytesMut::new();
        encode_message(&mut out, csid, timestamp, type_id, stream_id, &message.payload, 128);
        let mut reader = ChunkReader::new(LIMITS);
        reader.push(out.freeze());
        if let Ok(again) = reader.next() {
            assert_eq!(again, Some(message));
        }
    }
}

/// What was decoded is encoded, decoded and encoded again to the same bytes.
pub fn amf0(data: &[u8]) {
    let Ok(values) = amf0::decode_all(data) else { return };
    let encode = |values: &[amf0::Value]| {
        let mut out = BytesMut::new();
        values.iter().for_each(|value| value.encode(&mut out));
        out
    };
    let once = encode(&values);
    // Not when a key has grown over 65535 bytes by the replacement of bad UTF-8.
    if let Ok(again) = amf0::decode_all(&once) {
        assert_eq!(encode(&again), once);
    }
}

/// A stranger after a good handshake. Requests are decided by the bytes' parity.
pub fn rtmp_server(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let mut session = ServerSession::new(ServerConfig::default(), 0);
    let mut hello = BytesMut::new();
    Handshake::client(0, &mut hello);
    hello.extend_from_slice(&[0; 1536]);
    session.receive(hello.freeze());
    for bytes in data.chunks(usize::from(*cut).max(1)) {
        session.receive(Bytes::copy_from_slice(bytes));
        loop {
            let waits = match session.poll() {
                Ok(Some(event)) => matches!(event, Event::Connect(_) | Event::Publish { .. } | Event::Play { .. }),
                Ok(None) => break,
                Err(_) => return,
            };
            if waits && bytes.len() % 7 == 6 {
                let _ = session.reject(Refusal::Denied, "no");
            } else if waits {
                let _ = session.accept();
            }
        }
        session.take_output();
    }
}

/// A server that lies, after a good handshake.
pub fn rtmp_client(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let mode = if first % 2 == 0 { Mode::Publish } else { Mode::Play };
    let Ok(url) = RtmpUrl::parse("rtmp://h/live/a") else { return };
    let mut session = ClientSession::new(url, mode, 4096, 0);
    let (mut hello, mut answer) = (session.take_output(), BytesMut::new());
    if Handshake::server(0).receive(&mut hello, &mut answer).is_err() {
        return;
    }
    session.receive(answer.freeze());
    for bytes in data.chunks(usize::from(first / 2).max(1)) {
        session.receive(Bytes::copy_from_slice(bytes));
        loop {
            match session.poll() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        let _ = session.send_audio(0, bytes);
        session.take_output();
    }
    session.finish();
}

/// A publisher from its first tag to its end, on a bus of its own. Each tag is a byte that says what it is and how much later
/// than the one before, two bytes of length, and its body.
pub fn flv_ingest(mut data: &[u8]) {
    let (Ok(name), bus) = ("live/a".parse(), Bus::new()) else { return };
    let Ok(publisher) = bus.publish(name) else { return };
    let publication = Publication::new(1, publisher, Arc::default(), CancellationToken::new(), Box::new(|_, _| {}));
    let mut ingest = Ingest::new(publication);
    let mut timestamp = 0u32;
    while let Some(([kind, high, low], rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        data = rest;
        timestamp = timestamp.wrapping_add(u32::from(kind >> 2) * 40);
        let (body, arrival) = (Bytes::copy_from_slice(body), MediaTime::from_millis(timestamp.into()));
        match kind & 3 {
            0 => ingest.audio(timestamp, body, arrival),
            1 => {
                let values = amf0::decode_all(&body).unwrap_or_default();
                ingest.data(&Data { name: "onMetaData".into(), values });
            }
            _ => ingest.video(timestamp, body, arrival),
        }
    }
    ingest.end(EndReason::Finished, Cause::peer("closed"));
}

/// A tag body, read and written until it stands still.
pub fn flv_tag(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    if let Ok(Some(tag)) = VideoTag::parse(data.clone()) {
        let mut out = BytesMut::new();
        tag.encode(&mut out);
        assert_eq!(VideoTag::parse(out.freeze()), Ok(Some(tag)));
    }
    if let Ok(Some(tag)) = AudioTag::parse(data) {
        let mut out = BytesMut::new();
        tag.encode(&mut out);
        let again = AudioTag::parse(out.freeze()).ok().flatten();
        assert_eq!(again.map(|t| (t.codec, t.packet)), Some((tag.codec, tag.packet)));
    }
}

//! What both ends of a connection do alike: handshake, chunk stream, acknowledgements and pings.

use bytes::{Bytes, BytesMut};

use super::Error;
use super::chunk::{self, ChunkReader, Limits};
use super::handshake::Handshake;
use super::message::{Body, Command, UserControl, csid};

/// Most bytes of answers kept for a peer that asks but does not read.
const OUTPUT_LIMIT: usize = 1024 * 1024;
/// Acknowledge after so many bytes when the peer does not say.
const DEFAULT_ACK_WINDOW: u32 = 2_500_000;

/// A decoded message and where it belongs.
pub(super) struct Incoming {
    pub stream_id: u32,
    pub timestamp: u32,
    pub body: Body,
}

#[derive(Debug)]
pub(super) struct Link {
    handshake: Handshake,
    /// Bytes that came before the handshake was complete; empty after it.
    raw: Bytes,
    reader: ChunkReader,
    chunk_size: u32,
    received: u32,
    acknowledged: u32,
    ack_window: u32,
    out: BytesMut,
    /// Bytes of `out` that are answers, not media.
    answers: usize,
}

impl Link {
    pub fn server(seed: u64, limits: Limits) -> Self {
        Self::new(Handshake::server(seed), limits, BytesMut::new())
    }

    pub fn client(seed: u64, limits: Limits) -> Self {
        let mut out = BytesMut::new();
        Self::new(Handshake::client(seed, &mut out), limits, out)
    }

    fn new(handshake: Handshake, limits: Limits, out: BytesMut) -> Self {
        Self {
            handshake,
            raw: Bytes::new(),
            reader: ChunkReader::new(limits),
            chunk_size: chunk::DEFAULT_CHUNK_SIZE,
            received: 0,
            acknowledged: 0,
            ack_window: DEFAULT_ACK_WINDOW,
            out,
            answers: 0,
        }
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.reader.set_limits(limits);
    }

    pub fn is_open(&self) -> bool {
        self.handshake.is_done()
    }

    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    pub fn pending_output(&self) -> usize {
        self.out.len()
    }

    pub fn take_output(&mut self) -> Bytes {
        self.answers = 0;
        self.out.split().freeze()
    }

    pub fn receive(&mut self, bytes: Bytes) {
        self.received = self.received.wrapping_add(bytes.len() as u32);
        if self.handshake.is_done() {
            self.reader.push(bytes);
        } else if self.raw.is_empty() {
            self.raw = bytes;
        } else {
            self.raw = [&self.raw[..], &bytes[..]].concat().into();
        }
    }

    /// The next message that is not answered here.
    pub fn next(&mut self) -> Result<Option<Incoming>, Error> {
        if !self.handshake.is_done() {
            if !self.handshake.receive(&mut self.raw, &mut self.out)? {
                return Ok(None);
            }
            self.reader.push(std::mem::take(&mut self.raw));
        }
        loop {
            if self.answers > OUTPUT_LIMIT {
                return Err(Error::OutputFull { queued: self.answers, limit: OUTPUT_LIMIT });
            }
            let Some(message) = self.reader.next()? else {
                self.acknowledge();
                return Ok(None);
            };
            match Body::decode(&message)? {
                Body::WindowAckSize(window) => self.ack_window = window.max(1),
                Body::UserControl(UserControl::PingRequest(value)) => {
                    self.control(&Body::UserControl(UserControl::PingResponse(value)));
                }
                Body::SetChunkSize(_) | Body::Abort(_) | Body::Ack(_) | Body::SetPeerBandwidth { .. } | Body::Ignored(_) => {}
                body => {
                    let (stream_id, timestamp) = (message.stream_id, message.timestamp);
                    return Ok(Some(Incoming { stream_id, timestamp, body }));
                }
            }
        }
    }

    fn acknowledge(&mut self) {
        // At most one per input, however small a window the peer asks for.
        if self.received.wrapping_sub(self.acknowledged) >= self.ack_window {
            self.acknowledged = self.received;
            self.control(&Body::Ack(self.received));
        }
    }

    /// Announces and from then on uses another outgoing chunk size.
    pub fn set_chunk_size(&mut self, size: u32) {
        let size = size.clamp(chunk::MIN_CHUNK_SIZE, chunk::MAX_CHUNK_SIZE);
        self.control(&Body::SetChunkSize(size));
        self.chunk_size = size;
    }

    pub fn control(&mut self, body: &Body) {
        self.send(csid::CONTROL, 0, 0, body);
    }

    pub fn command(&mut self, stream_id: u32, command: Command) {
        let csid = if stream_id == 0 { csid::COMMAND } else { csid::STREAM };
        self.send(csid, 0, stream_id, &Body::Command(command));
    }

    pub fn send(&mut self, csid: u32, timestamp: u32, stream_id: u32, body: &Body) {
        let (type_id, payload) = body.encode();
        let before = self.out.len();
        self.send_raw(csid, timestamp, type_id, stream_id, &payload);
        self.answers += self.out.len() - before;
    }

    /// Media: its amount is the caller's affair.
    pub fn send_raw(&mut self, csid: u32, timestamp: u32, type_id: u8, stream: u32, body: &[u8]) {
        chunk::encode_message(&mut self.out, csid, timestamp, type_id, stream, body, self.chunk_size);
    }
}

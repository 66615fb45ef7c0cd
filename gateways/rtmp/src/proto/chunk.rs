//! The chunk stream (RTMP 1.0 section 5.3): messages cut into chunks, and back.
//!
//! Owns chunk headers, timestamps and reassembly, and obeys Set Chunk Size and Abort itself.
//! Refuses more chunk streams, longer messages or more buffered bytes than [`Limits`] allows.
//! A payload that lies whole in one input is handed out as a slice of it; any other is copied once.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Chunk size before any Set Chunk Size (section 5.4.1).
pub const DEFAULT_CHUNK_SIZE: u32 = 128;
/// Below this the headers outweigh the payload: nobody but an attacker asks for it.
pub const MIN_CHUNK_SIZE: u32 = 16;
/// No message is longer, so no chunk need be (section 5.4.1).
pub const MAX_CHUNK_SIZE: u32 = 0x00FF_FFFF;

const EXTENDED: u32 = 0x00FF_FFFF;
/// First allocation for a message in several pieces; it then doubles, so that a declared length
/// alone costs the sender nothing and us at most this.
const FIRST_RESERVE: usize = 16 * 1024;

const TYPE_SET_CHUNK_SIZE: u8 = 1;
const TYPE_ABORT: u8 = 2;

/// What a peer may make the reader hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest message in bytes.
    pub message: usize,
    /// Most chunk stream ids in use over the connection's life.
    pub chunk_streams: usize,
    /// Most bytes allocated for unfinished messages, all chunk streams together.
    pub buffered: usize,
}

impl Limits {
    /// For a peer that nobody has let in yet.
    pub const STRANGER: Limits = Limits { message: 256 * 1024, chunk_streams: 16, buffered: 1024 * 1024 };
    /// For an accepted publisher.
    pub const ACCEPTED: Limits = Limits { message: 8 * 1024 * 1024, chunk_streams: 64, buffered: 16 * 1024 * 1024 };
}

/// Why a chunk stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A compressed header came first on its chunk stream.
    #[error("type-{format} header first on chunk stream {csid}")]
    NoPreviousHeader {
        /// Chunk stream id.
        csid: u32,
        /// Header type, 2 or 3.
        format: u8,
    },
    /// A new message began on a chunk stream whose last one is unfinished.
    #[error("type-{format} header inside a message on chunk stream {csid}")]
    HeaderInsideMessage {
        /// Chunk stream id.
        csid: u32,
        /// Header type, 0 to 2.
        format: u8,
    },
    /// A declared length is over [`Limits::message`].
    #[error("message of {len} bytes on chunk stream {csid}, {limit} allowed")]
    MessageTooLong {
        /// Chunk stream id.
        csid: u32,
        /// Declared length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::chunk_streams`].
    #[error("more than {limit} chunk streams")]
    TooManyChunkStreams {
        /// The limit.
        limit: usize,
    },
    /// Over [`Limits::buffered`].
    #[error("more than {limit} bytes of unfinished messages")]
    TooMuchBuffered {
        /// The limit.
        limit: usize,
    },
    /// Set Chunk Size with a size below [`MIN_CHUNK_SIZE`] or the reserved bit set.
    #[error("chunk size {0}")]
    ChunkSize(u32),
    /// Set Chunk Size or Abort shorter than its four bytes.
    #[error("control message type {0} is too short")]
    ShortControl(u8),
}

/// A whole message as it came off the chunk stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Chunk stream it came on.
    pub csid: u32,
    /// Milliseconds, wraps at 2^32.
    pub timestamp: u32,
    /// Message type id (section 7.1).
    pub type_id: u8,
    /// Message stream id; 0 is the connection itself.
    pub stream_id: u32,
    /// The message's bytes.
    pub payload: Bytes,
}

#[derive(Debug, Default)]
struct Stream {
    csid: u32,
    timestamp: u32,
    /// What a type-3 header adds to the timestamp of the next message.
    delta: u32,
    /// The extended timestamp field of the last header that had one.
    extended: Option<u32>,
    len: usize,
    type_id: u8,
    stream_id: u32,
    partial: BytesMut,
    in_message: bool,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Header,
    Payload { stream: usize, left: usize },
}

/// Takes bytes in any cut and gives messages.
///
/// Contract: [`push`](Self::push), then [`next`](Self::next) until it gives `None`. After an error
/// the reader is of no more use.
#[derive(Debug)]
pub struct ChunkReader {
    input: Bytes,
    chunk_size: usize,
    limits: Limits,
    streams: Vec<Stream>,
    buffered: usize,
    stage: Stage,
}

/// A parsed header that has not been applied yet.
struct Header {
    format: u8,
    csid: u32,
    /// Timestamp or delta, the extended field already put in.
    time: u32,
    extended: Option<u32>,
    len: usize,
    type_id: u8,
    stream_id: u32,
    size: usize,
}

impl ChunkReader {
    /// A reader for the start of a chunk stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            input: Bytes::new(),
            chunk_size: DEFAULT_CHUNK_SIZE as usize,
            limits,
            streams: Vec::new(),
            buffered: 0,
            stage: Stage::Header,
        }
    }

    /// Changes the limits for messages that begin from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes that are allocated for unfinished messages.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Hands over the next bytes from the peer. Less than one header (18 bytes) is left over when
    /// `next` gave `None`, and joining that is the only copy made here.
    pub fn push(&mut self, bytes: Bytes) {
        if self.input.is_empty() {
            self.input = bytes;
        } else if !bytes.is_empty() {
            let mut joined = BytesMut::with_capacity(self.input.len() + bytes.len());
            joined.extend_from_slice(&self.input);
            joined.extend_from_slice(&bytes);
            self.input = joined.freeze();
        }
    }

    /// The next whole message, or `None` when more bytes are needed.
    ///
    /// Set Chunk Size and Abort have taken effect when they are returned.
    #[allow(clippy::should_implement_trait)] // fallible, so not an iterator
    pub fn next(&mut self) -> Result<Option<Message>, ChunkError> {
        loop {
            if let Stage::Header = self.stage {
                let Some(header) = self.parse_header()? else { return Ok(None) };
                self.input.advance(header.size);
                let stream = self.apply_header(header)?;
                let state = &self.streams[stream];
                let left = (state.len - state.partial.len()).min(self.chunk_size);
                self.stage = Stage::Payload { stream, left };
            }
            if let Stage::Payload { stream, left } = self.stage {
                let Some(payload) = self.read_payload(stream, left)? else {
                    if let Stage::Header = self.stage {
                        continue;
                    }
                    return Ok(None);
                };
                let message = self.finish(stream, payload);
                self.obey(&message)?;
                return Ok(Some(message));
            }
        }
    }

    /// Takes payload of the current chunk; gives the message's payload when it is complete.
    fn read_payload(&mut self, index: usize, left: usize) -> Result<Option<Bytes>, ChunkError> {
        let stream = &mut self.streams[index];
        if stream.partial.is_empty() && left == stream.len && self.input.len() >= left {
            self.stage = Stage::Header;
            return Ok(Some(self.input.split_to(left)));
        }
        let part = self.input.split_to(left.min(self.input.len()));
        let before = stream.partial.capacity();
        if before - stream.partial.len() < part.len() {
            let wanted = stream.partial.len().max(FIRST_RESERVE).max(part.len());
            stream.partial.reserve(wanted.min(stream.len - stream.partial.len()));
            self.buffered = self.buffered + stream.partial.capacity() - before;
            if self.buffered > self.limits.buffered {
                return Err(ChunkError::TooMuchBuffered { limit: self.limits.buffered });
            }
        }
        stream.partial.extend_from_slice(&part);
        let left = left - part.len();
        if left > 0 {
            self.stage = Stage::Payload { stream: index, left };
            return Ok(None);
        }
        self.stage = Stage::Header;
        if stream.partial.len() < stream.len {
            return Ok(None);
        }
        self.buffered -= stream.partial.capacity();
        Ok(Some(std::mem::take(&mut stream.partial).freeze()))
    }

    fn finish(&mut self, index: usize, payload: Bytes) -> Message {
        let stream = &mut self.streams[index];
        stream.in_message = false;
        Message { csid: stream.csid, timestamp: stream.timestamp, type_id: stream.type_id, stream_id: stream.stream_id, payload }
    }

    /// The two messages that change how the following chunks are read.
    fn obey(&mut self, message: &Message) -> Result<(), ChunkError> {
        if !matches!(message.type_id, TYPE_SET_CHUNK_SIZE | TYPE_ABORT) {
            return Ok(());
        }
        let Some(value) = be32(&message.payload) else {
            return Err(ChunkError::ShortControl(message.type_id));
        };
        if message.type_id == TYPE_SET_CHUNK_SIZE {
            if !(MIN_CHUNK_SIZE..1 << 31).contains(&value) {
                return Err(ChunkError::ChunkSize(value));
            }
            self.chunk_size = value.min(MAX_CHUNK_SIZE) as usize;
        } else if let Some(stream) = self.streams.iter_mut().find(|s| s.csid == value) {
            self.buffered -= stream.partial.capacity();
            stream.partial = BytesMut::new();
            stream.in_message = false;
        }
        Ok(())
    }

    /// Reads the header at the front of the input; `None` when it is not all there.
    fn parse_header(&self) -> Result<Option<Header>, ChunkError> {
        let input = &self.input[..];
        let Some((format, csid, basic)) = parse_basic(input) else { return Ok(None) };
        let previous = self.streams.iter().find(|s| s.csid == csid);
        // A type-1 header first on its chunk stream is wrong too, but librtmp sends its pings so.
        if previous.is_none() && format >= 2 {
            return Err(ChunkError::NoPreviousHeader { csid, format });
        }
        let body = &input[basic..];
        let body_len = [11, 7, 3, 0][usize::from(format)];
        if body.len() < body_len {
            return Ok(None);
        }
        let (extra, mut header) = (
            &body[body_len..],
            Header {
                format,
                csid,
                time: if format < 3 { be24(body) } else { previous.map_or(0, |s| s.delta) },
                extended: None,
                len: if format < 2 { be24(&body[3..]) as usize } else { previous.map_or(0, |s| s.len) },
                type_id: if format < 2 { body[6] } else { previous.map_or(0, |s| s.type_id) },
                stream_id: if format == 0 {
                    u32::from_le_bytes([body[7], body[8], body[9], body[10]])
                } else {
                    previous.map_or(0, |s| s.stream_id)
                },
                size: basic + body_len,
            },
        );
        if format < 3 {
            if header.time == EXTENDED {
                let Some(value) = be32(extra) else { return Ok(None) };
                header.time = value;
                header.extended = Some(value);
                header.size += 4;
            }
        } else if let Some(value) = previous.and_then(|s| s.extended) {
            header.extended = Some(value);
            // Most peers repeat the extended timestamp in type-3 headers, some do not: it is one
            // only if it has the value it would have to have.
            let absolute = previous.map_or(value, |s| s.timestamp);
            match (starts_with(extra, value), starts_with(extra, absolute)) {
                (Some(true), _) | (_, Some(true)) => header.size += 4,
                (None, _) | (_, None) => return Ok(None),
                (Some(false), Some(false)) => {}
            }
        }
        Ok(Some(header))
    }

    fn apply_header(&mut self, header: Header) -> Result<usize, ChunkError> {
        let csid = header.csid;
        let index = match self.streams.iter().position(|s| s.csid == csid) {
            Some(index) => index,
            None if self.streams.len() >= self.limits.chunk_streams => {
                let limit = self.limits.chunk_streams;
                return Err(ChunkError::TooManyChunkStreams { limit });
            }
            None => {
                self.streams.push(Stream { csid, ..Stream::default() });
                self.streams.len() - 1
            }
        };
        let stream = &mut self.streams[index];
        if stream.in_message {
            if header.format < 3 {
                return Err(ChunkError::HeaderInsideMessage { csid, format: header.format });
            }
            return Ok(index);
        }
        if header.len > self.limits.message {
            let limit = self.limits.message;
            return Err(ChunkError::MessageTooLong { csid, len: header.len, limit });
        }
        // A type-3 header after a type-0 one adds the type-0 timestamp again (5.3.1.2.4); FFmpeg
        // relies on it.
        stream.delta = header.time;
        stream.timestamp = match header.format {
            0 => header.time,
            _ => stream.timestamp.wrapping_add(header.time),
        };
        stream.extended = header.extended;
        stream.len = header.len;
        stream.type_id = header.type_id;
        stream.stream_id = header.stream_id;
        stream.in_message = true;
        Ok(index)
    }
}

/// Format, chunk stream id and length of the basic header (section 5.3.1.1).
fn parse_basic(input: &[u8]) -> Option<(u8, u32, usize)> {
    let first = *input.first()?;
    let format = first >> 6;
    match first & 0x3F {
        0 => Some((format, 64 + u32::from(*input.get(1)?), 2)),
        1 => Some((format, 64 + u32::from(*input.get(1)?) + 256 * u32::from(*input.get(2)?), 3)),
        csid => Some((format, u32::from(csid), 1)),
    }
}

/// Whether `bytes` begins with `value`; `None` while too few bytes agree so far.
fn starts_with(bytes: &[u8], value: u32) -> Option<bool> {
    let value = value.to_be_bytes();
    let n = bytes.len().min(4);
    if bytes[..n] != value[..n] {
        return Some(false);
    }
    (n == 4).then_some(true)
}

/// The first three bytes; the caller has checked that they are there.
fn be24(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// Appends one message to `out`, cut into chunks of `chunk_size` bytes (at least 1).
///
/// The first header is always of type 0, so the result depends on the arguments alone: bytes
/// written once can go to every viewer whose outgoing chunk size is the same. `payload` is cut at
/// 2^24 - 1 bytes, the longest a message can be.
pub fn encode_message(out: &mut BytesMut, csid: u32, timestamp: u32, type_id: u8, stream_id: u32, payload: &[u8], chunk_size: u32) {
    let payload = &payload[..payload.len().min(MAX_CHUNK_SIZE as usize)];
    let chunk_size = chunk_size.max(1) as usize;
    out.reserve(18 + payload.len() + payload.len() / chunk_size * 7);
    let extended = timestamp >= EXTENDED;
    put_basic(out, 0, csid);
    out.put_uint(u64::from(timestamp.min(EXTENDED)), 3);
    out.put_uint(payload.len() as u64, 3);
    out.put_u8(type_id);
    out.put_u32_le(stream_id);
    if extended {
        out.put_u32(timestamp);
    }
    let mut chunks = payload.chunks(chunk_size);
    out.put_slice(chunks.next().unwrap_or_default());
    for chunk in chunks {
        put_basic(out, 3, csid);
        if extended {
            out.put_u32(timestamp);
        }
        out.put_slice(chunk);
    }
}

fn put_basic(out: &mut BytesMut, format: u8, csid: u32) {
    let format = format << 6;
    match csid {
        // 0 and 1 would announce longer headers.
        0..64 => out.put_u8(format | csid.max(2) as u8),
        64..320 => out.put_slice(&[format, (csid - 64) as u8]),
        _ => {
            let rest = (csid - 64).min(0xFFFF);
            out.put_slice(&[format | 1, (rest & 0xFF) as u8, (rest >> 8) as u8]);
        }
    }
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;

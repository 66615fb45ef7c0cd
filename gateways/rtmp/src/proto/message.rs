//! Typed RTMP messages (RTMP 1.0 sections 5.4, 6.2 and 7).
//!
//! Reads and writes message payloads; what a message means is the sessions' affair. Shared objects
//! and unknown types are kept as [`Body::Ignored`].

use bytes::{BufMut, Bytes, BytesMut};

use super::amf0::{self, AmfError, Value};
use super::chunk::Message;

/// Message type ids.
pub mod type_id {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACK: u8 = 3;
    /// User control.
    pub const USER_CONTROL: u8 = 4;
    /// Window acknowledgement size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set peer bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data in the AMF3 wrapping.
    pub const DATA_AMF3: u8 = 15;
    /// Command in the AMF3 wrapping.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data, AMF0.
    pub const DATA: u8 = 18;
    /// Command, AMF0.
    pub const COMMAND: u8 = 20;
}

/// Chunk streams we write on: one per kind, so that a receiver may interleave them.
pub mod csid {
    /// Protocol control; fixed by section 5.4.
    pub const CONTROL: u32 = 2;
    /// Commands.
    pub const COMMAND: u32 = 3;
    /// Audio.
    pub const AUDIO: u32 = 4;
    /// Commands and data of a stream.
    pub const STREAM: u32 = 5;
    /// Video.
    pub const VIDEO: u32 = 6;
}

/// Why a message's payload is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A protocol control message shorter than its fields.
    #[error("message type {type_id} has only {len} bytes")]
    Short {
        /// Message type id.
        type_id: u8,
        /// Length of its payload.
        len: usize,
    },
    /// Its AMF0 cannot be read.
    #[error(transparent)]
    Amf(#[from] AmfError),
    /// A command or data message does not begin with a name.
    #[error("message type {0} has no name")]
    Unnamed(u8),
    /// An AMF3 message that does not switch back to AMF0 at once.
    #[error("message type {0} carries AMF3")]
    Amf3(u8),
}

/// A user control event (section 7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserControl {
    /// The stream becomes usable.
    StreamBegin(u32),
    /// The stream's data is over.
    StreamEof(u32),
    /// Nothing comes for now.
    StreamDry(u32),
    /// The client's buffer in milliseconds.
    SetBufferLength {
        /// Message stream id.
        stream_id: u32,
        /// Milliseconds.
        millis: u32,
    },
    /// The stream is a recorded one.
    StreamIsRecorded(u32),
    /// Asks for a [`UserControl::PingResponse`] with the same value.
    PingRequest(u32),
    /// Answer to a ping.
    PingResponse(u32),
    /// Something else.
    Other(u16),
}

/// A remote procedure call or the answer to one.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// As in `connect`, `_result`, `onStatus`.
    pub name: String,
    /// Pairs call and answer; 0 asks for no answer. Never NaN or infinite: those are read as 0.
    pub transaction: f64,
    /// The command object, usually null.
    pub object: Value,
    /// The rest.
    pub args: Vec<Value>,
}

impl Command {
    /// A command without a command object.
    pub fn new(name: &str, transaction: f64, args: Vec<Value>) -> Self {
        Self { name: name.to_owned(), transaction, object: Value::Null, args }
    }

    /// The string argument at `index`.
    pub fn str_arg(&self, index: usize) -> Option<&str> {
        self.args.get(index)?.as_str()
    }

    /// The finite number at `index`.
    pub fn number_arg(&self, index: usize) -> Option<f64> {
        self.args.get(index)?.as_number()
    }
}

/// A data message, as in `onMetaData`; the `@setDataFrame` around it is taken off.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// Its name.
    pub name: String,
    /// What follows the name.
    pub values: Vec<Value>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// New chunk size of the sender; the chunk reader has obeyed it.
    SetChunkSize(u32),
    /// The chunk reader has obeyed it.
    Abort(u32),
    /// Bytes the peer has received, modulo 2^32.
    Ack(u32),
    /// The peer wants an Ack after so many bytes.
    WindowAckSize(u32),
    /// The peer wishes us to have so many bytes unacknowledged at most.
    SetPeerBandwidth {
        /// Bytes.
        size: u32,
        /// 0 hard, 1 soft, 2 dynamic.
        limit: u8,
    },
    /// A user control event.
    UserControl(UserControl),
    /// A command.
    Command(Command),
    /// A data message.
    Data(Data),
    /// An FLV audio tag body.
    Audio(Bytes),
    /// An FLV video tag body.
    Video(Bytes),
    /// A type that nobody here needs.
    Ignored(u8),
}

impl Body {
    /// Reads the payload of `message`.
    pub fn decode(message: &Message) -> Result<Body, MessageError> {
        let payload = &message.payload;
        let field = |at: usize| {
            let bytes = payload.get(at..).and_then(|rest| rest.first_chunk());
            let error = MessageError::Short { type_id: message.type_id, len: payload.len() };
            bytes.map(|b| u32::from_be_bytes(*b)).ok_or(error)
        };
        Ok(match message.type_id {
            type_id::SET_CHUNK_SIZE => Body::SetChunkSize(field(0)?),
            type_id::ABORT => Body::Abort(field(0)?),
            type_id::ACK => Body::Ack(field(0)?),
            type_id::WINDOW_ACK_SIZE => Body::WindowAckSize(field(0)?),
            type_id::SET_PEER_BANDWIDTH => Body::SetPeerBandwidth { size: field(0)?, limit: payload.get(4).copied().unwrap_or(0) },
            type_id::USER_CONTROL => Body::UserControl(decode_user_control(payload, field)?),
            type_id::AUDIO => Body::Audio(payload.clone()),
            type_id::VIDEO => Body::Video(payload.clone()),
            type_id::COMMAND | type_id::COMMAND_AMF3 => Body::Command(decode_command(message.type_id, payload)?),
            type_id::DATA | type_id::DATA_AMF3 => Body::Data(decode_data(message.type_id, payload)?),
            other => Body::Ignored(other),
        })
    }

    /// The message's type id and payload as they go on the wire, always AMF0.
    pub fn encode(&self) -> (u8, Bytes) {
        let mut out = BytesMut::new();
        let type_id = match self {
            Body::SetChunkSize(value) => put(&mut out, type_id::SET_CHUNK_SIZE, *value),
            Body::Abort(value) => put(&mut out, type_id::ABORT, *value),
            Body::Ack(value) => put(&mut out, type_id::ACK, *value),
            Body::WindowAckSize(value) => put(&mut out, type_id::WINDOW_ACK_SIZE, *value),
            Body::SetPeerBandwidth { size, limit } => {
                out.put_u32(*size);
                out.put_u8(*limit);
                type_id::SET_PEER_BANDWIDTH
            }
            Body::UserControl(event) => {
                encode_user_control(*event, &mut out);
                type_id::USER_CONTROL
            }
            Body::Command(command) => {
                Value::string(&*command.name).encode(&mut out);
                Value::Number(command.transaction).encode(&mut out);
                command.object.encode(&mut out);
                command.args.iter().for_each(|value| value.encode(&mut out));
                type_id::COMMAND
            }
            Body::Data(data) => {
                Value::string(&*data.name).encode(&mut out);
                data.values.iter().for_each(|value| value.encode(&mut out));
                type_id::DATA
            }
            Body::Audio(payload) => return (type_id::AUDIO, payload.clone()),
            Body::Video(payload) => return (type_id::VIDEO, payload.clone()),
            Body::Ignored(type_id) => *type_id,
        };
        (type_id, out.freeze())
    }
}

fn put(out: &mut BytesMut, type_id: u8, value: u32) -> u8 {
    out.put_u32(value);
    type_id
}

fn decode_user_control(payload: &[u8], field: impl Fn(usize) -> Result<u32, MessageError>) -> Result<UserControl, MessageError> {
    let short = MessageError::Short { type_id: type_id::USER_CONTROL, len: payload.len() };
    let event = u16::from_be_bytes(*payload.first_chunk().ok_or(short)?);
    Ok(match event {
        0 => UserControl::StreamBegin(field(2)?),
        1 => UserControl::StreamEof(field(2)?),
        2 => UserControl::StreamDry(field(2)?),
        3 => UserControl::SetBufferLength { stream_id: field(2)?, millis: field(6)? },
        4 => UserControl::StreamIsRecorded(field(2)?),
        6 => UserControl::PingRequest(field(2)?),
        7 => UserControl::PingResponse(field(2)?),
        other => UserControl::Other(other),
    })
}

fn encode_user_control(event: UserControl, out: &mut BytesMut) {
    let (kind, fields) = match event {
        UserControl::StreamBegin(id) => (0, [Some(id), None]),
        UserControl::StreamEof(id) => (1, [Some(id), None]),
        UserControl::StreamDry(id) => (2, [Some(id), None]),
        UserControl::SetBufferLength { stream_id, millis } => (3, [Some(stream_id), Some(millis)]),
        UserControl::StreamIsRecorded(id) => (4, [Some(id), None]),
        UserControl::PingRequest(value) => (6, [Some(value), None]),
        UserControl::PingResponse(value) => (7, [Some(value), None]),
        UserControl::Other(kind) => (kind, [None, None]),
    };
    out.put_u16(kind);
    fields.into_iter().flatten().for_each(|value| out.put_u32(value));
}

/// The AMF0 values of a command or data message. An AMF3 message starts with a 0 byte that
/// announces AMF0; Flash-era clients send it after asking for object encoding 3.
fn values(type_id: u8, payload: &[u8]) -> Result<Vec<Value>, MessageError> {
    let amf0 = match (type_id, payload.first()) {
        (type_id::COMMAND_AMF3, Some(0)) => &payload[1..],
        (type_id::COMMAND_AMF3, _) => return Err(MessageError::Amf3(type_id)),
        // Data comes with and without the byte; a name can start with neither 0 nor an AMF3 type.
        (type_id::DATA_AMF3, Some(0)) => &payload[1..],
        _ => payload,
    };
    Ok(amf0::decode_all(amf0)?)
}

fn decode_command(type_id: u8, payload: &[u8]) -> Result<Command, MessageError> {
    let mut values = values(type_id, payload)?.into_iter();
    let Some(Value::String(name)) = values.next() else {
        return Err(MessageError::Unnamed(type_id));
    };
    let transaction = values.next().and_then(|value| value.as_number()).unwrap_or(0.0);
    let object = values.next().unwrap_or(Value::Null);
    Ok(Command { name, transaction, object, args: values.collect() })
}

fn decode_data(type_id: u8, payload: &[u8]) -> Result<Data, MessageError> {
    let mut values = values(type_id, payload)?.into_iter().peekable();
    let mut name = values.next();
    if name.as_ref().and_then(Value::as_str) == Some("@setDataFrame") && values.peek().is_some_and(|value| value.as_str().is_some()) {
        name = values.next();
    }
    match name {
        Some(Value::String(name)) => Ok(Data { name, values: values.collect() }),
        _ => Err(MessageError::Unnamed(type_id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(type_id: u8, payload: &[u8]) -> Message {
        let payload = Bytes::copy_from_slice(payload);
        Message { csid: 3, timestamp: 0, type_id, stream_id: 0, payload }
    }

    #[test]
    fn every_body_survives_the_wire() {
        let command = Command {
            name: "connect".into(),
            transaction: 1.0,
            object: Value::object([("app", Value::string("live"))]),
            args: vec![Value::Boolean(true)],
        };
        let data = Data { name: "onMetaData".into(), values: vec![Value::EcmaArray(vec![])] };
        for body in [
            Body::SetChunkSize(4096),
            Body::Abort(3),
            Body::Ack(u32::MAX),
            Body::WindowAckSize(1),
            Body::SetPeerBandwidth { size: 9, limit: 2 },
            Body::UserControl(UserControl::StreamBegin(1)),
            Body::UserControl(UserControl::StreamEof(1)),
            Body::UserControl(UserControl::StreamDry(1)),
            Body::UserControl(UserControl::SetBufferLength { stream_id: 1, millis: 300 }),
            Body::UserControl(UserControl::StreamIsRecorded(1)),
            Body::UserControl(UserControl::PingRequest(7)),
            Body::UserControl(UserControl::PingResponse(7)),
            Body::Command(command),
            Body::Data(data),
            Body::Audio(Bytes::from_static(&[1, 2])),
            Body::Video(Bytes::from_static(&[3])),
        ] {
            let (type_id, payload) = body.encode();
            assert_eq!(Body::decode(&message(type_id, &payload)), Ok(body));
        }
    }

    #[test]
    fn control_messages_cut_short_are_refused() {
        for type_id in [1, 2, 3, 4, 5, 6] {
            for len in 0..2 {
                let got = Body::decode(&message(type_id, &vec![0; len]));
                assert_eq!(got, Err(MessageError::Short { type_id, len }));
            }
        }
    }

    #[test]
    fn transaction_id_nan_asks_for_no_answer() {
        let command = Command::new("createStream", f64::NAN, vec![]);
        let (type_id, payload) = Body::Command(command).encode();
        let Ok(Body::Command(got)) = Body::decode(&message(type_id, &payload)) else {
            panic!("not a command");
        };
        assert_eq!(got.transaction, 0.0);
    }

    #[test]
    fn amf3_wrapping_is_taken_off_and_amf3_values_refused() {
        let (_, payload) = Body::Command(Command::new("play", 0.0, vec![])).encode();
        let wrapped = [&[0], &payload[..]].concat();
        assert!(matches!(Body::decode(&message(17, &wrapped)), Ok(Body::Command(_))));
        assert_eq!(Body::decode(&message(17, &[6, 1])), Err(MessageError::Amf3(17)));
    }

    #[test]
    fn set_data_frame_is_taken_off() {
        let mut payload = BytesMut::new();
        for value in [Value::string("@setDataFrame"), Value::string("onMetaData"), Value::Null] {
            value.encode(&mut payload);
        }
        let expected = Data { name: "onMetaData".into(), values: vec![Value::Null] };
        assert_eq!(Body::decode(&message(18, &payload)), Ok(Body::Data(expected)));
    }

    #[test]
    fn a_message_without_a_name_is_refused() {
        assert_eq!(Body::decode(&message(20, &[5])), Err(MessageError::Unnamed(20)));
        assert_eq!(Body::decode(&message(18, &[])), Err(MessageError::Unnamed(18)));
    }
}

//! The FLV byte stream (annex E.2 to E.5): file header, tag framing, onMetaData.
//!
//! Writes only; what goes into a tag is [`super::tag`]'s affair.

use bytes::{BufMut, Bytes, BytesMut};

use crate::proto::amf0::{Properties, Value};
use crate::proto::message::{Body, Data};

/// Bytes before a tag's body.
pub const TAG_HEADER_LEN: usize = 11;
/// Longest tag body: its length field has 24 bits.
pub const MAX_BODY: usize = 0x00FF_FFFF;

/// Kind of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagType {
    /// Audio.
    Audio = 8,
    /// Video.
    Video = 9,
    /// onMetaData.
    Script = 18,
}

/// The file header and the zero that stands for the size of the tag before the first.
pub fn file_header(has_audio: bool, has_video: bool) -> [u8; 13] {
    let flags = u8::from(has_audio) << 2 | u8::from(has_video);
    [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0]
}

/// Appends one tag with its trailing size; `timestamp` in milliseconds. A body is cut at
/// [`MAX_BODY`], which no RTMP message can exceed.
pub fn write_tag(out: &mut BytesMut, kind: TagType, timestamp: u32, body: &[u8]) {
    let body = &body[..body.len().min(MAX_BODY)];
    out.reserve(TAG_HEADER_LEN + body.len() + 4);
    out.put_u8(kind as u8);
    out.put_uint(body.len() as u64, 3);
    out.put_uint(u64::from(timestamp & 0x00FF_FFFF), 3);
    out.put_u8((timestamp >> 24) as u8);
    out.put_uint(0, 3);
    out.put_slice(body);
    out.put_u32((TAG_HEADER_LEN + body.len()) as u32);
}

/// What onMetaData says; `None` is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Legacy codec id, or the FourCC as a number (enhanced RTMP).
    pub video_codec_id: Option<u32>,
    /// Kilobits per second.
    pub video_kbps: Option<f64>,
    /// Legacy sound format, or the FourCC as a number (enhanced RTMP).
    pub audio_codec_id: Option<u32>,
    /// Kilobits per second.
    pub audio_kbps: Option<f64>,
    /// Samples per second.
    pub sample_rate: Option<u32>,
    /// Two channels.
    pub stereo: Option<bool>,
    /// The encoder's name.
    pub encoder: Option<String>,
}

impl Metadata {
    /// As the ECMA array that follows the name.
    pub fn to_value(&self) -> Value {
        let number = |key, value: Option<f64>| value.map(|n| (key, Value::Number(n)));
        let properties: Properties = [
            number("width", self.width.map(f64::from)),
            number("height", self.height.map(f64::from)),
            number("framerate", self.frame_rate),
            number("videocodecid", self.video_codec_id.map(f64::from)),
            number("videodatarate", self.video_kbps),
            number("audiocodecid", self.audio_codec_id.map(f64::from)),
            number("audiodatarate", self.audio_kbps),
            number("audiosamplerate", self.sample_rate.map(f64::from)),
            self.stereo.map(|flag| ("stereo", Value::Boolean(flag))),
            self.encoder.as_deref().map(|name| ("encoder", Value::string(name))),
        ]
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        Value::EcmaArray(properties)
    }

    /// As the data message that RTMP players get.
    pub fn to_data(&self) -> Data {
        Data { name: "onMetaData".to_owned(), values: vec![self.to_value()] }
    }

    /// As the body of a script tag, which is also the payload of the RTMP data message.
    pub fn to_body(&self) -> Bytes {
        Body::Data(self.to_data()).encode().1
    }

    /// Reads what a publisher says; anything odd is left out.
    pub fn from_value(value: &Value) -> Self {
        let number = |key| value.get(key).and_then(Value::as_number).filter(|n| *n >= 0.0);
        let whole = |key| number(key).filter(|n| *n <= f64::from(u32::MAX)).map(|n| n as u32);
        let codec = |key| match value.get(key) {
            // OBS and FFmpeg write a FourCC either as a number or as text.
            Some(Value::String(text)) => text.as_bytes().try_into().ok().map(u32::from_be_bytes),
            _ => whole(key),
        };
        Self {
            width: whole("width"),
            height: whole("height"),
            frame_rate: number("framerate"),
            video_codec_id: codec("videocodecid"),
            video_kbps: number("videodatarate"),
            audio_codec_id: codec("audiocodecid"),
            audio_kbps: number("audiodatarate"),
            sample_rate: whole("audiosamplerate"),
            stereo: match value.get("stereo") {
                Some(Value::Boolean(flag)) => Some(*flag),
                _ => None,
            },
            encoder: value.get("encoder").and_then(Value::as_str).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_its_size_before_and_after() {
        let mut out = BytesMut::new();
        write_tag(&mut out, TagType::Video, 0x0102_0304, b"abc");
        let expected = [9, 0, 0, 3, 2, 3, 4, 1, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 14];
        assert_eq!(&out[..], &expected);
    }

    #[test]
    fn the_header_says_what_is_inside() {
        assert_eq!(file_header(true, true)[..9], *b"FLV\x01\x05\0\0\0\x09");
        assert_eq!(file_header(false, true)[4], 1);
        assert_eq!(file_header(true, false)[4], 4);
    }

    #[test]
    fn metadata_survives_the_wire() {
        let metadata = Metadata {
            width: Some(1280),
            height: Some(720),
            frame_rate: Some(29.97),
            video_codec_id: Some(7),
            video_kbps: Some(2000.0),
            audio_codec_id: Some(10),
            audio_kbps: Some(128.0),
            sample_rate: Some(48_000),
            stereo: Some(true),
            encoder: Some("x".into()),
        };
        assert_eq!(Metadata::from_value(&metadata.to_value()), metadata);
        let values = crate::proto::amf0::decode_all(&metadata.to_body()).unwrap();
        assert_eq!(values, [Value::string("onMetaData"), metadata.to_value()]);
    }

    #[test]
    fn odd_metadata_is_left_out() {
        let value = Value::object([
            ("width", Value::Number(f64::NAN)),
            ("height", Value::Number(-1.0)),
            ("videocodecid", Value::string("hvc1")),
            ("audiocodecid", Value::string("too long")),
        ]);
        let expected = Metadata { video_codec_id: Some(u32::from_be_bytes(*b"hvc1")), ..Metadata::default() };
        assert_eq!(Metadata::from_value(&value), expected);
    }
}

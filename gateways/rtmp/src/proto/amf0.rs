//! AMF0 values, the encoding of RTMP commands and metadata.
//!
//! Decodes everything but references, AMF3 and the types the specification reserves; each of those
//! is refused by name. Depth and number of values are limited, and nothing is allocated because a
//! count was declared.

use bytes::{BufMut, BytesMut};

/// Deepest nesting of objects and arrays.
pub const MAX_DEPTH: usize = 32;
/// Most values in one message, nested ones counted.
pub const MAX_VALUES: usize = 2048;

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const REFERENCE: u8 = 0x07;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0A;
const DATE: u8 = 0x0B;
const LONG_STRING: u8 = 0x0C;
const XML: u8 = 0x0F;
const TYPED_OBJECT: u8 = 0x10;
const AMF3: u8 = 0x11;

/// Why bytes are not AMF0 that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// A value goes beyond the end of its message.
    #[error("AMF0 value is cut off at byte {0}")]
    Truncated(usize),
    /// Deeper than [`MAX_DEPTH`].
    #[error("AMF0 nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// More than [`MAX_VALUES`].
    #[error("more than {MAX_VALUES} AMF0 values in one message")]
    TooMany,
    /// A reference, AMF3, or a reserved or unknown type.
    #[error("AMF0 type {0:#04x} is not supported")]
    Unsupported(u8),
    /// An object's empty key is not followed by the end marker.
    #[error("AMF0 object has no end marker at byte {0}")]
    NoObjectEnd(usize),
}

/// Named values in the order they came.
pub type Properties = Vec<(String, Value)>;

/// An AMF0 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// A string of either length class; invalid UTF-8 is replaced.
    String(String),
    /// An object; the class name of a typed object is dropped.
    Object(Properties),
    /// An array with string keys.
    EcmaArray(Properties),
    /// An array without keys.
    StrictArray(Vec<Value>),
    /// Milliseconds since 1970.
    Date(f64),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
}

impl Value {
    /// A string value.
    pub fn string(text: impl Into<String>) -> Self {
        Value::String(text.into())
    }

    /// An object of the given properties.
    pub fn object<K: Into<String>>(properties: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Object(properties.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, when it is finite.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) if number.is_finite() => Some(*number),
            _ => None,
        }
    }

    /// The properties of an object or an ECMA array.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Value::Object(properties) | Value::EcmaArray(properties) => Some(properties),
            _ => None,
        }
    }

    /// One property of an object or an ECMA array.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.properties()?.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Appends the value's AMF0 form. Keys are cut at 65535 bytes.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Value::Number(number) => {
                out.put_u8(NUMBER);
                out.put_f64(*number);
            }
            Value::Boolean(flag) => out.put_slice(&[BOOLEAN, u8::from(*flag)]),
            Value::String(text) => encode_string(text, out),
            Value::Object(properties) => {
                out.put_u8(OBJECT);
                encode_properties(properties, out);
            }
            Value::EcmaArray(properties) => {
                out.put_u8(ECMA_ARRAY);
                out.put_u32(properties.len() as u32);
                encode_properties(properties, out);
            }
            Value::StrictArray(values) => {
                out.put_u8(STRICT_ARRAY);
                out.put_u32(values.len() as u32);
                values.iter().for_each(|value| value.encode(out));
            }
            Value::Date(millis) => {
                out.put_u8(DATE);
                out.put_f64(*millis);
                out.put_i16(0);
            }
            Value::Null => out.put_u8(NULL),
            Value::Undefined => out.put_u8(UNDEFINED),
        }
    }
}

fn encode_string(text: &str, out: &mut BytesMut) {
    if text.len() <= usize::from(u16::MAX) {
        out.put_u8(STRING);
        put_short(text, out);
    } else {
        out.put_u8(LONG_STRING);
        out.put_u32(text.len() as u32);
        out.put_slice(text.as_bytes());
    }
}

fn encode_properties(properties: &Properties, out: &mut BytesMut) {
    for (key, value) in properties {
        put_short(key, out);
        value.encode(out);
    }
    out.put_slice(&[0, 0, OBJECT_END]);
}

fn put_short(text: &str, out: &mut BytesMut) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

/// All values of a message body.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut decoder = Decoder { bytes, at: 0, values: 0 };
    let mut values = Vec::new();
    while decoder.at < bytes.len() {
        values.push(decoder.value(0)?);
    }
    Ok(values)
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    values: usize,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        if depth > MAX_DEPTH {
            return Err(AmfError::TooDeep);
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(AmfError::TooMany);
        }
        match self.u8()? {
            NUMBER => Ok(Value::Number(self.f64()?)),
            BOOLEAN => Ok(Value::Boolean(self.u8()? != 0)),
            STRING => Ok(Value::String(self.short_string()?)),
            OBJECT => Ok(Value::Object(self.properties(depth)?)),
            NULL => Ok(Value::Null),
            UNDEFINED => Ok(Value::Undefined),
            ECMA_ARRAY => {
                // The count is a hint that many writers get wrong: the end marker rules.
                self.u32()?;
                Ok(Value::EcmaArray(self.properties(depth)?))
            }
            STRICT_ARRAY => {
                let count = self.u32()?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(depth + 1)?);
                }
                Ok(Value::StrictArray(values))
            }
            DATE => {
                let millis = self.f64()?;
                self.take(2)?; // time zone, "should not be filled" (AMF0 section 2.13)
                Ok(Value::Date(millis))
            }
            LONG_STRING | XML => {
                let len = self.u32()? as usize;
                Ok(Value::String(text(self.take(len)?)))
            }
            TYPED_OBJECT => {
                self.short_string()?;
                Ok(Value::Object(self.properties(depth)?))
            }
            marker @ (REFERENCE | AMF3) => Err(AmfError::Unsupported(marker)),
            marker => Err(AmfError::Unsupported(marker)),
        }
    }

    fn properties(&mut self, depth: usize) -> Result<Properties, AmfError> {
        let mut properties = Vec::new();
        loop {
            let key = self.short_string()?;
            if key.is_empty() {
                if self.u8()? != OBJECT_END {
                    return Err(AmfError::NoObjectEnd(self.at - 1));
                }
                return Ok(properties);
            }
            properties.push((key, self.value(depth + 1)?));
        }
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let len = u16::from_be_bytes(self.array()?);
        Ok(text(self.take(usize::from(len))?))
    }

    fn u8(&mut self) -> Result<u8, AmfError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, AmfError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn f64(&mut self) -> Result<f64, AmfError> {
        Ok(f64::from_be_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let rest = &self.bytes[self.at..];
        let array = *rest.first_chunk().ok_or(AmfError::Truncated(self.at))?;
        self.at += N;
        Ok(array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], AmfError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(AmfError::Truncated(self.at))?;
        self.at += len;
        Ok(taken)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<f64>().prop_filter("NaN is not equal to itself", |n| !n.is_nan()).prop_map(Value::Number),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            (-1e15f64..1e15).prop_map(Value::Date),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let pairs = prop::collection::vec(("[a-z]{1,8}", inner.clone()), 0..5);
            prop_oneof![
                pairs.clone().prop_map(Value::Object),
                pairs.prop_map(Value::EcmaArray),
                prop::collection::vec(inner, 0..5).prop_map(Value::StrictArray),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value in any_value()) {
            let mut out = BytesMut::new();
            value.encode(&mut out);
            prop_assert_eq!(decode_all(&out).unwrap(), vec![value]);
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_all(&bytes);
        }
    }

    #[test]
    fn nesting_stops_at_the_limit() {
        let mut deep = Vec::new();
        for _ in 0..100_000 {
            deep.extend_from_slice(&[OBJECT, 0, 1, b'a']);
        }
        assert_eq!(decode_all(&deep), Err(AmfError::TooDeep));
        assert_eq!(decode_all(&[STRICT_ARRAY, 0, 0, 0, 1].repeat(100_000)), Err(AmfError::TooDeep));
    }

    #[test]
    fn declared_counts_allocate_nothing() {
        let array = [STRICT_ARRAY, 255, 255, 255, 255, NULL];
        assert_eq!(decode_all(&array), Err(AmfError::Truncated(6)));
        let ecma = [ECMA_ARRAY, 255, 255, 255, 255, 0, 0, OBJECT_END];
        assert_eq!(decode_all(&ecma), Ok(vec![Value::EcmaArray(vec![])]));
    }

    #[test]
    fn too_many_values_are_refused() {
        assert_eq!(decode_all(&[NULL; MAX_VALUES + 1]), Err(AmfError::TooMany));
        assert_eq!(decode_all(&[NULL; MAX_VALUES]).map(|v| v.len()), Ok(MAX_VALUES));
    }

    #[test]
    fn bad_values_are_named() {
        for (bytes, error) in [
            (&[STRING, 0, 9, b'a'][..], AmfError::Truncated(3)),
            (&[LONG_STRING, 255, 255, 255, 255, b'a'], AmfError::Truncated(5)),
            (&[NUMBER, 1, 2], AmfError::Truncated(1)),
            (&[REFERENCE, 0, 0], AmfError::Unsupported(REFERENCE)),
            (&[AMF3, 1], AmfError::Unsupported(AMF3)),
            (&[0x04], AmfError::Unsupported(4)),
            (&[OBJECT, 0, 0, NULL], AmfError::NoObjectEnd(3)),
        ] {
            assert_eq!(decode_all(bytes), Err(error), "{bytes:?}");
        }
    }
}

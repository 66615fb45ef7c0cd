//! [`Secret`]: text that neither logs, error messages nor API answers ever show.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What samples carry; refused, so that nobody runs with a secret that is printed in a manual.
const SAMPLE: &str = "change-me";

/// A key or token. `Debug`, `Display` and `Serialize` write `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a secret was refused; says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// No characters.
    #[error("a secret may not be empty")]
    Empty,
    /// A sample's.
    #[error("this is the secret of the sample; choose your own")]
    Sample,
}

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Result<Self, BadSecret> {
        match text.into() {
            text if text.is_empty() => Err(BadSecret::Empty),
            text if text.starts_with(SAMPLE) => Err(BadSecret::Sample),
            text => Ok(Self(text)),
        }
    }

    /// The text itself, for the wire only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // `writeOnly` is how the loader, the documents and editors know a secret.
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

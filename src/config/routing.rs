//! [`Route`] and [`Push`]: what stream names mean, and where streams are sent.

use std::fmt;

use patchbay_bus::StreamName;
use patchbay_rules::{EndpointKind, Pattern};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::Secret;

/// What a set of stream names means.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// Names this route is for: `*` stands for any characters inside a part, `**` for any across parts.
    pub stream: Pattern,
    /// The kind of endpoint that publishes and plays these names over RTMP and FLV; `rtmp` if not given.
    #[serde(default)]
    pub kind: Option<RtmpKind>,
    /// Key a publisher must bring (`?key=` in its URL, or a Bearer token). Without one anybody may publish.
    /// A second publisher that brings it takes the name over from the first.
    #[serde(default)]
    pub publish_key: Option<Secret>,
    /// Key a viewer must bring. Without one anybody may play.
    #[serde(default)]
    pub play_key: Option<Secret>,
}

/// The kinds of endpoint that speak RTMP and FLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RtmpKind {
    /// Native RTMP clients, players and servers.
    Rtmp,
    /// WeChat mini-programs.
    Miniprogram,
    /// A content delivery network.
    Cdn,
}

impl From<RtmpKind> for EndpointKind {
    fn from(kind: RtmpKind) -> Self {
        match kind {
            RtmpKind::Rtmp => Self::Rtmp,
            RtmpKind::Miniprogram => Self::Miniprogram,
            RtmpKind::Cdn => Self::Cdn,
        }
    }
}

/// A stream that is pushed elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Push {
    /// Name of this push in API, metrics and log lines; no two are the same.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// The stream to push.
    #[serde(with = "stream_name")]
    #[schemars(with = "String")]
    pub stream: StreamName,
    /// Server, application and, unless `stream_key` is given, stream to push to, as `rtmp://HOST[:PORT]/APP/STREAM`.
    pub url: PushUrl,
    /// Last part of the URL, where it is a secret. It is appended to `url` after a `/`.
    #[serde(default)]
    pub stream_key: Option<Secret>,
    /// Which kind of endpoint the receiver is, for the rule table.
    #[serde(default = "cdn")]
    pub kind: RtmpKind,
    /// Whether the push runs; `false` keeps it in the list, stopped.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Push {
    /// The whole URL. Holds the secret: for the wire, not for logs.
    pub fn target(&self) -> String {
        match &self.stream_key {
            Some(key) => format!("{}/{}", self.url.as_str().trim_end_matches('/'), key.reveal()),
            None => self.url.as_str().to_owned(),
        }
    }
}

fn cdn() -> RtmpKind {
    RtmpKind::Cdn
}

fn yes() -> bool {
    true
}

mod stream_name {
    //! [`StreamName`] as its text.
    use super::*;

    pub fn serialize<S: Serializer>(name: &StreamName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(name.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StreamName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A checked RTMP URL. `Display`, `Debug` and `Serialize` leave out user, password and query.
#[derive(Clone, PartialEq, Eq)]
pub struct PushUrl(url::Url);

/// Why a URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPushUrl {
    /// Not a URL at all.
    #[error("not a URL ({0}); expected rtmp://HOST[:PORT]/APP/STREAM")]
    Syntax(#[from] url::ParseError),
    /// Another protocol.
    #[error("pushes go to rtmp:// URLs, not to {0}://")]
    Scheme(String),
    /// No server in it.
    #[error("the URL names no host; expected rtmp://HOST[:PORT]/APP/STREAM")]
    Host,
    /// No application in it.
    #[error("the URL names no application; expected rtmp://HOST[:PORT]/APP/STREAM")]
    Application,
}

impl PushUrl {
    /// The whole URL, with what `Display` hides.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl std::str::FromStr for PushUrl {
    type Err = BadPushUrl;

    fn from_str(s: &str) -> Result<Self, BadPushUrl> {
        let url = url::Url::parse(s)?;
        if url.scheme() != "rtmp" {
            return Err(BadPushUrl::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadPushUrl::Host);
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(BadPushUrl::Application);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rtmp://{}", self.0.host_str().unwrap_or_default())?;
        if let Some(port) = self.0.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(self.0.path())
    }
}

impl fmt::Debug for PushUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PushUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PushUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PushUrl {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PushUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A URL may hold user, password or key.
        json_schema!({ "type": "string", "x-sensitive": true })
    }
}

/// For the documents: one route with every key.
pub fn example_routes() -> Json {
    json!([{ "stream": "wx/**", "kind": "miniprogram", "publish_key": "change-me-publish", "play_key": "change-me-play" }])
}

/// For the documents: one rule.
pub fn example_rules() -> Json {
    json!([{ "name": "phones", "from": ["rtmp", "miniprogram"], "to": ["webrtc"], "stream": "phone/**",
       "video": { "codec": "h264", "size": "640x360", "bitrate_kbps": 600 }, "audio": "auto",
    }])
}

/// For the documents: one push with every key.
pub fn example_pushes() -> Json {
    json!([{
        "name": "cdn-main", "stream": "live/demo", "url": "rtmp://cdn.example.org/live", "stream_key": "change-me-stream",
        "kind": "cdn", "enabled": true,
    }])
}

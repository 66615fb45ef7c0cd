//! [`Route`] and [`Push`]: what stream names mean, and where streams are sent.

use std::fmt;
use std::path::PathBuf;

use patchbay_bus::StreamName;
use patchbay_rtmp::proto::url::UrlError;
use patchbay_rtmp::push;
use patchbay_rules::{EndpointKind, Pattern};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value as Json, json};

use super::Secret;
use crate::hub::SecondPublisher;

/// What a set of stream names means.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Route {
    /// Names this route is for: `*` stands for any characters inside a part, `**` for any across parts.
    pub stream: Pattern,
    /// The kind of endpoint that publishes and plays these names over RTMP and FLV; `rtmp` if not given. `?kind=` in a
    /// client's URL comes before it.
    #[serde(default)]
    pub kind: Option<RtmpKind>,
    /// Key a publisher must bring (`?key=` in its URL, or a Bearer token). Without one `[auth]` decides.
    #[serde(default)]
    pub publish_key: Option<Secret>,
    /// What happens to a publisher whose name has one already: `takeover` lets it take the first one's place, `reject`
    /// refuses it, `backup` has it stand by until the first leaves. `takeover` if not given and there is a
    /// `publish_key`, otherwise `reject`.
    #[serde(default)]
    pub second_publisher: Option<SecondPublisher>,
    /// Key a viewer must bring. Without one `[auth]` decides: anybody may play, unless a token or a webhook is asked for.
    #[serde(default)]
    pub play_key: Option<Secret>,
    /// `anyone` lets anybody publish these names, whatever `[auth]` says.
    #[serde(default)]
    pub publish: Option<Access>,
    /// `anyone` lets anybody play these names, whatever `[auth]` says.
    #[serde(default)]
    pub play: Option<Access>,
}

/// Who needs no key and no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Whoever reaches the port.
    Anyone,
}

/// Services that sign addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Tencent Cloud: `txSecret` (MD5) and `txTime`.
    Tencent,
    /// Alibaba Cloud: `auth_key`.
    Aliyun,
}

impl From<Provider> for push::Provider {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Tencent => Self::Tencent,
            Provider::Aliyun => Self::Aliyun,
        }
    }
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
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Push {
    /// Name of this push in API, metrics and log lines; no two are the same.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// The stream to push.
    #[serde(deserialize_with = "stream_name")]
    #[schemars(with = "String")]
    pub stream: StreamName,
    /// Server, application and, unless `stream_key` is given, stream to push to, as `rtmp://HOST[:PORT]/APP/STREAM`
    /// or the same with `rtmps://`.
    pub url: RtmpAddress,
    /// Name of the stream, where it is a secret; it may hold slashes. `url` ends with the application then.
    #[serde(default)]
    pub stream_key: Option<Secret>,
    /// A service that wants its addresses signed; every connection gets an address of its own, good for a day.
    #[serde(default)]
    pub provider: Option<Provider>,
    /// The key that `provider` signs with, from the service's console. Needed with `provider`.
    #[serde(default)]
    pub key: Option<Secret>,
    /// Another server of the same receiver, pushed to once `url` has failed three times in a row, and the other way round.
    #[serde(default)]
    pub backup_url: Option<RtmpAddress>,
    /// Last part of the backup's URL; `stream_key` where that is not given.
    #[serde(default)]
    pub backup_stream_key: Option<Secret>,
    /// How long the backup is kept before `url` is tried again, seconds. The backup is left only once that takes the stream.
    #[serde(default = "backup_hold")]
    #[schemars(range(min = 1, max = 86_400))]
    pub backup_hold_s: u32,
    /// Certificates (PEM) that vouch for an rtmps server; those of the machine where it is not given.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Which kind of endpoint the receiver is, for the rule table.
    #[serde(default = "cdn")]
    pub kind: RtmpKind,
    /// Whether the push runs; `false` keeps it in the list, stopped.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Push {
    /// Where it goes.
    ///
    /// # Errors
    /// What is wrong with the whole. Says nothing of the URL itself, which may hold a key.
    pub fn target(&self) -> Result<push::Target, String> {
        whole(&self.url, self.stream_key.as_ref())
    }

    /// The same of the backup.
    ///
    /// # Errors
    /// As [`Self::target`].
    pub fn backup_target(&self) -> Result<Option<push::Target>, String> {
        let key = self.backup_stream_key.as_ref().or(self.stream_key.as_ref());
        self.backup_url.as_ref().map(|url| whole(url, key)).transpose()
    }

    /// What signs its addresses.
    pub fn signer(&self) -> Option<push::Signer> {
        let (provider, key) = (self.provider?, self.key.as_ref()?);
        Some(push::Signer::new(provider.into(), key.reveal()))
    }
}

fn whole(url: &RtmpAddress, key: Option<&Secret>) -> Result<push::Target, String> {
    let target = match key {
        Some(key) => push::Target::with_key(&url.0, key.reveal()),
        None => push::Target::parse(&url.0),
    };
    target.map_err(bad_target)
}

fn backup_hold() -> u32 {
    300
}

fn cdn() -> RtmpKind {
    RtmpKind::Cdn
}

fn yes() -> bool {
    true
}

fn stream_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StreamName, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// An RTMP URL with a host and an application; whether it names a stream is known only with the stream key. May hold
/// a key itself, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, JsonSchema)]
#[schemars(inline, transparent, extend("x-sensitive" = true))]
pub struct RtmpAddress(String);

impl RtmpAddress {
    /// As it is written. For the wire, not for logs.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for RtmpAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match push::Target::parse(&format!("{text}/stream")) {
            Ok(_) => Ok(Self(text)),
            Err(why) => Err(serde::de::Error::custom(bad_target(why))),
        }
    }
}

pub(super) fn bad_target(why: UrlError) -> String {
    format!("{why}; expected rtmp://HOST[:PORT]/APP/STREAM, or without /STREAM where there is a stream_key")
}

impl fmt::Debug for RtmpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rtmp://***")
    }
}

/// For the documents: one route with every key.
pub fn example_routes() -> Json {
    json!([{ "stream": "wx/**", "kind": "miniprogram", "publish_key": "change-me-publish", "second_publisher": "takeover", "play_key": "change-me-play" }])
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
        "provider": "tencent", "key": "change-me-key",
        "backup_url": "rtmp://cdn2.example.org/live", "backup_hold_s": 300,
        "kind": "cdn", "enabled": true,
    }])
}

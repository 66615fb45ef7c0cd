//! [`Pull`]: streams that are fetched from elsewhere when somebody plays them.

use std::path::PathBuf;
use std::time::Duration;

use patchbay_bus::StreamName;
use patchbay_rtmp::push;
use patchbay_rules::Pattern;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::routing::{RtmpAddress, bad_target};

/// What stands for the whole name of a stream in a URL, and for its last part.
const NAMES: [&str; 2] = ["{stream}", "{name}"];

/// Streams that are fetched from another RTMP server while somebody plays them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Pull {
    /// Names this is for: `*` stands for any characters inside a part, `**` for any across parts. The first pull whose
    /// pattern matches counts.
    pub stream: Pattern,
    /// Where from: `rtmp://HOST[:PORT]/APP/STREAM`, or the same with `rtmps://`. After the host, `{stream}` stands for the name
    /// that is played and `{name}` for its last part.
    pub url: RtmpAddress,
    /// How long it goes on after its last viewer has left, seconds. Never less than `wait_s`.
    #[serde(default = "idle")]
    #[schemars(range(min = 1, max = 86_400))]
    pub idle_s: u32,
    /// How long a viewer waits for the stream to come, seconds; then it is told `stream_not_found`, and how the pull is.
    #[serde(default = "wait")]
    #[schemars(range(min = 1, max = 30))]
    pub wait_s: u32,
    /// Certificates (PEM) that vouch for an rtmps server; those of the machine where it is not given.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

impl Pull {
    /// Where a stream comes from. May hold a secret: for the wire, not for logs.
    pub fn target(&self, stream: &StreamName) -> String {
        self.fill(stream.as_str())
    }

    fn fill(&self, stream: &str) -> String {
        let name = stream.rsplit('/').next().unwrap_or(stream);
        self.url.text().replace(NAMES[0], stream).replace(NAMES[1], name)
    }

    /// Where from, without the last part and the query, which may hold a secret.
    pub fn shown_url(&self) -> String {
        let text = self.url.text();
        let path = text.split_once('?').map_or(text, |(path, _)| path);
        path.rsplit_once('/').map_or_else(String::new, |(server, _)| format!("{server}/***"))
    }

    /// What is wrong with the URL.
    pub fn bad_url(&self) -> Option<String> {
        let text = self.url.text();
        let host = text.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
        if NAMES.iter().any(|name| host.contains(name)) {
            return Some("viewers choose the names, so a name may not choose the host".into());
        }
        if self.stream.as_str().contains('*') && !NAMES.iter().any(|name| text.contains(name)) {
            return Some("needs {stream} or {name}: the pattern is for many streams".into());
        }
        let some_name = self.stream.as_str().replace('*', "x");
        push::Target::parse(&self.fill(&some_name)).err().map(bad_target)
    }

    /// How long it goes on without viewers.
    pub fn idle(&self) -> Duration {
        // One that waits is no viewer yet.
        Duration::from_secs(self.idle_s.max(self.wait_s).into())
    }

    /// How long a viewer waits.
    pub fn wait(&self) -> Duration {
        Duration::from_secs(self.wait_s.into())
    }
}

fn idle() -> u32 {
    30
}

fn wait() -> u32 {
    4
}

/// For the documents: one pull with every key.
pub fn example_pulls() -> Json {
    json!([{ "stream": "cam/*", "url": "rtmp://origin.example.org/live/{name}", "idle_s": 30, "wait_s": 4 }])
}

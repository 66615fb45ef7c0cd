//! Routes: what a stream name says about its endpoints.

use patchbay_bus::StreamName;
use patchbay_rules::{EndpointKind, Pattern};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::auth::Act;

/// What happens to a publisher whose name has one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecondPublisher {
    /// It takes the place of the first, which is disconnected.
    Takeover,
    /// It is refused as `stream_busy`.
    Reject,
    /// It stands by and goes live when the first leaves.
    Backup,
}

/// Applies to the names its pattern matches.
#[derive(Clone)]
pub struct Route {
    /// Which names.
    pub pattern: Pattern,
    /// Kind of whoever publishes or plays such a name over RTMP or FLV.
    pub kind: Option<EndpointKind>,
    /// Key a publisher must bring.
    pub publish_key: Option<String>,
    /// What happens to a second publisher, where that is said.
    pub second_publisher: Option<SecondPublisher>,
    /// Key a viewer must bring.
    pub play_key: Option<String>,
    /// Anybody may publish.
    pub publish_open: bool,
    /// Anybody may play.
    pub play_open: bool,
}

impl Route {
    /// The key that this needs, if it needs one.
    pub fn key_for(&self, act: Act) -> Option<&str> {
        match act {
            Act::Publish => self.publish_key.as_deref(),
            Act::Play => self.play_key.as_deref(),
        }
    }

    /// Whether anybody may do this.
    pub fn is_open_for(&self, act: Act) -> bool {
        match act {
            Act::Publish => self.publish_open,
            Act::Play => self.play_open,
        }
    }

    /// What happens to a second publisher: whoever brings the route's key is the same person back again, so it takes
    /// over unless the route says otherwise.
    pub fn second_publisher(&self) -> SecondPublisher {
        let usual = if self.publish_key.is_some() { SecondPublisher::Takeover } else { SecondPublisher::Reject };
        self.second_publisher.unwrap_or(usual)
    }
}

/// All routes, first match wins.
#[derive(Clone, Default)]
pub struct Routes(pub Vec<Route>);

impl Routes {
    /// The route of a name.
    pub fn of(&self, stream: &StreamName) -> Option<&Route> {
        self.0.iter().find(|route| route.pattern.matches(stream.as_str()))
    }

    /// The kind an RTMP-family endpoint of this name has.
    pub fn kind_of(&self, stream: &StreamName, usual: EndpointKind) -> EndpointKind {
        // Only the RTMP family is ambiguous: an H.264/AAC client of this name may be a mini-program or a CDN.
        if usual != EndpointKind::Rtmp {
            return usual;
        }
        self.of(stream).and_then(|route| route.kind).unwrap_or(usual)
    }
}

//! Routes: what a stream name says about its endpoints.

use patchbay_bus::StreamName;
use patchbay_rules::{EndpointKind, Pattern};

/// Applies to the names its pattern matches.
#[derive(Clone)]
pub struct Route {
    /// Which names.
    pub pattern: Pattern,
    /// Kind of whoever publishes or plays such a name over RTMP or FLV.
    pub kind: Option<EndpointKind>,
    /// Key a publisher must bring. With a key set, a second publisher that brings it takes over.
    pub publish_key: Option<String>,
    /// Key a viewer must bring.
    pub play_key: Option<String>,
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

//! [`EndpointKind`]: what a source or sink is, as rules and tables name it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($variant:ident, $name:literal, $doc:literal;)*) => {
        /// What a source or a sink is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum EndpointKind {
            $(#[doc = $doc] $variant,)*
        }

        impl EndpointKind {
            /// Every kind.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The name in configuration, API and tables.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line for documents.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

kinds! {
    Webrtc, "webrtc", "A browser or another WebRTC client: WHIP, WHEP, rooms.";
    H5, "h5", "A browser without WebRTC: MPEG-1 video and MP2 audio over WebSocket (jsmpeg).";
    Miniprogram, "miniprogram", "A WeChat mini-program (live-pusher, live-player) over RTMP or HTTP-FLV.";
    Rtmp, "rtmp", "A native RTMP client or player (OBS, FFmpeg, VLC), and HTTP-FLV.";
    Udp, "udp", "A native client or another hub over the native UDP protocol.";
    Cdn, "cdn", "A content delivery network: RTMP pulled from it or pushed to it.";
    Sip, "sip", "A phone, room system or trunk: SIP with RTP.";
    Mix, "mix", "A room mixed to one stream; a source only.";
    File, "file", "A recording; a sink only.";
}

impl EndpointKind {
    /// The kinds that can be a source, in the order of the matrix's rows.
    pub const SOURCES: [Self; 8] = [Self::Webrtc, Self::H5, Self::Miniprogram, Self::Rtmp, Self::Udp, Self::Cdn, Self::Sip, Self::Mix];
    /// The kinds that can be a sink, in the order of the matrix's columns.
    pub const SINKS: [Self; 8] = [Self::Webrtc, Self::H5, Self::Miniprogram, Self::Rtmp, Self::Udp, Self::Cdn, Self::Sip, Self::File];
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No endpoint kind has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint kind is named {given:?}; did you mean {nearest}? (known: {known})", known = EndpointKind::ALL.map(EndpointKind::name).join(", "))]
pub struct UnknownKind {
    /// What was asked for, shortened.
    pub given: String,
    /// The kind whose name is most like it.
    pub nearest: EndpointKind,
}

impl FromStr for EndpointKind {
    type Err = UnknownKind;

    fn from_str(s: &str) -> Result<Self, UnknownKind> {
        let given: String = s.chars().take(32).collect::<String>().to_ascii_lowercase();
        if let Some(kind) = Self::ALL.into_iter().find(|k| k.name() == given) {
            return Ok(kind);
        }
        let likeness = |k: &Self| strsim::jaro_winkler(k.name(), &given);
        let nearest = Self::ALL.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or(Self::Webrtc);
        Err(UnknownKind { given, nearest })
    }
}

//! What a peer may ask of a server session, and what it may be told no with. Names and queries are
//! as the peer sent them: checking them against a grammar, and keeping them out of logs, is up to
//! whoever acts on them.

use std::fmt;

use bytes::Bytes;

use super::fourcc::FourCcs;
use super::message::Data;

/// The bit of capsEx of a client that obeys a request to connect again (enhanced RTMP v2).
pub const CAPS_RECONNECT: u32 = 1;

/// A peer's connect command.
#[derive(Clone, PartialEq, Default)]
pub struct Connect {
    /// Application, without its query and outer slashes.
    pub app: String,
    /// What follows the first `?` of the application, or of the tcUrl when the application has
    /// none; empty when neither has one.
    pub query: String,
    /// The URL as the peer dialled it. May hold secrets.
    pub tc_url: String,
    /// The peer's software, as it names itself.
    pub flash_ver: String,
    /// Page that embeds a player.
    pub page_url: String,
    /// Codecs the peer names; not empty means enhanced RTMP.
    pub fourccs: FourCcs,
    /// Enhanced-RTMP capsEx bits; 1 is [`CAPS_RECONNECT`].
    pub caps_ex: u32,
}

/// A stream name as publish and play give it.
#[derive(Clone, PartialEq, Default)]
pub struct StreamName {
    /// Message stream id the request came on.
    pub stream_id: u32,
    /// Name without its query and leading slashes; not yet checked against any grammar.
    pub name: String,
    /// What follows the first `?`, empty without one. May hold secrets.
    pub query: String,
}

// Queries and URLs carry tokens: Debug, and so every log, leaves them out.

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Connect");
        out.field("app", &self.app).field("flash_ver", &self.flash_ver);
        out.field("fourccs", &self.fourccs).field("caps_ex", &self.caps_ex).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("StreamName");
        out.field("stream_id", &self.stream_id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a publisher wants to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishKind {
    /// Not at all.
    Live,
    /// As a new file.
    Record,
    /// After an earlier file.
    Append,
}

/// What a peer did.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It wants in; waits for a decision.
    Connect(Connect),
    /// It wants to publish; waits for a decision.
    Publish {
        /// Under this name.
        stream: StreamName,
        /// The recording it wishes for.
        kind: PublishKind,
    },
    /// It wants to play; waits for a decision.
    Play {
        /// This name.
        stream: StreamName,
        /// Where to begin; negative is live. The specification says seconds, FFmpeg and librtmp send
        /// milliseconds, so only the sign means anything.
        start: f64,
    },
    /// An accepted publisher's audio.
    Audio {
        /// Message stream id.
        stream_id: u32,
        /// Milliseconds, wraps at 2^32.
        timestamp: u32,
        /// FLV audio tag body.
        payload: Bytes,
    },
    /// An accepted publisher's video.
    Video {
        /// Message stream id.
        stream_id: u32,
        /// Milliseconds, wraps at 2^32.
        timestamp: u32,
        /// FLV video tag body.
        payload: Bytes,
    },
    /// An accepted publisher's data, as in onMetaData.
    Data {
        /// Message stream id.
        stream_id: u32,
        /// Milliseconds, wraps at 2^32.
        timestamp: u32,
        /// What it says.
        data: Data,
    },
    /// A player pauses or goes on; it has been told that it may.
    Pause {
        /// Message stream id.
        stream_id: u32,
        /// False to go on.
        paused: bool,
    },
    /// A player wants or does not want audio or video any more.
    Receive {
        /// Message stream id.
        stream_id: u32,
        /// True for video, false for audio.
        video: bool,
        /// Whether it wants it.
        wanted: bool,
    },
    /// A player's buffer.
    BufferLength {
        /// Message stream id.
        stream_id: u32,
        /// Milliseconds.
        millis: u32,
    },
    /// Answer to [`ServerSession::ping`].
    Pong(u32),
    /// Publishing or playing on a stream is over.
    Closed {
        /// Message stream id.
        stream_id: u32,
    },
}

/// Why a request is refused, as the peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The name or token is not good enough.
    Denied,
    /// No such application or stream.
    NotFound,
    /// Somebody publishes under that name.
    Busy,
    /// Not the peer's fault.
    Failed,
}

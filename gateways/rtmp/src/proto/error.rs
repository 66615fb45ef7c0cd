//! The one error of a session: which layer refused the peer, and why.

use super::amf0::AmfError;
use super::chunk::ChunkError;
use super::handshake::HandshakeError;
use super::message::MessageError;

/// Why a session cannot go on. The connection must be closed after any of these, except
/// [`Error::NothingPending`] and [`Error::NotReady`], which report a wrong call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer does not speak plain RTMP.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The chunk stream is broken or over its limits.
    #[error("chunk stream: {0}")]
    Chunk(#[from] ChunkError),
    /// A protocol message is malformed.
    #[error("message: {0}")]
    Message(#[from] MessageError),
    /// A command came where the protocol does not allow it.
    #[error("command `{command}` is not allowed {state}")]
    UnexpectedCommand {
        /// The command's name.
        command: &'static str,
        /// When it came, as in "before connect".
        state: &'static str,
    },
    /// A command lacks an argument it must have.
    #[error("command `{command}` lacks its {argument}")]
    MissingArgument {
        /// The command's name.
        command: &'static str,
        /// The missing argument.
        argument: &'static str,
    },
    /// The peer made us queue more answers than we keep while it does not read.
    #[error("{queued} bytes of answers queued, {limit} allowed")]
    OutputFull {
        /// Bytes queued.
        queued: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The server we dialled refused us.
    #[error("server refused {stage}: {code} ({description})")]
    Refused {
        /// What it refused: "connect", "createStream", "publish" or "play".
        stage: &'static str,
        /// Its status code, as in `NetStream.Publish.BadName`; empty when it gave none.
        code: String,
        /// Its words; empty when it gave none.
        description: String,
    },
    /// `accept` or `reject` was called while no request waits.
    #[error("no request waits for a decision")]
    NothingPending,
    /// Media was sent before the server let us publish.
    #[error("not publishing yet")]
    NotReady,
}

impl From<AmfError> for Error {
    fn from(error: AmfError) -> Self {
        Error::Message(MessageError::Amf(error))
    }
}

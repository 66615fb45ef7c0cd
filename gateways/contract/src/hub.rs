//! [`Hub`]: what a gateway may ask for.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use patchbay_bus::StreamName;
use patchbay_rules::{EndpointKind, Sink};

use crate::{Credentials, Leg, Publication, Refusal};

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Protocol as users know it: `rtmp`, `http-flv`, `ws-flv`, `whip`, `whep`, `push`.
    pub protocol: &'static str,
    /// Address the peer is seen at.
    pub peer: Option<SocketAddr>,
    /// What the peer says it is (`User-Agent`, `flashVer`), at most 256 bytes.
    pub agent: Option<String>,
    /// What it brought to show that it may.
    pub credentials: Credentials,
    /// The operator asked, by configuration or API, and no peer did: keys are not asked for.
    pub operator: bool,
    /// A publisher that gives way: it comes only where nobody publishes, and goes when anybody else wants to.
    pub yields: bool,
}

/// A source wants to publish.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// Under this name.
    pub stream: StreamName,
    /// As this kind of endpoint.
    pub kind: EndpointKind,
    /// Who asks.
    pub caller: Caller,
}

/// A sink wants to play.
#[derive(Clone, Debug)]
pub struct PlayRequest {
    /// This stream.
    pub stream: StreamName,
    /// With this kind, and these codecs.
    pub sink: Sink,
    /// Who asks.
    pub caller: Caller,
    /// `true`: a name that is not live yet is waited for, with an empty feed. `false`: refused as
    /// `stream_not_found`.
    pub wait: bool,
}

/// An answer that may take a moment (authorisation may ask a third party).
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// What a peer takes up by being connected; given back when dropped.
pub type Place = Box<dyn Send + Sync>;

/// The hub, seen from a gateway.
pub trait Hub: Send + Sync + 'static {
    /// Somebody has connected over a protocol of its own and has asked for nothing yet. Hold the place until it has.
    ///
    /// # Errors
    /// Its address has too many such connections.
    fn connect(&self, _peer: SocketAddr) -> Result<Option<Place>, Refusal> {
        Ok(None)
    }

    /// Begins a publication.
    fn publish(&self, request: PublishRequest) -> Answer<'_, Publication>;

    /// Attaches a sink to a stream: plans, starts what must be transcoded, and opens a ledger row.
    fn play(&self, request: PlayRequest) -> Answer<'_, Leg>;

    /// Whether sessions that are to end are so because the process is about to stop: a peer may be told where to go on.
    fn is_draining(&self) -> bool {
        false
    }

    /// The kind a name belongs to when it comes in, or is played, over a protocol whose usual kind is `usual`
    /// (routes may say `miniprogram` or `cdn` for RTMP).
    fn kind_of(&self, stream: &StreamName, usual: EndpointKind) -> EndpointKind;
}

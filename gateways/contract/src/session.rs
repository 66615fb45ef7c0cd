//! What the hub hands out: [`Publication`] to a source, [`Leg`] to a sink. Both are entries of the ledger for as
//! long as they are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use patchbay_bus::{EndReason, Feed, Lag, Publisher, Signal, StreamName, Subscription};
use patchbay_media::MediaTime;
use tokio_util::sync::CancellationToken;

use crate::Transport;

/// How long a layer of a simulcast may be silent and still count as sent.
pub const LAYER_SILENT_MAX: MediaTime = MediaTime::from_millis(1_500);

/// Process-wide number of a session; appears in the API, in log lines and in the ledger.
pub type SessionId = u64;

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer: it said goodbye, broke off or fell silent.
    Peer,
    /// patchbay: refusal, kick, drain, fault.
    Here,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Who ended it.
    pub side: Side,
    /// Reason code, e.g. `closed`, `timeout`, `kicked`, `publisher_lost`, `protocol_error`.
    pub code: &'static str,
    /// More for the log line; may be empty.
    pub detail: String,
}

impl Cause {
    /// The peer ended it.
    pub fn peer(code: &'static str) -> Self {
        Self { side: Side::Peer, code, detail: String::new() }
    }

    /// patchbay ended it.
    pub fn here(code: &'static str) -> Self {
        Self { side: Side::Here, code, detail: String::new() }
    }

    /// With more words.
    pub fn with(mut self, detail: impl ToString) -> Self {
        self.detail = detail.to_string();
        self
    }
}

/// Counters of one session, written by the gateway and read by the API. Bytes are media payload bytes with
/// protocol framing, as close to the wire as the gateway knows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes received from (publications) or sent to (legs) the peer.
    pub bytes: AtomicU64,
    /// Frames received or sent.
    pub frames: AtomicU64,
    /// Packets or frames the peer reported, or we saw, missing.
    pub lost: AtomicU64,
    /// Packets sent again.
    pub retransmitted: AtomicU64,
    /// Frames skipped because the peer was slow.
    pub skipped: AtomicU64,
    /// Key frames the peer asked for.
    pub keyframe_requests: AtomicU64,
    /// Last round-trip time, microseconds; 0 while unknown.
    pub rtt_us: AtomicU64,
    /// What the peer's link is thought to take, bits per second; 0 while unknown.
    pub bandwidth_bps: AtomicU64,
    /// Time from a frame's arrival to its departure, nanoseconds, smoothed over about 32 frames.
    delay_ns: AtomicI64,
    /// 0 while unknown.
    transport: AtomicU8,
}

impl Counters {
    /// Adds one frame of `bytes` bytes that stayed `delay_ns` inside.
    pub fn frame(&self, bytes: usize, delay_ns: i64) {
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let old = self.delay_ns.load(Ordering::Relaxed);
        let new = if old == 0 { delay_ns } else { old + (delay_ns - old) / 32 };
        self.delay_ns.store(new, Ordering::Relaxed);
    }

    /// The smoothed time inside, nanoseconds.
    pub fn delay_ns(&self) -> i64 {
        self.delay_ns.load(Ordering::Relaxed)
    }

    /// Media goes over this; for protocols that have a choice.
    pub fn set_transport(&self, transport: Transport) {
        self.transport.store(if transport == Transport::Tcp { 1 } else { 2 }, Ordering::Relaxed);
    }

    /// What media goes over, once that is known.
    pub fn transport(&self) -> Option<Transport> {
        match self.transport.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Transport::Tcp),
            _ => Some(Transport::Udp),
        }
    }
}

/// Takes a session out of the ledger; called exactly once. The reason is what the stream's readers are told; it says
/// nothing for a leg.
pub type Closer = Box<dyn FnOnce(Cause, EndReason) + Send>;

/// Calls the closer on drop, with "dropped" if nobody gave a better cause.
struct Guard {
    closer: Option<Closer>,
}

impl Guard {
    fn close(&mut self, cause: Cause, reason: EndReason) {
        if let Some(closer) = self.closer.take() {
            closer(cause, reason);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.close(Cause::here("dropped"), EndReason::Lost);
    }
}

/// The right to publish one stream.
pub struct Publication {
    id: SessionId,
    publisher: Option<Publisher>,
    counters: Arc<Counters>,
    cancelled: CancellationToken,
    guard: Guard,
}

impl Publication {
    /// For the hub.
    pub fn new(id: SessionId, publisher: Publisher, counters: Arc<Counters>, cancelled: CancellationToken, closer: Closer) -> Self {
        Self { id, publisher: Some(publisher), counters, cancelled, guard: Guard { closer: Some(closer) } }
    }

    /// Number of this session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Adds tracks with it.
    pub fn publisher(&self) -> &Publisher {
        // Taken out only by `end`, which consumes self.
        self.publisher.as_ref().expect("present until end()")
    }

    /// Name of the stream.
    pub fn stream(&self) -> &StreamName {
        self.publisher().stream().name()
    }

    /// To be kept up to date by the gateway.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Cancelled when the hub wants the session to end: kick, takeover, drain.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Ends the stream and the session. End the track writers first.
    pub fn end(mut self, reason: EndReason, cause: Cause) {
        if let Some(publisher) = self.publisher.take() {
            publisher.end(reason);
        }
        self.guard.close(cause, reason);
    }
}

/// One source/sink pair: a row of the ledger, and the feed of tracks chosen for it.
pub struct Leg {
    id: SessionId,
    stream: StreamName,
    feed: Arc<Feed>,
    counters: Arc<Counters>,
    cancelled: CancellationToken,
    guard: Guard,
}

impl Leg {
    /// For the hub.
    pub fn new(
        id: SessionId,
        stream: StreamName,
        feed: Arc<Feed>,
        counters: Arc<Counters>,
        cancelled: CancellationToken,
        closer: Closer,
    ) -> Self {
        Self { id, stream, feed, counters, cancelled, guard: Guard { closer: Some(closer) } }
    }

    /// Number of this session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Name of the stream.
    pub fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// The tracks to send, replaced by the hub whenever the plan changes. Gateways that serve many viewers from
    /// one reader watch this and share readers by track; the others call [`Self::subscribe`].
    pub fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    /// A merged read of the feed.
    pub fn subscribe(&self, lag: Lag) -> Subscription {
        Subscription::new(&self.feed, lag, Arc::new(Signal::new()))
    }

    /// To be kept up to date by the gateway.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Cancelled when the hub wants the session to end.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Ends the session.
    pub fn end(mut self, cause: Cause) {
        self.guard.close(cause, EndReason::Finished);
    }
}

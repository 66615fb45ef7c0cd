//! [`Mux`]: one pair of tracks, serialised once for all its viewers. [`Muxes`]: the live ones, found by what they send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use patchbay_bus::{Event, Feed, FeedValue, Lag, Signal, StreamName, Subscription, TrackUid};
use patchbay_contract::Counters;
use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::lane::{Lane, Lent};
use super::ring::{Batch, Place, Ring, Taken};
use crate::flv::mux::{TagType, write_tag};
use crate::proto::chunk::encode_message;
use crate::proto::message::{csid, type_id};
use crate::wire;

/// Bytes at which waiting sound leaves whatever the clock says.
const PENDING_MAX: usize = 64 << 10;
/// Headers for late joiners are written anew after this long, so that their timestamp is about right.
const HEADER_AGE_MAX: MediaTime = MediaTime::from_secs(1);
/// Sockets that are written to before other tasks get a turn.
const LANES_PER_TURN: usize = 256;

/// How messages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// RTMP chunks.
    Rtmp {
        /// Bytes.
        chunk_size: u32,
        /// Message stream id.
        stream_id: u32,
    },
    /// FLV tags.
    Flv,
}

impl Form {
    fn write(self, out: &mut BytesMut, kind: TagType, timestamp: u32, body: &[u8]) {
        let Self::Rtmp { chunk_size, stream_id } = self else { return write_tag(out, kind, timestamp, body) };
        let (csid, type_id) = match kind {
            TagType::Audio => (csid::AUDIO, type_id::AUDIO),
            TagType::Video => (csid::VIDEO, type_id::VIDEO),
            TagType::Script => (csid::STREAM, type_id::DATA),
        };
        encode_message(out, csid, timestamp, type_id, stream_id, body, chunk_size);
    }
}

/// What a mux sends: viewers with equal keys share it. Epochs belong to it, because plans hold for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    stream: StreamName,
    pub(super) video: Option<(TrackUid, u32)>,
    pub(super) audio: Option<(TrackUid, u32)>,
    form: Form,
}

impl Key {
    pub(super) fn of(stream: &StreamName, value: &FeedValue, form: Form) -> Self {
        let point = |p: &Option<patchbay_bus::Point>| p.as_ref().map(|p| (p.track.uid(), p.epoch));
        Self { stream: stream.clone(), video: point(&value.video), audio: point(&value.audio), form }
    }
}

/// Bus time of FLV timestamp 0, one for all muxes of a stream, so that viewers can change between them.
type Epoch = OnceLock<MediaTime>;

struct State {
    ring: Ring,
    /// The newest headers.
    header: Option<Bytes>,
    /// Nothing will follow.
    ended: bool,
    viewers: Vec<(u64, Arc<Signal>)>,
    next_viewer: u64,
    /// On their way to the task.
    lent: Vec<Arc<Lane>>,
}

/// One pair of tracks in one wire form. Lives as long as a [`Cursor`] points into it.
pub(super) struct Mux {
    pub(super) key: Key,
    state: Mutex<State>,
    task: OnceLock<AbortHandle>,
}

impl Mux {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.viewers.iter().for_each(|(_, signal)| signal.notify());
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// All muxes of a gateway.
pub(crate) struct Muxes {
    coalesce: Duration,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    muxes: HashMap<Key, Weak<Mux>>,
    epochs: HashMap<StreamName, Weak<Epoch>>,
}

impl Muxes {
    /// Sound waits `coalesce` at most to leave with what follows.
    pub(crate) fn new(coalesce: Duration) -> Self {
        Self { coalesce, live: Mutex::default() }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).muxes.values().filter(|m| m.strong_count() > 0).count()
    }

    /// A cursor into the mux of these tracks, which is started if need be. `signal` is woken on news.
    pub(super) fn open(&self, stream: &StreamName, value: &FeedValue, form: Form, signal: Arc<Signal>) -> Cursor {
        let key = Key::of(stream, value, form);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mux) = live.muxes.get(&key).and_then(Weak::upgrade) {
            return Cursor::new(mux, signal);
        }
        // Bounded by the live ones: what is dead goes before something is added.
        live.muxes.retain(|_, mux| mux.strong_count() > 0);
        live.epochs.retain(|_, epoch| epoch.strong_count() > 0);
        let epoch = live.epochs.get(stream).and_then(Weak::upgrade).unwrap_or_else(|| {
            let epoch = Arc::new(Epoch::new());
            live.epochs.insert(stream.clone(), Arc::downgrade(&epoch));
            epoch
        });
        let state = State { ring: Ring::default(), header: None, ended: false, viewers: Vec::new(), next_viewer: 0, lent: Vec::new() };
        let mux = Arc::new(Mux { key: key.clone(), state: Mutex::new(state), task: OnceLock::new() });
        live.muxes.insert(key, Arc::downgrade(&mux));
        drop(live);
        let feed = Arc::new(Feed::default());
        feed.set(FeedValue { ended: None, ..value.clone() });
        let worker = Worker {
            mux: Arc::downgrade(&mux),
            form,
            epoch,
            coalesce: self.coalesce,
            has_video: value.video.is_some(),
            video: None,
            audio: None,
            version: 0,
            header: None,
            header_at: MediaTime::ZERO,
            body: BytesMut::new(),
            pending: BytesMut::new(),
            pending_frames: 0,
            pending_arrival: MediaTime::ZERO,
            pending_dts: MediaTime::ZERO,
            flush_at: None,
            lanes: Vec::new(),
            outbox: Vec::new(),
        };
        let task = tokio::spawn(worker.run(feed));
        // Set once, here.
        _ = mux.task.set(task.abort_handle());
        Cursor::new(mux, signal)
    }
}

/// One viewer's cursor into a mux.
pub(super) struct Cursor {
    pub(super) mux: Arc<Mux>,
    id: u64,
    place: Place,
    signal: Arc<Signal>,
    lane: Option<Arc<Lane>>,
}

impl Cursor {
    fn new(mux: Arc<Mux>, signal: Arc<Signal>) -> Self {
        let mut state = mux.state();
        let id = state.next_viewer;
        state.next_viewer += 1;
        state.viewers.push((id, signal.clone()));
        drop(state);
        Self { mux, id, place: Place::default(), signal, lane: None }
    }

    /// Lends `stream` to the mux if the viewer has everything; it is woken only when something is up then.
    pub(super) fn lend(&mut self, stream: &Arc<TcpStream>, counters: &Arc<Counters>) {
        let mut state = self.mux.state();
        let Some((next, version)) = self.place.caught_up(&state.ring).filter(|_| !state.ended) else { return };
        let lane = Arc::new(Lane::new(Lent::new(stream.clone(), next, version), self.signal.clone(), counters.clone()));
        // While nothing is written nobody else drops the lanes that were taken back.
        state.lent.retain(|lane| !lane.is_returned());
        state.lent.push(lane.clone());
        state.viewers.retain(|(other, _)| *other != self.id);
        self.lane = Some(lane);
    }

    /// Whether the mux has the socket.
    pub(super) fn is_lent(&self) -> bool {
        self.lane.as_ref().is_some_and(|lane| !lane.is_returned())
    }

    /// Takes the socket back: how far it got, and what must be written before anything else.
    pub(super) fn recall(&mut self) -> Option<(Option<MediaTime>, Bytes)> {
        let lent = self.lane.take()?.take()?;
        self.place.went(lent.next, lent.version);
        let mut state = self.mux.state();
        state.viewers.push((self.id, self.signal.clone()));
        Some((lent.delivered, lent.rest))
    }

    /// The next batch, if there is one; else whether the mux has ended.
    pub(super) fn take(&mut self, lag_max: Duration) -> Result<Taken, bool> {
        let state = self.mux.state();
        self.place.take(&state.ring, lag_max, state.header.as_ref()).ok_or(state.ended)
    }

    /// Goes to where a viewer can go on that has everything up to `delivered`; `false` when there is no such place yet.
    pub(super) fn splice(&mut self, delivered: MediaTime, same_pictures: bool) -> bool {
        let at = self.mux.state().ring.after(delivered, same_pictures);
        at.map(|seq| self.place.go(seq)).is_some()
    }

    /// Goes on with the newest group.
    pub(super) fn rejoin(&mut self) {
        self.place.rejoin();
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.lane.take().and_then(|lane| lane.take());
        let id = self.id;
        self.mux.state().viewers.retain(|(other, _)| *other != id);
    }
}

/// The task behind a mux.
struct Worker {
    mux: Weak<Mux>,
    form: Form,
    epoch: Arc<Epoch>,
    coalesce: Duration,
    has_video: bool,
    video: Option<Arc<TrackInfo>>,
    audio: Option<Arc<TrackInfo>>,
    /// Counts changes of headers.
    version: u64,
    header: Option<Bytes>,
    header_at: MediaTime,
    /// Scratch for one tag body.
    body: BytesMut,
    /// Serialised and not yet in the ring.
    pending: BytesMut,
    pending_frames: u32,
    pending_arrival: MediaTime,
    pending_dts: MediaTime,
    flush_at: Option<Instant>,
    /// Sockets to write to.
    lanes: Vec<Arc<Lane>>,
    /// In the ring, and not yet written to the lanes.
    outbox: Vec<(u64, Batch)>,
}

impl Worker {
    async fn run(mut self, feed: Arc<Feed>) {
        let signal = Arc::new(Signal::new());
        // Keep: this task does so little that it falls behind only when the whole process does.
        let mut subscription = Subscription::new(&feed, Lag::Keep, signal.clone());
        loop {
            while let Some(event) = subscription.poll() {
                self.event(event);
            }
            if self.tracks_ended(&subscription) {
                self.flush(false);
                self.write_lanes().await;
                return self.end();
            }
            self.write_lanes().await;
            let flush_at = self.flush_at;
            tokio::select! {
                () = signal.wait() => {}
                () = sleep_until(flush_at.unwrap_or_else(Instant::now)), if flush_at.is_some() => self.flush(false),
            }
        }
    }

    /// Writes what is new to every socket that was lent.
    async fn write_lanes(&mut self) {
        for (seq, batch) in std::mem::take(&mut self.outbox) {
            let mut sent = 0;
            while sent < self.lanes.len() {
                let end = self.lanes.len().min(sent + LANES_PER_TURN);
                let mut at = sent;
                while at < end.min(self.lanes.len()) {
                    if self.lanes[at].send(seq, &batch) {
                        at += 1;
                    } else {
                        self.lanes.swap_remove(at);
                    }
                }
                sent = at;
                if sent < self.lanes.len() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn end(&mut self) {
        if let Some(mux) = self.mux.upgrade() {
            mux.update(|state| {
                state.ended = true;
                self.lanes.append(&mut state.lent);
            });
        }
        self.lanes.drain(..).for_each(|lane| lane.give_back());
    }

    fn tracks_ended(&self, subscription: &Subscription) -> bool {
        let value = subscription.value();
        let ended = |p: &Option<patchbay_bus::Point>| p.as_ref().is_none_or(|p| p.track.ended().is_some());
        ended(&value.video) && ended(&value.audio)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Info(kind, info) => {
                self.flush(false);
                let known = match kind {
                    Kind::Video => &mut self.video,
                    Kind::Audio => &mut self.audio,
                };
                // Seen again after a gap: the headers are the same.
                if known.as_deref() != Some(&*info) {
                    *known = Some(info);
                    self.version += 1;
                    self.header = None;
                }
            }
            Event::Frame(kind, frame) => self.frame(kind, &frame),
            Event::Gap(..) | Event::End(_) => {}
        }
    }

    fn frame(&mut self, kind: Kind, frame: &Frame) {
        let (info, tag) = match kind {
            Kind::Video => (self.video.clone(), TagType::Video),
            Kind::Audio => (self.audio.clone(), TagType::Audio),
        };
        let Some(info) = info else { return };
        self.body.clear();
        if !wire::frame(&info, frame, &mut self.body) {
            return;
        }
        let epoch = *self.epoch.get_or_init(|| frame.dts);
        let joinable = frame.key && (kind == Kind::Video || !self.has_video);
        if joinable {
            // A group begins with its key frame and nothing before it.
            self.flush(false);
        }
        if self.pending.is_empty() {
            self.pending_arrival = frame.arrival;
            self.flush_at = Some(Instant::now() + self.coalesce);
        }
        self.form.write(&mut self.pending, tag, wire::timestamp(frame.dts, epoch), &self.body);
        self.pending_frames += 1;
        self.pending_dts = frame.dts;
        if kind == Kind::Video || joinable || self.pending.len() > PENDING_MAX {
            self.flush(joinable);
        }
    }

    /// Moves what is pending into the ring.
    fn flush(&mut self, key: bool) {
        self.flush_at = None;
        if self.pending.is_empty() {
            return;
        }
        let fresh = self.header.is_some();
        if !fresh || (key && self.pending_dts - self.header_at > HEADER_AGE_MAX) {
            self.header = Some(self.write_header());
            self.header_at = self.pending_dts;
        }
        let batch = Batch {
            bytes: self.pending.split().freeze(),
            header: if key || !fresh { self.header.clone() } else { None },
            version: self.version,
            key,
            dts: self.pending_dts,
            frames: std::mem::take(&mut self.pending_frames),
            arrival: self.pending_arrival,
        };
        let header = self.header.clone();
        if let Some(mux) = self.mux.upgrade() {
            mux.update(|state| {
                let seq = state.ring.end();
                self.lanes.append(&mut state.lent);
                if !self.lanes.is_empty() {
                    self.outbox.push((seq, batch.clone()));
                }
                state.header = header;
                state.ring.push(batch);
            });
        }
    }

    /// Metadata and sequence headers, stamped like the frame that follows.
    fn write_header(&mut self) -> Bytes {
        let timestamp = self.epoch.get().map_or(0, |epoch| wire::timestamp(self.pending_dts, *epoch));
        let mut out = BytesMut::new();
        let metadata = wire::metadata(self.video.as_deref(), self.audio.as_deref());
        // At 0 whatever the time is: FFmpeg takes later metadata for a subtitle track.
        self.form.write(&mut out, TagType::Script, 0, &metadata.to_body());
        for (info, tag) in [(&self.video, TagType::Video), (&self.audio, TagType::Audio)] {
            self.body.clear();
            if let Some(info) = info
                && wire::sequence_header(info, &mut self.body)
            {
                self.form.write(&mut out, tag, timestamp, &self.body);
            }
        }
        out.freeze()
    }
}

//! [`Lanes`]: a worker's reads of bus tracks, each shared by all its viewers. A frame is packetised once per worker.
//!
//! Owns: readers, who wants which track, and the packets of the frames just read. Refuses: to know about peers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use patchbay_bus::{Item, Lag, Point, Reader, Signal, Start, Track, TrackUid, now};
use patchbay_media::h264::ParameterSets;
use patchbay_media::{Codec, Frame, H264Profile, Kind, MediaTime, TrackInfo};
use patchbay_rtp::{PAYLOAD_MAX, Payloads, h264, opus};

use crate::directory::SessionKey;
use crate::smoother::Smoother;

/// A worker that falls behind by more than this skips to the newest group.
const LAG_MAX: Duration = Duration::from_secs(2);

/// One frame as packets, shared by its viewers.
pub(crate) struct Packed {
    /// RTP payloads. `Arc<[u8]>` because that is what str0m's queue and retransmission cache share.
    pub(crate) payloads: Vec<Arc<[u8]>>,
    pub(crate) size: usize,
    pub(crate) key: bool,
    pub(crate) pts: MediaTime,
    /// Zero when unknown.
    pub(crate) duration: MediaTime,
    pub(crate) arrival: MediaTime,
}

/// Turns a track's frames into packets.
#[derive(Clone, Default)]
pub(crate) struct Packer {
    info: Option<Arc<TrackInfo>>,
    sets: ParameterSets,
}

impl Packer {
    fn describe(&mut self, info: Arc<TrackInfo>) {
        if info.codec == Codec::H264 {
            self.sets = ParameterSets::from_avcc(&info.config).map(|(sets, _)| sets).unwrap_or_default();
        }
        self.info = Some(info);
    }

    fn profile(&self) -> Option<H264Profile> {
        self.info.as_ref()?.video_shape()?.profile
    }

    /// `None` for a codec that has no business here: the plan was wrong, and silence is better than noise.
    fn pack(&self, frame: &Frame) -> Option<Packed> {
        let (payloads, duration) = match self.info.as_ref()?.codec {
            Codec::H264 => (h264::packetise(&frame.payload, frame.key.then_some(&self.sets), PAYLOAD_MAX), frame.duration),
            Codec::Opus => (Payloads::whole(frame.payload.clone()), opus::duration(&frame.payload)?),
            _ => return None,
        };
        let shared = payloads.iter().map(|p| Arc::from(&p[..])).collect();
        let Frame { key, pts, arrival, .. } = *frame;
        Some(Packed { payloads: shared, size: payloads.size(), key, pts, duration, arrival })
    }
}

struct Lane {
    reader: Reader,
    packer: Packer,
    /// The last frame that was handed out (or drained): DTS and PTS.
    last: Option<(MediaTime, MediaTime)>,
    /// Who reads, and up to which epoch each of them has a plan.
    viewers: Vec<(SessionKey, u32)>,
    /// For sound that is made here.
    smoother: Option<Smoother>,
    ended: bool,
}

/// What a lane has for its viewers now.
pub(crate) struct Batch {
    pub(crate) track: TrackUid,
    pub(crate) frames: Vec<Arc<Packed>>,
    pub(crate) ended: bool,
    pub(crate) viewers: Vec<SessionKey>,
}

/// All lanes of a worker.
pub(crate) struct Lanes {
    lanes: HashMap<TrackUid, Lane>,
    signal: Arc<Signal>,
}

impl Lanes {
    /// Lanes that wake `signal`.
    pub(crate) fn new(signal: Arc<Signal>) -> Self {
        Self { lanes: HashMap::new(), signal }
    }

    /// `viewer` wants the frames of this track that come from now on. Calling it again raises the epoch.
    pub(crate) fn attach(&mut self, viewer: SessionKey, point: &Point) {
        let uid = point.track.uid();
        let signal = &self.signal;
        let lane = self.lanes.entry(uid).or_insert_with(|| Lane::open(point, signal.clone()));
        match lane.viewers.iter_mut().find(|(key, _)| *key == viewer) {
            Some((_, epoch)) => *epoch = point.epoch,
            None => lane.viewers.push((viewer, point.epoch)),
        }
        lane.allow();
    }

    /// `viewer` wants it no longer.
    pub(crate) fn detach(&mut self, viewer: SessionKey, uid: TrackUid) {
        if let Some(lane) = self.lanes.get_mut(&uid) {
            lane.viewers.retain(|(key, _)| *key != viewer);
            lane.allow();
            if lane.viewers.is_empty() {
                self.lanes.remove(&uid);
            }
        }
    }

    /// The newest group so far, up to where the lane stands, for one who joins late.
    pub(crate) fn newest_group(&self, uid: TrackUid) -> Vec<Arc<Packed>> {
        let Some(lane) = self.lanes.get(&uid) else { return Vec::new() };
        let Some(last) = lane.last else { return Vec::new() };
        let mut reader = lane.reader.track().read(Start::Newest, Lag::Keep, Arc::new(Signal::new()));
        let mut packer = Packer::default();
        let mut out = Vec::new();
        while let Some(item) = reader.poll() {
            match item {
                Item::Info(info) => packer.describe(info),
                Item::Frame(frame) if frame.dts > last.0 => break,
                Item::Frame(frame) => {
                    out.extend(packer.pack(&frame).map(Arc::new));
                    if (frame.dts, frame.pts) == last {
                        break;
                    }
                }
                Item::Gap(_) | Item::End(_) => break,
            }
        }
        out
    }

    /// Whether the track has gone on to an epoch this viewer has no plan for: the lane would hold everybody back.
    pub(crate) fn outdated(&self, viewer: SessionKey, uid: TrackUid) -> bool {
        let Some(lane) = self.lanes.get(&uid) else { return true };
        let planned = lane.viewers.iter().find(|(key, _)| *key == viewer).map(|(_, epoch)| *epoch);
        lane.reader.track().info().is_some_and(|(_, epoch)| planned.is_none_or(|p| p < epoch))
    }

    /// The track behind a lane.
    pub(crate) fn track(&self, uid: TrackUid) -> Option<&Arc<Track>> {
        self.lanes.get(&uid).map(|lane| lane.reader.track())
    }

    /// The H.264 profile a lane carries now.
    pub(crate) fn profile(&self, uid: TrackUid) -> Option<H264Profile> {
        self.lanes.get(&uid)?.packer.profile()
    }

    /// When a lane has something to give without anything new on the bus.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        self.lanes.values().filter_map(|lane| lane.smoother.as_ref()?.next()).min()
    }

    /// Reads every lane.
    pub(crate) fn poll(&mut self) -> Vec<Batch> {
        let now = now();
        let read = |(&uid, lane): (&TrackUid, &mut Lane)| {
            let frames = lane.poll(now);
            let news = !frames.is_empty() || lane.ended;
            news.then(|| Batch { track: uid, frames, ended: lane.ended, viewers: lane.viewers.iter().map(|(key, _)| *key).collect() })
        };
        self.lanes.iter_mut().filter_map(read).collect()
    }
}

impl Lane {
    fn open(point: &Point, signal: Arc<Signal>) -> Self {
        let track = &point.track;
        let start = match track.kind() {
            Kind::Video => Start::Newest,
            Kind::Audio => Start::Live,
        };
        let mut reader = track.read(start, Lag::Skip(LAG_MAX), signal);
        reader.allow_epoch(point.epoch);
        let smoother = (track.kind() == Kind::Audio && point.is_rendition()).then(Smoother::default);
        let mut lane = Self { reader, packer: Packer::default(), last: None, viewers: Vec::new(), smoother, ended: false };
        // What is in the window is for late joiners (`newest_group`); the lane itself begins at the live edge.
        while let Some(item) = lane.reader.poll() {
            if lane.take(item).is_none() && lane.ended {
                break;
            }
        }
        lane
    }

    /// Nobody gets a frame of an epoch he has no plan for: the lane waits for the slowest plan.
    fn allow(&mut self) {
        if let Some(epoch) = self.viewers.iter().map(|(_, epoch)| *epoch).min() {
            self.reader.allow_epoch(epoch);
        }
    }

    fn take(&mut self, item: Item) -> Option<Frame> {
        match item {
            Item::Info(info) => self.packer.describe(info),
            Item::Frame(frame) => {
                self.last = Some((frame.dts, frame.pts));
                return Some(frame);
            }
            // The next frame is a key frame; a receiver needs to be told nothing.
            Item::Gap(_) => {}
            Item::End(_) => self.ended = true,
        }
        None
    }

    fn poll(&mut self, now: MediaTime) -> Vec<Arc<Packed>> {
        let mut out = Vec::new();
        while !self.ended
            && let Some(item) = self.reader.poll()
        {
            let Some(packed) = self.take(item).and_then(|frame| self.packer.pack(&frame)).map(Arc::new) else { continue };
            match &mut self.smoother {
                Some(smoother) => smoother.push(packed, now),
                None => out.push(packed),
            }
        }
        if let Some(smoother) = &mut self.smoother {
            let ended = self.ended;
            out.extend(std::iter::from_fn(|| if ended { smoother.flush() } else { smoother.take(now) }));
        }
        out
    }
}

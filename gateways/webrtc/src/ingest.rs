//! [`Ingest`]: one WHIP session's media onto the bus: clocks, parameter sets, loss, key frame requests.
//!
//! str0m has reordered, recovered (NACK, RTX) and reassembled; here a frame becomes a bus frame or is dropped and
//! counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use patchbay_bus::{EndReason, KeyframeGate, Signal, TrackWriter};
use patchbay_contract::{Cause, Counters, LAYER_SILENT_MAX, Publication};
use patchbay_media::av1::{Sequence, TemporalUnit};
use patchbay_media::h264::{AccessUnit, ParameterSets};
use patchbay_media::timeline::{Timeline, Track, Wire};
use patchbay_media::{AudioShape, Codec, Frame, MediaTime, TrackInfo, vpx};
use patchbay_rtp::opus;
use str0m::Rtc;
use str0m::format::Codec as RtpCodec;
use str0m::media::{KeyframeRequestKind, MediaAdded, MediaData, MediaKind, Mid, Rid};
use str0m::rtp::SeqNo;

use crate::sdp::LAYERS_MAX;

/// Largest access unit that is taken.
const ACCESS_UNIT_MAX: usize = 4 << 20;
/// Largest Opus packet (RFC 6716 §3.4 allows 120 ms of 1,275-byte frames).
const OPUS_MAX: usize = 6 * 1_275 + 20;

/// One kind of media of the session.
struct Input {
    mid: Mid,
    clock: Track,
    writer: Option<TrackWriter>,
    last_seq: Option<SeqNo>,
    /// Frames dropped or missing since the last one that went onto the bus.
    lost: u32,
    reported: Option<SystemTime>,
}

/// One encoding of the picture; the only one, or a layer of a simulcast (RFC 8853).
struct Video {
    rid: Option<Rid>,
    input: Input,
    /// Of H.264.
    sets: ParameterSets,
    /// Of AV1.
    sequence: Option<Sequence>,
    need_key: bool,
    /// When its last frame came.
    heard: MediaTime,
    /// Requests from here (loss, start); the track's own gate carries those of readers.
    own: KeyframeGate,
}

/// One WHIP session.
pub(crate) struct Ingest {
    publication: Publication,
    timeline: Timeline,
    video: Option<Mid>,
    /// As they come in.
    layers: Vec<Video>,
    audio: Option<Input>,
    signal: Arc<Signal>,
    remb_bps: u64,
    remb_at: Option<Instant>,
}

impl Ingest {
    /// `signal` is woken when readers want a key frame.
    pub(crate) fn new(publication: Publication, signal: Arc<Signal>, remb_bps: u64) -> Self {
        Self { publication, timeline: Timeline::new(), video: None, layers: Vec::new(), audio: None, signal, remb_bps, remb_at: None }
    }

    /// Whether the hub wants the session to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.publication.cancelled().is_cancelled()
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        self.publication.counters()
    }

    /// An m-section was negotiated.
    pub(crate) fn add_media(&mut self, media: &MediaAdded) {
        match media.kind {
            MediaKind::Video => self.video = Some(media.mid),
            MediaKind::Audio => self.audio = Some(Input::new(&mut self.timeline, media.mid, 48_000)),
        }
    }

    /// A reassembled frame.
    pub(crate) fn media(&mut self, data: &MediaData) {
        let arrival = patchbay_bus::now();
        if self.video == Some(data.mid) {
            self.video(data, arrival);
        } else if self.audio.as_ref().is_some_and(|a| a.mid == data.mid) && data.params.spec().codec == RtpCodec::Opus {
            self.audio(data, arrival);
        }
    }

    /// The layer a frame belongs to; each has a clock of its own on the wire. `None` when there are too many.
    fn layer(&mut self, data: &MediaData) -> Option<usize> {
        let known = self.layers.iter().position(|layer| layer.rid == data.rid);
        if known.is_none() && self.layers.len() < LAYERS_MAX {
            let input = Input::new(&mut self.timeline, data.mid, 90_000);
            let own = KeyframeGate::default();
            self.layers.push(Video {
                rid: data.rid,
                input,
                sets: ParameterSets::default(),
                sequence: None,
                need_key: true,
                heard: MediaTime::ZERO,
                own,
            });
            return Some(self.layers.len() - 1);
        }
        known
    }

    fn video(&mut self, data: &MediaData, arrival: MediaTime) {
        let Some(layer) = self.layer(data) else { return };
        let Self { publication, timeline, layers, signal, .. } = self;
        let video = &mut layers[layer];
        video.heard = arrival;
        let missing = video.input.missing(data);
        if missing > 0 || !data.contiguous && video.input.writer.is_some() {
            video.need_key = true;
            video.own.request();
        }
        video.input.lost = video.input.lost.saturating_add(u32::from(missing > 0));
        video.input.report(timeline, data);
        let time = timeline.stamp(video.input.clock, data.time.numer(), arrival).time;
        if data.data.len() > ACCESS_UNIT_MAX {
            return video.reject(publication);
        }
        let unit = match video.read(data) {
            Picture::Unit(unit) => unit,
            Picture::Empty => return,
            Picture::Broken => return video.reject(publication),
        };
        if video.need_key && !unit.key {
            return video.reject(publication);
        }
        if unit.key {
            // A picture that cannot be described (too large, broken) is undecodable for everybody.
            let Some(info) = unit.info else { return video.reject(publication) };
            match &mut video.input.writer {
                Some(writer) => writer.set_info(info),
                empty => {
                    let writer = publication.publisher().add_track(info);
                    writer.track().keyframes().listen(signal.clone());
                    *empty = Some(writer);
                }
            }
            video.need_key = false;
        }
        let counters = publication.counters();
        video.input.push(time, unit.key, MediaTime::ZERO, arrival, unit.payload, counters);
    }

    fn audio(&mut self, data: &MediaData, arrival: MediaTime) {
        let Self { publication, timeline, audio: Some(audio), .. } = self else { return };
        audio.lost = audio.lost.saturating_add(audio.missing(data));
        audio.report(timeline, data);
        let time = timeline.stamp(audio.clock, data.time.numer(), arrival).time;
        let Some(duration) = opus::duration(&data.data).filter(|_| data.data.len() <= OPUS_MAX) else {
            audio.lost = audio.lost.saturating_add(1);
            return;
        };
        if audio.writer.is_none() {
            let shape = AudioShape { sample_rate: 48_000, channels: 2 };
            audio.writer = Some(publication.publisher().add_track(TrackInfo::audio(Codec::Opus, Bytes::new(), shape)));
        }
        audio.push(time, true, duration, arrival, Bytes::copy_from_slice(&data.data), publication.counters());
    }

    /// Whether a key frame is asked for.
    pub(crate) fn wants_key(&self) -> bool {
        let asked = |v: &Video| v.own.is_wanted() || v.input.writer.as_ref().is_some_and(|w| w.track().keyframes().is_wanted());
        self.layers.iter().any(asked)
    }

    /// Passes key frame requests and bit rate limits on to the peer. Cheap; call it often.
    pub(crate) fn feedback(&mut self, rtc: &mut Rtc, now: Instant) {
        let bus_now = patchbay_bus::now();
        let mut api = rtc.direct_api();
        for video in &mut self.layers {
            // A layer that its sender has left out is not asked for: some senders answer with key frames of all layers.
            if video.need_key && video.input.last_seq.is_some() && bus_now - video.heard < LAYER_SILENT_MAX {
                video.own.request();
            }
            let track = video.input.writer.as_ref().map(|w| w.track().clone());
            let wanted = video.own.take(bus_now) | track.is_some_and(|t| t.keyframes().take(bus_now));
            let Some(stream) = api.stream_rx_by_mid(video.input.mid, video.rid).filter(|_| wanted) else { continue };
            self.publication.counters().keyframe_requests.fetch_add(1, Ordering::Relaxed);
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        let Some(first) = self.layers.first() else { return };
        let due = self.remb_at.is_none_or(|at| now.saturating_duration_since(at).as_millis() >= 1_000);
        if let Some(stream) = api.stream_rx_by_mid(first.input.mid, first.rid).filter(|_| due) {
            self.remb_at = Some(now);
            stream.request_remb(self.remb_bps.into());
        }
    }

    /// Ends tracks, stream and session.
    pub(crate) fn end(self, reason: EndReason, cause: Cause) {
        let inputs = self.layers.into_iter().map(|layer| layer.input).chain(self.audio);
        for writer in inputs.filter_map(|input| input.writer) {
            writer.end(reason);
        }
        self.publication.end(reason, cause);
    }
}

/// A frame in the bus's layout.
struct Unit {
    payload: Bytes,
    key: bool,
    /// The track that begins with it.
    info: Option<TrackInfo>,
}

enum Picture {
    Unit(Unit),
    /// Parameter sets alone, or nothing.
    Empty,
    Broken,
}

impl Video {
    fn read(&mut self, data: &MediaData) -> Picture {
        let codec = match data.params.spec().codec {
            RtpCodec::H264 => {
                let unit = AccessUnit::from_annex_b(&data.data, &mut self.sets);
                if unit.payload.is_empty() {
                    return Picture::Empty;
                }
                let info = if unit.key { self.sets.track_info().ok() } else { None };
                return Picture::Unit(Unit { payload: unit.payload, key: unit.key, info });
            }
            RtpCodec::Av1 => {
                let data = Bytes::copy_from_slice(&data.data);
                let Ok(unit) = TemporalUnit::read(&data, &mut self.sequence) else { return Picture::Broken };
                if unit.payload.is_empty() {
                    return Picture::Empty;
                }
                let info = self.sequence.as_ref().filter(|_| unit.key).map(Sequence::track_info);
                return Picture::Unit(Unit { payload: unit.payload, key: unit.key, info });
            }
            RtpCodec::Vp8 => Codec::Vp8,
            RtpCodec::Vp9 => Codec::Vp9,
            _ => return Picture::Broken,
        };
        let Some(header) = vpx::Header::read(codec, &data.data) else { return Picture::Broken };
        let info = header.track_info(codec);
        Picture::Unit(Unit { payload: Bytes::copy_from_slice(&data.data), key: info.is_some(), info })
    }

    fn reject(&mut self, publication: &Publication) {
        self.input.lost = self.input.lost.saturating_add(1);
        self.need_key = true;
        publication.counters().lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Input {
    fn new(timeline: &mut Timeline, mid: Mid, clock_rate: u32) -> Self {
        let domain = timeline.domain(Wire::rtp(clock_rate));
        let clock = timeline.track(domain);
        Self { mid, clock, writer: None, last_seq: None, lost: 0, reported: None }
    }

    /// Packets that never came between the last frame and this one.
    fn missing(&mut self, data: &MediaData) -> u32 {
        let first = **data.seq_range.start();
        let expected = self.last_seq.map_or(first, |last| *last + 1);
        self.last_seq = Some(*data.seq_range.end());
        u32::try_from(first.saturating_sub(expected)).unwrap_or(u32::MAX).min(10_000)
    }

    /// Tells the timeline of a sender report it has not seen.
    fn report(&mut self, timeline: &mut Timeline, data: &MediaData) {
        let Some(info) = data.last_sender_info.filter(|info| Some(info.ntp_time) != self.reported) else { return };
        self.reported = Some(info.ntp_time);
        let Ok(wall) = info.ntp_time.duration_since(SystemTime::UNIX_EPOCH) else { return };
        timeline.sender_report(self.clock, MediaTime::from(wall), info.rtp_time.numer());
    }

    fn push(&mut self, time: MediaTime, key: bool, duration: MediaTime, arrival: MediaTime, payload: Bytes, counters: &Counters) {
        let Some(writer) = &mut self.writer else { return };
        let loss = std::mem::take(&mut self.lost);
        counters.lost.fetch_add(u64::from(loss), Ordering::Relaxed);
        let size = payload.len();
        writer.push(Frame { pts: time, dts: time, duration, key, loss, arrival, payload });
        counters.frame(size, (patchbay_bus::now() - arrival).as_nanos());
    }
}

//! [`Viewer`]: one WHEP session's side of the fan-out: which lanes it follows, its RTP clocks, and its paced queue.
//!
//! Owns: late joining, switching tracks at key frames, sequence numbers and timestamps. Refuses: sockets; packets go
//! to str0m's send streams here, and this is the seam where another SRTP sender can take over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_bus::{EndReason, FeedReader, FeedValue, Point, Signal, TrackUid};
use patchbay_contract::Leg;
use patchbay_media::{Kind, MediaTime};
use str0m::Rtc;
use str0m::format::Codec;
use str0m::media::{MediaAdded, MediaKind, Mid, Pt};
use str0m::rtp::{RtpWrite, SeqNo, Ssrc};

use crate::clock::{RtpClock, WallClock};
use crate::directory::SessionKey;
use crate::lane::{Lanes, Packed};

/// A cached group larger than this is not sent at once if a key frame can be had.
const GROUP_BYTES_MAX: usize = 2 << 20;
const GROUP_FRAMES_MAX: usize = 300;
/// How long a late joiner of such a group waits for the key frame it asked for.
const KEY_WAIT_MAX: Duration = Duration::from_millis(400);
/// Packets per viewer and millisecond.
const PACKETS_PER_MS: u32 = 64;
/// Frames queued for pacing at most; beyond, the viewer's network is not what is slow, its share of it is.
const QUEUE_FRAMES_MAX: usize = 1_024;
/// How long, in media time, a track that is ready waits for the rest of the one before: more than a transcode adds.
const SWITCH_WAIT_MAX: MediaTime = MediaTime::from_millis(400);
/// Distance of catch-up frames on the RTP clock.
const CATCH_UP_STEP: MediaTime = MediaTime::from_millis(1);
/// Browsers bring sound and picture together only as far as 30 ms (libwebrtc's `StreamSynchronization` leaves less alone)
/// and stop on the side they come from. Transcoded sound is always the late one, so they would stop with it late for good:
/// its sender reports therefore tell at most this much less than the true time, which lets them stop in the middle.
const SYNC_BIAS_MAX: MediaTime = MediaTime::from_millis(25);
/// Each packet's lateness weighs one part in this many.
const LATENESS_WEIGHT: i64 = 16;

struct Queued {
    packed: Arc<Packed>,
    next: usize,
    /// Presentation time on the viewer's clock: the frame's own, or squeezed while catching up.
    pts: MediaTime,
    /// RTP timestamp, once its turn has come.
    time: Option<u32>,
    live: bool,
}

/// Where the feed points now.
struct Upcoming {
    uid: TrackUid,
    /// What had been sent when the feed turned: it begins with the first key frame past that. Not past what has been sent
    /// since: a rendition comes later than its source, and would never overtake it.
    after: Option<MediaTime>,
    /// Its frames from that key frame on, while the old track still has some to come before it.
    waiting: Vec<Arc<Packed>>,
}

impl Upcoming {
    /// Keeps frames that are to be sent when its turn comes.
    fn keep(&mut self, frames: &[Arc<Packed>]) {
        let begins = |packed: &Packed| packed.key && self.after.is_none_or(|sent| packed.pts > sent);
        let skipped = if self.waiting.is_empty() { frames.iter().position(|p| begins(p)).unwrap_or(frames.len()) } else { 0 };
        self.waiting.extend_from_slice(&frames[skipped..]);
    }

    /// Whether its turn has come, when the old track has come to `reached`.
    fn is_due(&self, reached: Option<MediaTime>) -> bool {
        let (Some(first), Some(last)) = (self.waiting.first(), self.waiting.last()) else { return false };
        reached.is_none_or(|reached| reached >= first.pts) || last.pts - first.pts > SWITCH_WAIT_MAX
    }
}

/// One m-section we send on.
struct Sender {
    kind: Kind,
    mid: Mid,
    ssrc: Ssrc,
    pt: Pt,
    clock: RtpClock,
    seq: u64,
    current: Option<TrackUid>,
    /// Taken over where it begins, once everything before that was sent.
    upcoming: Option<Upcoming>,
    need_key: bool,
    /// When to send the cached group after all.
    force_at: Option<Instant>,
    sent_pts: Option<MediaTime>,
    /// How late sound that was made here leaves, smoothed; see [`SYNC_BIAS_MAX`]. `None` where nothing was made.
    lateness: Option<MediaTime>,
    queue: VecDeque<Queued>,
}

/// One WHEP session.
pub(crate) struct Viewer {
    pub(crate) key: SessionKey,
    pub(crate) leg: Leg,
    feed: FeedReader,
    clock: WallClock,
    senders: Vec<Sender>,
    budget: u32,
    budget_at: Instant,
    /// The feed may have changed; nothing is followed before the peer has connected.
    pub(crate) follow_due: bool,
    pub(crate) connected: bool,
}

impl Viewer {
    pub(crate) fn new(key: SessionKey, leg: Leg, feed_signal: Arc<Signal>, clock: WallClock, now: Instant) -> Self {
        let feed = leg.feed().watch(feed_signal);
        Self { key, leg, feed, clock, senders: Vec::new(), budget: PACKETS_PER_MS, budget_at: now, follow_due: true, connected: false }
    }

    /// An m-section was negotiated.
    pub(crate) fn add_media(&mut self, media: &MediaAdded, rtc: &mut Rtc) {
        let (kind, codec, rate_hz) = match media.kind {
            MediaKind::Video => (Kind::Video, Codec::H264, 90_000),
            MediaKind::Audio => (Kind::Audio, Codec::Opus, 48_000),
        };
        let Some(pt) = payload_type(rtc, media.mid, codec, None) else { return };
        let Some(ssrc) = rtc.direct_api().stream_tx_by_mid(media.mid, None).map(|s| s.ssrc()) else { return };
        self.senders.push(Sender {
            kind,
            mid: media.mid,
            ssrc,
            pt,
            clock: RtpClock::new(kind, rate_hz),
            // Below 2^15, so that the receiver's rollover counter starts right (RFC 3711 §3.3.1).
            seq: u64::from(rand::random::<u16>() >> 1),
            current: None,
            upcoming: None,
            need_key: kind == Kind::Video,
            force_at: None,
            sent_pts: None,
            lateness: None,
            queue: VecDeque::new(),
        });
    }

    /// Takes over a changed feed; returns why the session is over, if it is.
    pub(crate) fn follow(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, now: Instant) -> Option<EndReason> {
        if !self.connected || !std::mem::take(&mut self.follow_due) {
            return None;
        }
        if let Some(value) = self.feed.changed() {
            let FeedValue { video, audio, ended } = value;
            for sender in &mut self.senders {
                let point = if sender.kind == Kind::Video { &video } else { &audio };
                sender.follow(self.key, point.as_ref(), rtc, lanes, now);
            }
            return ended;
        }
        None
    }

    /// Frames of a lane.
    pub(crate) fn deliver(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, uid: TrackUid, frames: &[Arc<Packed>]) {
        let key = self.key;
        let Some(sender) = self.senders.iter_mut().find(|s| s.reads(uid)) else { return };
        if let Some(upcoming) = sender.upcoming.as_mut().filter(|u| u.uid == uid) {
            upcoming.keep(frames);
            if upcoming.is_due(sender.sent_pts) {
                sender.switch(key, rtc, lanes);
            }
        } else {
            for packed in frames {
                if sender.upcoming.as_ref().is_some_and(|u| u.is_due(Some(packed.pts))) {
                    sender.switch(key, rtc, lanes);
                    break;
                }
                sender.take(packed);
            }
        }
        if sender.queue.len() > QUEUE_FRAMES_MAX {
            self.leg.counters().skipped.fetch_add(sender.queue.len() as u64, std::sync::atomic::Ordering::Relaxed);
            sender.queue.clear();
            sender.need_key = sender.kind == Kind::Video;
            sender.current.into_iter().for_each(|uid| request_key(lanes, uid));
        }
    }

    /// A lane has ended: what is upcoming is taken at once.
    pub(crate) fn lane_ended(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, uid: TrackUid, now: Instant) {
        let key = self.key;
        for sender in self.senders.iter_mut().filter(|s| s.reads(uid)) {
            lanes.detach(key, uid);
            if sender.current != Some(uid) {
                sender.upcoming = None;
            } else if sender.upcoming.as_ref().is_some_and(|u| u.is_due(None)) {
                sender.switch(key, rtc, lanes);
            } else {
                sender.current = sender.upcoming.take().map(|u| u.uid);
                if let Some(next) = sender.current {
                    sender.join(next, rtc, lanes, now);
                }
            }
        }
    }

    /// Hands str0m as many packets as may go now; returns when there will be more to do.
    pub(crate) fn pump(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, now: Instant) -> Option<Instant> {
        for sender in &mut self.senders {
            if sender.force_at.is_some_and(|at| at <= now) {
                sender.force_at = None;
                if let Some(uid) = sender.current.filter(|_| sender.need_key) {
                    sender.catch_up(&lanes.newest_group(uid));
                }
            }
        }
        if now.saturating_duration_since(self.budget_at) >= Duration::from_millis(1) {
            self.budget = PACKETS_PER_MS;
            self.budget_at = now;
        }
        // Audio first: its packets are few and must not wait behind a picture.
        for kind in [Kind::Audio, Kind::Video] {
            for sender in self.senders.iter_mut().filter(|s| s.kind == kind) {
                while self.budget > 0
                    && let Some(done) = sender.write_next(rtc, &self.clock, now, &mut self.budget)
                {
                    if done.live {
                        let inside = patchbay_bus::now() - done.packed.arrival;
                        self.leg.counters().frame(done.packed.size, inside.as_nanos());
                    } else {
                        self.leg.counters().frames.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        self.leg.counters().bytes.fetch_add(done.packed.size as u64, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            }
        }
        let waiting = self.senders.iter().any(|s| !s.queue.is_empty());
        let paced = waiting.then(|| self.budget_at + Duration::from_millis(1));
        self.senders.iter().filter_map(|s| s.force_at).chain(paced).min()
    }

    /// The peer asks for a key frame.
    pub(crate) fn keyframe_requested(&mut self, mid: Mid, lanes: &Lanes) {
        self.leg.counters().keyframe_requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Some(uid) = self.senders.iter().find(|s| s.mid == mid).and_then(|s| s.current) {
            request_key(lanes, uid);
        }
    }

    /// Leaves all lanes.
    pub(crate) fn leave(&mut self, lanes: &mut Lanes) {
        for sender in &mut self.senders {
            for uid in sender.current.take().into_iter().chain(sender.upcoming.take().map(|u| u.uid)) {
                lanes.detach(self.key, uid);
            }
        }
    }
}

impl Sender {
    fn reads(&self, uid: TrackUid) -> bool {
        self.current == Some(uid) || self.upcoming.as_ref().is_some_and(|u| u.uid == uid)
    }

    /// A frame of the current track.
    fn take(&mut self, packed: &Arc<Packed>) {
        if self.need_key && !packed.key {
            return;
        }
        self.need_key = false;
        self.force_at = None;
        // After a switch to a track that lags behind: what has been heard is not said again.
        if self.kind == Kind::Video || self.sent_pts.is_none_or(|sent| packed.pts > sent) {
            self.push(packed.clone(), packed.pts, true);
        }
    }

    fn follow(&mut self, key: SessionKey, point: Option<&Point>, rtc: &Rtc, lanes: &mut Lanes, now: Instant) {
        let wanted = point.map(|p| p.track.uid());
        if let Some(gone) = self.upcoming.take_if(|u| Some(u.uid) != wanted) {
            lanes.detach(key, gone.uid);
        }
        let Some(point) = point else {
            if let Some(gone) = self.current.take() {
                lanes.detach(key, gone);
            }
            self.queue.clear();
            return;
        };
        let uid = point.track.uid();
        let ended = point.track.ended().is_some();
        if !ended || self.current == Some(uid) {
            lanes.attach(key, point);
        }
        if self.reads(uid) || ended {
            return;
        }
        // Sound has nothing to wait for: every packet is a beginning. And before the first picture there is none to go on from.
        let now_or_never = |old: TrackUid| self.kind == Kind::Audio || self.sent_pts.is_none() || lanes.outdated(key, old);
        if let Some(old) = self.current.filter(|&old| now_or_never(old)) {
            lanes.detach(key, old);
            self.current = None;
        }
        if self.current.is_some() {
            let mut upcoming = Upcoming { uid, after: self.sent_pts, waiting: Vec::new() };
            // The key frame that brought the change about has passed already.
            upcoming.keep(&lanes.newest_group(uid));
            if upcoming.waiting.is_empty() {
                point.track.keyframes().request();
            }
            self.upcoming = Some(upcoming);
        } else {
            self.current = Some(uid);
            self.lateness = (self.kind == Kind::Audio && point.is_rendition()).then(MediaTime::default);
            self.join(uid, rtc, lanes, now);
        }
    }

    /// Begins with a track: audio at the live edge, video with the newest group, squeezed to end at the live edge.
    fn join(&mut self, uid: TrackUid, rtc: &Rtc, lanes: &Lanes, now: Instant) {
        self.choose_format(uid, rtc, lanes);
        if self.kind == Kind::Audio {
            self.need_key = false;
            return;
        }
        self.need_key = true;
        let group = lanes.newest_group(uid);
        let bytes: usize = group.iter().map(|p| p.size).sum();
        if group.is_empty() {
            request_key(lanes, uid);
        } else if group.len() > GROUP_FRAMES_MAX || bytes > GROUP_BYTES_MAX {
            // A source that was asked before and has no way to be told (RTMP) is not waited for.
            let deaf = lanes.track(uid).is_some_and(|t| matches!(t.keyframes().counts(), (1.., 0)));
            request_key(lanes, uid);
            self.force_at = Some(if deaf { now } else { now + KEY_WAIT_MAX });
        } else {
            self.catch_up(&group);
        }
    }

    fn catch_up(&mut self, group: &[Arc<Packed>]) {
        let Some(newest) = group.last() else { return };
        self.need_key = false;
        let mut behind = CATCH_UP_STEP.as_nanos() * group.len() as i64;
        for packed in group {
            behind -= CATCH_UP_STEP.as_nanos();
            let pts = newest.pts - MediaTime::from_nanos(behind);
            // What was sent already is not sent again with a second stamp.
            if self.sent_pts.is_none_or(|sent| pts > sent) {
                self.push(packed.clone(), pts, false);
            }
        }
    }

    /// Goes over to the upcoming lane, with what has waited.
    fn switch(&mut self, key: SessionKey, rtc: &Rtc, lanes: &mut Lanes) {
        let Some(Upcoming { uid, waiting, .. }) = self.upcoming.take() else { return };
        if let Some(old) = self.current.replace(uid) {
            lanes.detach(key, old);
        }
        self.choose_format(uid, rtc, lanes);
        self.need_key = true;
        waiting.iter().for_each(|packed| self.take(packed));
    }

    fn choose_format(&mut self, uid: TrackUid, rtc: &Rtc, lanes: &Lanes) {
        if self.kind == Kind::Video {
            let profile = lanes.profile(uid).map(|p| p.idc);
            self.pt = payload_type(rtc, self.mid, Codec::H264, profile).unwrap_or(self.pt);
        }
    }

    fn push(&mut self, packed: Arc<Packed>, pts: MediaTime, live: bool) {
        // A track that was switched to may lag behind the one before: its first frames are squeezed, never stamped back.
        let pts = self.sent_pts.map_or(pts, |sent| pts.max(sent + CATCH_UP_STEP));
        self.sent_pts = Some(pts);
        self.queue.push_back(Queued { packed, next: 0, pts, time: None, live });
    }

    /// Writes packets of the frame at the front; returns it once it is complete.
    fn write_next(&mut self, rtc: &mut Rtc, clock: &WallClock, now: Instant, budget: &mut u32) -> Option<Queued> {
        let queued = self.queue.front_mut()?;
        let time = *queued.time.get_or_insert_with(|| self.clock.stamp(queued.pts, queued.packed.duration));
        if let Some(lateness) = self.lateness.as_mut().filter(|_| queued.next == 0 && queued.live) {
            let off = clock.lateness(queued.pts, now) - *lateness;
            *lateness += MediaTime::from_nanos(off.as_nanos() / LATENESS_WEIGHT);
        }
        let half = MediaTime::from_nanos(self.lateness.unwrap_or_default().as_nanos() / 2);
        let bias = half.clamp(MediaTime::ZERO, SYNC_BIAS_MAX);
        let wall = clock.of(queued.pts - bias, now);
        let mut api = rtc.direct_api();
        let stream = api.stream_tx(&self.ssrc)?;
        while *budget > 0
            && let Some(payload) = queued.packed.payloads.get(queued.next)
        {
            queued.next += 1;
            let last = queued.next == queued.packed.payloads.len();
            let video = self.kind == Kind::Video;
            let write = RtpWrite::new(self.pt, SeqNo::from(self.seq), time, wall, payload.clone());
            stream.write_rtp(write.marker(video && last).nackable(video));
            self.seq += 1;
            *budget -= 1;
        }
        let complete = queued.next >= queued.packed.payloads.len();
        complete.then(|| self.queue.pop_front()).flatten()
    }
}

fn request_key(lanes: &Lanes, uid: TrackUid) {
    if let Some(track) = lanes.track(uid) {
        track.keyframes().request();
    }
}

/// The payload type to send a codec with: of the same H.264 profile if the peer has one, else its first.
fn payload_type(rtc: &Rtc, mid: Mid, codec: Codec, profile_idc: Option<u8>) -> Option<Pt> {
    let remote = rtc.media(mid)?.remote_pts();
    let usable = || remote.iter().filter_map(|pt| rtc.codec_config().find(|p| p.pt() == *pt && p.spec().codec == codec));
    let same = |idc: u8| usable().find(|p| p.spec().format.profile_level_id.is_some_and(|id| (id >> 16) as u8 == idc));
    profile_idc.and_then(same).or_else(|| usable().next()).map(|p| p.pt())
}

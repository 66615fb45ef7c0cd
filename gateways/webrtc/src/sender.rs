//! [`Sender`]: one m-section of a viewer: which lane it follows, its RTP clock, and its queue.
//!
//! Owns: late joining, switching tracks at key frames, what is left out on a slow link, sequence numbers and
//! timestamps. Refuses: sockets; packets go to str0m's send streams, and this is the seam where another SRTP sender can
//! take over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_bus::{Point, TrackUid};
use patchbay_media::{Kind, MediaTime};
use str0m::Rtc;
use str0m::format::Codec;
use str0m::media::{MediaAdded, MediaKind, Mid, Pt};
use str0m::rtp::{RtpWrite, SeqNo, Ssrc};

use crate::clock::{RtpClock, WallClock};
use crate::directory::SessionKey;
use crate::lane::{Lanes, Packed};
use crate::pace::Pace;
use crate::queue::{Queue, Queued};

/// A cached group larger than this is not sent at once if a key frame can be had.
const GROUP_BYTES_MAX: usize = 2 << 20;
const GROUP_FRAMES_MAX: usize = 300;
/// How long a late joiner of such a group waits for the key frame it asked for.
const KEY_WAIT_MAX: Duration = Duration::from_millis(400);
/// How long the next group is waited for after a skip before it is asked for: every viewer pays for a key frame.
const SKIP_KEY_WAIT: Duration = Duration::from_secs(1);
/// What a packet weighs beside its payload: RTP, SRTP, UDP, IP.
const PACKET_OVERHEAD: usize = 60;
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
pub(crate) struct Sender {
    pub(crate) kind: Kind,
    pub(crate) mid: Mid,
    ssrc: Ssrc,
    pt: Pt,
    clock: RtpClock,
    seq: u64,
    pub(crate) current: Option<TrackUid>,
    /// Taken over where it begins, once everything before that was sent.
    upcoming: Option<Upcoming>,
    need_key: bool,
    /// When to send the cached group after all.
    force_at: Option<Instant>,
    /// Frames are left out; when to ask for the key frame that ends it, should none come by itself.
    ask_at: Option<Instant>,
    /// Frames left out that nobody has counted yet.
    skipped: u64,
    sent_pts: Option<MediaTime>,
    /// How late sound that was made here leaves, smoothed; see [`SYNC_BIAS_MAX`]. `None` where nothing was made.
    lateness: Option<MediaTime>,
    /// By the peer's last report.
    pub(crate) reported_rtt: Option<Duration>,
    queue: Queue,
}

impl Sender {
    /// For an m-section that was negotiated; `None` when the peer has no payload type for what is sent here.
    pub(crate) fn new(media: &MediaAdded, rtc: &mut Rtc) -> Option<Self> {
        let (kind, codec, rate_hz) = match media.kind {
            MediaKind::Video => (Kind::Video, Codec::H264, 90_000),
            MediaKind::Audio => (Kind::Audio, Codec::Opus, 48_000),
        };
        let pt = payload_type(rtc, media.mid, codec, None)?;
        let mut api = rtc.direct_api();
        let stream = api.stream_tx_by_mid(media.mid, None)?;
        // The pace is kept here, frame by frame, where what is late can still be left out.
        stream.set_unpaced(true);
        Some(Self {
            kind,
            mid: media.mid,
            ssrc: stream.ssrc(),
            pt,
            clock: RtpClock::new(kind, rate_hz),
            // Below 2^15, so that the receiver's rollover counter starts right (RFC 3711 §3.3.1).
            seq: u64::from(rand::random::<u16>() >> 1),
            current: None,
            upcoming: None,
            need_key: kind == Kind::Video,
            force_at: None,
            ask_at: None,
            skipped: 0,
            sent_pts: None,
            lateness: None,
            reported_rtt: None,
            queue: Queue::default(),
        })
    }

    /// Whether it follows this track, or will.
    pub(crate) fn reads(&self, uid: TrackUid) -> bool {
        self.current == Some(uid) || self.upcoming.as_ref().is_some_and(|u| u.uid == uid)
    }

    /// Frames of a lane it reads.
    pub(crate) fn deliver(&mut self, key: SessionKey, rtc: &Rtc, lanes: &mut Lanes, uid: TrackUid, frames: &[Arc<Packed>], now: Instant) {
        if let Some(upcoming) = self.upcoming.as_mut().filter(|u| u.uid == uid) {
            upcoming.keep(frames);
            if upcoming.is_due(self.sent_pts) {
                self.switch(key, rtc, lanes, now);
            }
            return;
        }
        for packed in frames {
            if self.upcoming.as_ref().is_some_and(|u| u.is_due(Some(packed.pts))) {
                self.switch(key, rtc, lanes, now);
                break;
            }
            self.take(packed, now);
        }
    }

    /// A track it reads has ended: what is upcoming is taken at once.
    pub(crate) fn lane_ended(&mut self, key: SessionKey, rtc: &Rtc, lanes: &mut Lanes, uid: TrackUid, now: Instant) {
        lanes.detach(key, uid);
        if self.current != Some(uid) {
            self.upcoming = None;
        } else if self.upcoming.as_ref().is_some_and(|u| u.is_due(None)) {
            self.switch(key, rtc, lanes, now);
        } else {
            self.current = self.upcoming.take().map(|u| u.uid);
            if let Some(next) = self.current {
                self.join(next, rtc, lanes, now);
            }
        }
    }

    /// Leaves its lanes.
    pub(crate) fn leave(&mut self, key: SessionKey, lanes: &mut Lanes) {
        for uid in self.current.take().into_iter().chain(self.upcoming.take().map(|u| u.uid)) {
            lanes.detach(key, uid);
        }
    }

    /// What is due without anything new: a key frame to ask for, a cached group to send, a queue to shorten. Returns how
    /// many frames were left out since the last call.
    pub(crate) fn tend(&mut self, lanes: &Lanes, now: Instant) -> u64 {
        if self.force_at.is_some_and(|at| at <= now) {
            self.force_at = None;
            if let Some(uid) = self.current.filter(|_| self.need_key) {
                self.catch_up(&lanes.newest_group(uid), now);
            }
        }
        if let Some(shed) = self.queue.shed(now) {
            self.skipped += shed.frames as u64;
            if shed.need_key && self.kind == Kind::Video {
                self.need_key = true;
                self.ask_at = Some(now + SKIP_KEY_WAIT);
            }
        }
        if self.ask_at.is_some_and(|at| at <= now) {
            self.ask_at = Some(now + SKIP_KEY_WAIT);
            self.current.into_iter().for_each(|uid| request_key(lanes, uid));
        }
        std::mem::take(&mut self.skipped)
    }

    /// When [`Self::tend`] has something to do.
    pub(crate) fn tend_at(&self) -> Option<Instant> {
        self.force_at.into_iter().chain(self.ask_at).min()
    }

    /// Whether frames are left out, and none is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.ask_at.is_some() && self.queue.is_empty()
    }

    /// Whether frames wait.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// A frame of the current track.
    fn take(&mut self, packed: &Arc<Packed>, now: Instant) {
        if self.need_key && !packed.key {
            self.skipped += u64::from(self.ask_at.is_some());
            return;
        }
        self.need_key = false;
        (self.force_at, self.ask_at) = (None, None);
        // After a switch to a track that lags behind: what has been heard is not said again.
        if self.kind == Kind::Video || self.sent_pts.is_none_or(|sent| packed.pts > sent) {
            self.push(packed.clone(), packed.pts, true, now);
        }
    }

    /// Goes where the feed points.
    pub(crate) fn follow(&mut self, key: SessionKey, point: Option<&Point>, rtc: &Rtc, lanes: &mut Lanes, now: Instant) {
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
            self.catch_up(&group, now);
        }
    }

    fn catch_up(&mut self, group: &[Arc<Packed>], now: Instant) {
        let Some(newest) = group.last() else { return };
        self.need_key = false;
        self.ask_at = None;
        let mut behind = CATCH_UP_STEP.as_nanos() * group.len() as i64;
        for packed in group {
            behind -= CATCH_UP_STEP.as_nanos();
            let pts = newest.pts - MediaTime::from_nanos(behind);
            // What was sent already is not sent again with a second stamp.
            if self.sent_pts.is_none_or(|sent| pts > sent) {
                self.push(packed.clone(), pts, false, now);
            }
        }
    }

    /// Goes over to the upcoming lane, with what has waited.
    fn switch(&mut self, key: SessionKey, rtc: &Rtc, lanes: &mut Lanes, now: Instant) {
        let Some(Upcoming { uid, waiting, .. }) = self.upcoming.take() else { return };
        if let Some(old) = self.current.replace(uid) {
            lanes.detach(key, old);
        }
        self.choose_format(uid, rtc, lanes);
        self.need_key = true;
        waiting.iter().for_each(|packed| self.take(packed, now));
    }

    fn choose_format(&mut self, uid: TrackUid, rtc: &Rtc, lanes: &Lanes) {
        if self.kind == Kind::Video {
            let profile = lanes.profile(uid).map(|p| p.idc);
            self.pt = payload_type(rtc, self.mid, Codec::H264, profile).unwrap_or(self.pt);
        }
    }

    fn push(&mut self, packed: Arc<Packed>, pts: MediaTime, live: bool, now: Instant) {
        // A track that was switched to may lag behind the one before: its first frames are squeezed, never stamped back.
        let pts = self.sent_pts.map_or(pts, |sent| pts.max(sent + CATCH_UP_STEP));
        self.sent_pts = Some(pts);
        self.queue.push(packed, pts, live, now);
    }

    /// Writes packets of the frame at the front; returns it once it is complete.
    pub(crate) fn write_next(&mut self, rtc: &mut Rtc, clock: &WallClock, now: Instant, pace: &mut Pace) -> Option<Queued> {
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
        let video = self.kind == Kind::Video;
        // Sound is little, and a gap in it is worse than a burst.
        while (pace.is_open() || !video)
            && let Some(payload) = queued.packed.payloads.get(queued.next)
        {
            queued.next += 1;
            let last = queued.next == queued.packed.payloads.len();
            let write = RtpWrite::new(self.pt, SeqNo::from(self.seq), time, wall, payload.clone());
            stream.write_rtp(write.marker(video && last).nackable(video));
            self.seq += 1;
            pace.spend(payload.len() + PACKET_OVERHEAD);
        }
        let complete = queued.next >= queued.packed.payloads.len();
        complete.then(|| self.queue.pop(now)).flatten()
    }
}

/// Asks the source of a lane for a key frame.
pub(crate) fn request_key(lanes: &Lanes, uid: TrackUid) {
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

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
/// Distance of catch-up frames on the RTP clock.
const CATCH_UP_STEP: MediaTime = MediaTime::from_millis(1);
/// Sender reports tell a wall clock this far behind bus time: str0m refuses one that lies ahead of now, and a source
/// may stamp a little ahead. The same for audio and video, so lips stay in sync.
const WALL_LEAD: MediaTime = MediaTime::from_secs(1);

/// Browsers bring sound and picture together only as far as 30 ms (libwebrtc's `StreamSynchronization` leaves less alone)
/// and stop on the side they come from. Transcoded sound is always the late one, so they would stop with it late for good:
/// its sender reports therefore tell at most this much less than the true time, which lets them stop in the middle.
const SYNC_BIAS_MAX: MediaTime = MediaTime::from_millis(25);
/// Each packet's lateness weighs one part in this many.
const LATENESS_WEIGHT: i64 = 16;

/// Bus time as `Instant`s.
#[derive(Clone, Copy)]
pub(crate) struct WallClock {
    instant: Instant,
    bus: MediaTime,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self { instant: Instant::now(), bus: patchbay_bus::now() }
    }

    /// How long after `pts` it is now.
    fn lateness(&self, pts: MediaTime, now: Instant) -> MediaTime {
        self.bus + MediaTime::from(now.saturating_duration_since(self.instant)) - pts
    }

    fn of(&self, pts: MediaTime, now: Instant) -> Instant {
        let offset = pts - WALL_LEAD - self.bus;
        let at = if offset < MediaTime::ZERO {
            self.instant.checked_sub(offset.abs().to_duration())
        } else {
            self.instant.checked_add(offset.to_duration())
        };
        at.unwrap_or(now).min(now)
    }
}

struct Queued {
    packed: Arc<Packed>,
    next: usize,
    /// Presentation time on the viewer's clock: the frame's own, or squeezed while catching up.
    pts: MediaTime,
    /// RTP timestamp, once its turn has come.
    time: Option<u32>,
    live: bool,
}

/// How far an audio timestamp may be from where the one before ended and still be taken for its continuation.
const SEAM_MAX: MediaTime = MediaTime::from_millis(8);
/// How far continued timestamps may drift from bus time before they are set right.
const DRIFT_MAX: MediaTime = MediaTime::from_millis(40);

/// Bus time to RTP timestamps of one sender.
///
/// Bus time is corrected for skew by fractions of a millisecond. A jitter buffer takes timestamps literally and would
/// fill every such seam with invented sound; so audio goes on exactly where it ended. Sender reports still tell the true
/// bus time of each timestamp, and lips stay in sync.
struct RtpClock {
    rate_hz: u32,
    offset: u32,
    continuous: bool,
    /// Where the last packet ended, in ticks, and how far that was from bus time.
    last: Option<(i64, i64)>,
}

impl RtpClock {
    fn new(kind: Kind, rate_hz: u32) -> Self {
        Self { rate_hz, offset: rand::random(), continuous: kind == Kind::Audio, last: None }
    }

    fn stamp(&mut self, pts: MediaTime, duration: MediaTime) -> u32 {
        let bus = pts.to_ticks(self.rate_hz);
        let mut ticks = bus;
        if self.continuous {
            let within = |distance: i64, limit: MediaTime| distance.abs() <= limit.to_ticks(self.rate_hz);
            if let Some((end, bias)) = self.last.filter(|(_, bias)| within(*bias, DRIFT_MAX)) {
                ticks = if within(bus + bias - end, SEAM_MAX) { end } else { bus + bias };
            }
            self.last = Some((ticks + duration.to_ticks(self.rate_hz), ticks - bus));
        }
        (ticks as u32).wrapping_add(self.offset)
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
    /// Taken over at its first key frame past `switch_after`.
    upcoming: Option<TrackUid>,
    /// What had been sent when the feed turned. Not what has been sent since: a rendition comes later than its source,
    /// and would never overtake it.
    switch_after: Option<MediaTime>,
    need_key: bool,
    /// When to send the cached group after all.
    force_at: Option<Instant>,
    sent_pts: Option<MediaTime>,
    /// How late sound leaves, smoothed; see [`SYNC_BIAS_MAX`].
    lateness: MediaTime,
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
            switch_after: None,
            need_key: kind == Kind::Video,
            force_at: None,
            sent_pts: None,
            lateness: MediaTime::ZERO,
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
        let Some(sender) = self.senders.iter_mut().find(|s| s.current == Some(uid) || s.upcoming == Some(uid)) else { return };
        for packed in frames {
            if sender.upcoming == Some(uid) && !sender.switch(key, packed, rtc, lanes) {
                continue;
            }
            if sender.need_key && !packed.key {
                continue;
            }
            sender.need_key = false;
            sender.force_at = None;
            // After a switch to a track that lags behind: what has been heard is not said again.
            if sender.kind == Kind::Audio && sender.sent_pts.is_some_and(|sent| packed.pts <= sent) {
                continue;
            }
            sender.push(packed.clone(), packed.pts, true);
            if sender.queue.len() > QUEUE_FRAMES_MAX {
                self.leg.counters().skipped.fetch_add(sender.queue.len() as u64, std::sync::atomic::Ordering::Relaxed);
                sender.queue.clear();
                sender.need_key = sender.kind == Kind::Video;
                request_key(lanes, uid);
            }
        }
    }

    /// A lane has ended: what is upcoming is taken at once.
    pub(crate) fn lane_ended(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, uid: TrackUid, now: Instant) {
        let key = self.key;
        for sender in self.senders.iter_mut().filter(|s| s.current == Some(uid) || s.upcoming == Some(uid)) {
            lanes.detach(key, uid);
            if sender.upcoming == Some(uid) {
                sender.upcoming = None;
            } else {
                sender.current = sender.upcoming.take();
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
            for uid in sender.current.take().into_iter().chain(sender.upcoming.take()) {
                lanes.detach(self.key, uid);
            }
        }
    }
}

impl Sender {
    fn follow(&mut self, key: SessionKey, point: Option<&Point>, rtc: &Rtc, lanes: &mut Lanes, now: Instant) {
        let wanted = point.map(|p| p.track.uid());
        if self.upcoming != wanted
            && let Some(gone) = self.upcoming.take()
        {
            lanes.detach(key, gone);
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
        if self.current == Some(uid) || self.upcoming == Some(uid) || ended {
            return;
        }
        // Sound has nothing to wait for: every packet is a beginning.
        let now_or_never = |old: TrackUid| self.kind == Kind::Audio || lanes.outdated(key, old);
        if let Some(old) = self.current.filter(|&old| now_or_never(old)) {
            lanes.detach(key, old);
            self.current = None;
        }
        if self.current.is_some() {
            self.upcoming = Some(uid);
            self.switch_after = self.sent_pts;
            if self.kind == Kind::Video {
                point.track.keyframes().request();
            }
        } else {
            self.current = Some(uid);
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

    /// Whether `packed`, of the upcoming lane, is where it takes over.
    fn switch(&mut self, key: SessionKey, packed: &Packed, rtc: &Rtc, lanes: &mut Lanes) -> bool {
        if !packed.key || self.switch_after.is_some_and(|sent| packed.pts <= sent) {
            return false;
        }
        if let Some(old) = std::mem::replace(&mut self.current, self.upcoming.take()) {
            lanes.detach(key, old);
        }
        if let Some(uid) = self.current {
            self.choose_format(uid, rtc, lanes);
        }
        self.need_key = false;
        true
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
        if self.kind == Kind::Audio && queued.next == 0 && queued.live {
            let off = clock.lateness(queued.pts, now) - self.lateness;
            self.lateness = self.lateness + MediaTime::from_nanos(off.as_nanos() / LATENESS_WEIGHT);
        }
        let bias = MediaTime::from_nanos(self.lateness.as_nanos() / 2).clamp(MediaTime::ZERO, SYNC_BIAS_MAX);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(clock: &mut RtpClock, stamps_us: impl IntoIterator<Item = i64>) -> Vec<u32> {
        let frame = MediaTime::from_millis(20);
        let all: Vec<u32> = stamps_us.into_iter().map(|us| clock.stamp(MediaTime::from_micros(us), frame)).collect();
        all.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect()
    }

    #[test]
    fn skew_correction_leaves_no_seams_in_audio() {
        let mut clock = RtpClock::new(Kind::Audio, 48_000);
        assert!(steps(&mut clock, (0..3_000).map(|i| i * 20_010)).iter().all(|&step| step == 960));
    }

    #[test]
    fn a_pause_keeps_its_length_and_drift_is_set_right() {
        let mut clock = RtpClock::new(Kind::Audio, 48_000);
        assert_eq!(steps(&mut clock, [0, 20_000, 420_000, 440_000]), [960, 19_200, 960]);
        let drifting = steps(&mut clock, (0..10_000).map(|i| 1_000_000 + i * 20_010));
        let odd: Vec<_> = drifting.iter().filter(|&&step| step != 960).collect();
        assert_eq!(odd.len(), 2, "100 ms of drift in 200 s: {odd:?}");
    }

    #[test]
    fn video_follows_bus_time() {
        let mut clock = RtpClock::new(Kind::Video, 90_000);
        assert_eq!(steps(&mut clock, [0, 33_300, 66_700]), [2_997, 3_006]);
    }
}

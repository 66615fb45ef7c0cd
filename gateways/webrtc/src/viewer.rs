//! [`Viewer`]: one WHEP session's side of the fan-out: its senders, the pace of its link, and its ledger row.
//!
//! Refuses: sockets, and what is sent frame by frame (`sender`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use patchbay_bus::{EndReason, FeedReader, FeedValue, Signal, TrackUid};
use patchbay_contract::Leg;
use patchbay_media::Kind;
use str0m::Rtc;
use str0m::bwe::Bitrate;
use str0m::media::{MediaAdded, Mid};

use crate::clock::WallClock;
use crate::directory::SessionKey;
use crate::lane::{Lanes, Packed};
use crate::pace::Pace;
use crate::repeat::Repeats;
use crate::sender::{Sender, request_key};

/// Capacity that is looked for before it is known what the stream needs.
const WANTED_AT_FIRST_BPS: u64 = 10_000_000;
/// Below this, nothing is looked for.
const LEAST_BPS: u64 = 100_000;
/// Over how long the stream's rate is taken, and how often a link that was too narrow is tried again.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// One WHEP session.
pub(crate) struct Viewer {
    pub(crate) key: SessionKey,
    pub(crate) leg: Leg,
    feed: FeedReader,
    clock: WallClock,
    senders: Vec<Sender>,
    pace: Pace,
    demand: Demand,
    /// The feed may have changed; nothing is followed before the peer has connected.
    pub(crate) follow_due: bool,
    connected: bool,
}

impl Viewer {
    pub(crate) fn new(key: SessionKey, leg: Leg, feed_signal: Arc<Signal>, clock: WallClock, now: Instant) -> Self {
        let feed = leg.feed().watch(feed_signal);
        let (pace, demand) = (Pace::new(now), Demand { bytes: 0, since: now, wanted_bps: 0, starved: false, probes: Probes::Rest });
        Self { key, leg, feed, clock, senders: Vec::new(), pace, demand, follow_due: true, connected: false }
    }

    /// The peer has connected, with this round trip.
    pub(crate) fn connected(&mut self, rtt: Option<Duration>) {
        self.connected = true;
        if let Some(rtt) = rtt {
            self.pace.idle_round_trip(rtt);
        }
    }

    /// An m-section was negotiated.
    pub(crate) fn add_media(&mut self, media: &MediaAdded, rtc: &mut Rtc) {
        self.senders.extend(Sender::new(media, rtc));
        rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(WANTED_AT_FIRST_BPS));
    }

    /// What the peer's reports say the link takes; `None` when it reports nothing of the kind.
    pub(crate) fn estimated(&mut self, bps: Option<u64>) {
        self.pace.estimated(bps);
        self.leg.counters().bandwidth_bps.store(bps.unwrap_or(0), Ordering::Relaxed);
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

    /// How the link has been of late: a round trip, and the part of the packets that did not arrive.
    pub(crate) fn link(&mut self, rtt: Option<Duration>, lost: Option<f32>, repeats: &mut Repeats, now: Instant) {
        let before = (self.pace.is_narrow(), repeats.copies());
        self.pace.report(rtt, lost, now);
        if self.pace.is_narrow() {
            repeats.full(now);
        } else if let Some(lost) = lost.filter(|_| !self.pace.has_queue()) {
            repeats.report(lost, now);
        }
        let after = (self.pace.is_narrow(), repeats.copies());
        if before != after {
            let (narrow, copies) = after;
            tracing::debug!(session = %self.leg.id(), narrow, copies, ?rtt, ?lost, "link judged");
        }
    }

    /// The round trip by the peer's last report on one m-section, which may be an old one.
    pub(crate) fn round_trip(&mut self, mid: Mid, rtt: Duration) {
        if let Some(sender) = self.senders.iter_mut().find(|s| s.mid == mid && s.reported_rtt != Some(rtt)) {
            sender.reported_rtt = Some(rtt);
            self.leg.counters().rtt_us.store(rtt.as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// Frames of a lane.
    pub(crate) fn deliver(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, uid: TrackUid, frames: &[Arc<Packed>], now: Instant) {
        let Some(sender) = self.senders.iter_mut().find(|s| s.reads(uid)) else { return };
        if sender.current == Some(uid) {
            self.demand.bytes += frames.iter().map(|packed| packed.size as u64).sum::<u64>();
        }
        sender.deliver(self.key, rtc, lanes, uid, frames, now);
        if let Some(bps) = self.demand.changed(now) {
            self.pace.needs(bps / 3 * 2);
            rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(bps));
        }
    }

    /// A lane has ended.
    pub(crate) fn lane_ended(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, uid: TrackUid, now: Instant) {
        for sender in self.senders.iter_mut().filter(|s| s.reads(uid)) {
            sender.lane_ended(self.key, rtc, lanes, uid, now);
        }
    }

    /// Hands str0m as many packets as may go now, and as the way to the peer has room for; returns when there will be more to do.
    pub(crate) fn pump(&mut self, rtc: &mut Rtc, lanes: &mut Lanes, room: usize, now: Instant) -> Option<Instant> {
        let skipped = self.senders.iter_mut().map(|sender| sender.tend(lanes, now)).sum();
        self.demand.starved |= skipped > 0;
        self.leg.counters().skipped.fetch_add(skipped, Ordering::Relaxed);
        self.pace.refill(now);
        self.pace.limit(room);
        // Audio first: its packets are few and must not wait behind a picture.
        for kind in [Kind::Audio, Kind::Video] {
            for sender in self.senders.iter_mut().filter(|s| s.kind == kind) {
                while let Some(done) = sender.write_next(rtc, &self.clock, now, &mut self.pace) {
                    if done.live {
                        let inside = patchbay_bus::now() - done.packed.arrival;
                        self.leg.counters().frame(done.packed.size, inside.as_nanos());
                    } else {
                        self.leg.counters().frames.fetch_add(1, Ordering::Relaxed);
                        self.leg.counters().bytes.fetch_add(done.packed.size as u64, Ordering::Relaxed);
                    }
                }
            }
        }
        if let Some(bps) = self.demand.probe(self.senders.iter().any(Sender::is_quiet)) {
            rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(bps));
        }
        let paced = self.senders.iter().any(Sender::is_waiting).then(|| self.pace.opens_at());
        self.senders.iter().filter_map(Sender::tend_at).chain(paced).min()
    }

    /// The peer asks for a key frame.
    pub(crate) fn keyframe_requested(&mut self, mid: Mid, lanes: &Lanes) {
        self.leg.counters().keyframe_requests.fetch_add(1, Ordering::Relaxed);
        if let Some(uid) = self.senders.iter().find(|s| s.mid == mid).and_then(|s| s.current) {
            request_key(lanes, uid);
        }
    }

    /// Leaves all lanes.
    pub(crate) fn leave(&mut self, lanes: &mut Lanes) {
        self.senders.iter_mut().for_each(|sender| sender.leave(self.key, lanes));
    }
}

/// What the stream would need of the link.
struct Demand {
    /// Since then.
    bytes: u64,
    since: Instant,
    wanted_bps: u64,
    /// Frames were left out in this window.
    starved: bool,
    probes: Probes,
}

/// str0m probes when more is wanted than before. A viewer that goes without pictures sends little, so that its estimate
/// has nothing to grow by; it is made to want less for a moment, and then as much as it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probes {
    Rest,
    /// As soon as no picture is being sent: its packets would be taken for the probe's, and they keep the old pace.
    Due,
    Raise,
}

impl Demand {
    /// The capacity to look for, if that is news: half as much again as the stream takes, for its key frames.
    fn changed(&mut self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < RATE_WINDOW {
            return None;
        }
        // After a silence, as before the first frame, the window says nothing of the stream.
        if elapsed > RATE_WINDOW * 2 {
            (self.bytes, self.since) = (0, now);
            return None;
        }
        let bps = std::mem::take(&mut self.bytes) as u128 * 8 * 1_500_000 / elapsed.as_micros().max(1);
        self.since = now;
        if std::mem::take(&mut self.starved) && self.probes == Probes::Rest {
            self.probes = Probes::Due;
        }
        let wanted = u64::try_from(bps).unwrap_or(u64::MAX).clamp(LEAST_BPS, 100_000_000);
        // A stream's usual ups and downs are no news.
        let usual = self.wanted_bps / 4 * 3..=self.wanted_bps / 2 * 3;
        (!usual.contains(&wanted)).then(|| {
            self.wanted_bps = wanted;
            wanted
        })
    }

    /// What to pretend to want, so that the link is probed.
    fn probe(&mut self, quiet: bool) -> Option<u64> {
        match self.probes {
            Probes::Due if quiet => {
                self.probes = Probes::Raise;
                Some(LEAST_BPS)
            }
            Probes::Raise => {
                self.probes = Probes::Rest;
                Some(self.wanted_bps)
            }
            _ => None,
        }
    }
}

//! [`Timeline`]: the one place where wire clocks become bus time.
//!
//! Owns: unwrapping, jumps, frozen stamps, RTCP sender reports and clock skew of one source. Refuses: clocks of its own
//! (the time of arrival is always an argument), reordering and composition offsets (callers pass decode order and add
//! CTS to the result themselves), and any state that grows with the stream.
//!
//! # Model
//! A source has **tracks**; tracks that count with the same clock share a **domain** (RTMP: one domain for audio and
//! video; RTP: one per track). The time of a stamp is
//!
//! ```text
//! time = unwrapped wire time + offset of the track + shift of the domain + correction of the source
//!                              (jumps)               (sender reports)      (skew)
//! ```
//!
//! and never less than the track's last one. The first stamp of a domain is anchored at its arrival.
//!
//! * **Jumps.** A stamp that is more than [`FORWARD`] ahead of what its arrival suggests, more than [`BACKWARD`] behind
//!   its predecessor, or whose time would leave `arrival - LAG_MAX ..= arrival + AHEAD_MAX`, moves the offset of its track
//!   so that time goes on by what elapsed. The other tracks of the domain meet the same jump a little earlier or later:
//!   each takes over the same offset once that fits it better than its own, so lip-sync survives.
//!   A stall followed by a burst is not a jump: nothing is moved as long as the burst may still catch up.
//! * **Frozen stamps.** Frames that keep arriving with one and the same stamp for more than [`FROZEN`] are timed by arrival.
//! * **Sender reports** tie domains to the sender's wall clock. The first domain to have one stays where it is, the others
//!   glide towards it: at half speed or one and a half in a domain's first seconds, by 5 % later; never by a step.
//! * **Skew.** The smallest delay seen in five seconds is held within 20 ms by a correction of at most 0.5 ms per second,
//!   the same for all tracks. A source that stays a second or more behind (it paused and its clock with it) is stepped once.

use crate::MediaTime;

/// A stamp this much ahead of what its arrival suggests is a jump.
pub const FORWARD: MediaTime = MediaTime::from_secs(3);
/// A stamp this much behind its predecessor is a jump; less is the sender's disorder and only held back.
pub const BACKWARD: MediaTime = MediaTime::from_secs(1);
/// Stamps equal for longer than this are frozen.
pub const FROZEN: MediaTime = MediaTime::from_secs(1);
/// Time never runs further behind arrival.
pub const LAG_MAX: MediaTime = MediaTime::from_secs(10);
/// Time never runs further ahead of arrival; generous, because servers begin with a burst of their newest group.
pub const AHEAD_MAX: MediaTime = MediaTime::from_secs(30);

/// How far two tracks of one domain may lie apart and still be taken for one clock; also how much later than its
/// neighbour a track may notice that a bound is reached.
const NEIGHBOURHOOD: MediaTime = MediaTime::from_secs(1);
/// For how long a jump of one track is expected to show on its neighbours.
const JUMP_ECHO: MediaTime = MediaTime::from_secs(10);
/// A sender report that asks for more is not believed: senders exist whose tracks have unrelated wall clocks.
const REPORT_MAX: MediaTime = MediaTime::from_secs(3);
/// Sender reports of one domain that disagree by more tell of a stepped wall clock, not of media.
const REPORT_STEP: MediaTime = MediaTime::from_millis(50);
/// A domain this young may glide fast.
const EARLY: MediaTime = MediaTime::from_secs(3);

/// The clock on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Ticks per second.
    pub rate_hz: u32,
    /// Width of the counter; 64 and more means that it never wraps.
    pub bits: u8,
}

impl Wire {
    /// RTMP and FLV: 32 bits of milliseconds.
    pub const RTMP: Self = Self { rate_hz: 1_000, bits: 32 };
    /// MPEG transport stream: 33 bits at 90 kHz.
    pub const TS: Self = Self { rate_hz: 90_000, bits: 33 };

    /// RTP: 32 bits at the payload format's rate.
    pub const fn rtp(rate_hz: u32) -> Self {
        Self { rate_hz, bits: 32 }
    }

    /// A counter somebody else has unwrapped already (as two's complement).
    pub const fn unwrapped(rate_hz: u32) -> Self {
        Self { rate_hz, bits: 64 }
    }

    /// The count nearest to `last` that the wire shows as `ts`.
    fn unwrap(self, ts: u64, last: Option<i64>) -> i64 {
        let unused = 64 - u32::from(self.bits.clamp(8, 64));
        // Shifting up and down again drops the unused bits and extends the sign.
        match last {
            None if unused == 0 => ts as i64,
            None => ((ts << unused) >> unused) as i64,
            Some(last) => last.wrapping_add((ts.wrapping_sub(last as u64) << unused) as i64 >> unused),
        }
    }
}

/// Names a clock of a [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(usize);

/// Names a track of a [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track(usize);

/// What a wire stamp means on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Bus time; never decreases within a track.
    pub time: MediaTime,
    /// The wire clock and bus time parted company just before this stamp (jump, freeze, pause).
    pub jumped: bool,
}

/// A wall clock reading of RTCP (NTP format, 32.32 bits of seconds since 1900), for [`Timeline::sender_report`].
pub fn ntp_time(ntp: u64) -> MediaTime {
    let nanos = (u128::from(ntp) * 1_000_000_000) >> 32;
    // 2^32 seconds are 4.3e18 ns: fits.
    MediaTime::from_nanos(nanos as i64)
}

/// The clocks of one source. Handles are valid only for the timeline that gave them.
#[derive(Debug, Default)]
pub struct Timeline {
    domains: Vec<DomainState>,
    tracks: Vec<TrackState>,
    skew: Skew,
    /// Bus time minus the sender's wall clock, once a sender report was believed.
    wall: Option<MediaTime>,
}

#[derive(Debug)]
struct DomainState {
    wire: Wire,
    /// Newest count, of any track.
    count: Option<i64>,
    /// Newest stamp, of any track.
    last: Option<Last>,
    anchored: MediaTime,
    /// The newest offset and when it was found.
    newest: (MediaTime, MediaTime),
    glide: Glide,
    /// Wall clock minus wire time, by the last sender report since the clock jumped.
    sender: Option<MediaTime>,
    /// A sender report that came before the first stamp.
    early_report: Option<(MediaTime, u64)>,
}

#[derive(Debug)]
struct TrackState {
    domain: usize,
    offset: MediaTime,
    last: Option<Last>,
    /// Last time given out.
    out: MediaTime,
    /// First stamp with the current wire time.
    since: Option<Last>,
    frozen: bool,
    restarted: bool,
    steps: u32,
}

/// A stamp before shift and correction.
#[derive(Clone, Copy, Debug)]
struct Last {
    track: usize,
    wire: MediaTime,
    base: MediaTime,
    arrival: MediaTime,
}

impl Last {
    /// Where `base` would be at `arrival` if its clock ran on.
    fn run_on(&self, arrival: MediaTime) -> MediaTime {
        self.base + (arrival - self.arrival).max(MediaTime::ZERO)
    }
}

/// The times a base may have.
#[derive(Clone, Copy)]
struct Bounds {
    low: MediaTime,
    /// The base that comes out as the time of arrival.
    now: MediaTime,
    high: MediaTime,
}

impl Bounds {
    fn around(arrival: MediaTime, adjustment: MediaTime) -> Self {
        let now = arrival - adjustment;
        Self { low: now - LAG_MAX, now, high: now + AHEAD_MAX }
    }

    fn hold(&self, base: MediaTime, slack: MediaTime) -> bool {
        base >= self.low - slack && base <= self.high + slack
    }

    fn clamp(&self, base: MediaTime) -> MediaTime {
        base.max(self.low).min(self.high)
    }
}

impl Timeline {
    /// A source without clocks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a clock.
    pub fn domain(&mut self, wire: Wire) -> Domain {
        self.domains.push(DomainState {
            wire,
            count: None,
            last: None,
            anchored: MediaTime::ZERO,
            newest: (MediaTime::ZERO, MediaTime::ZERO),
            glide: Glide::default(),
            sender: None,
            early_report: None,
        });
        Domain(self.domains.len() - 1)
    }

    /// Adds a track that counts with the clock of `domain`.
    pub fn track(&mut self, domain: Domain) -> Track {
        self.tracks.push(TrackState {
            domain: domain.0,
            offset: MediaTime::ZERO,
            last: None,
            out: MediaTime::from_nanos(i64::MIN),
            since: None,
            frozen: false,
            restarted: false,
            steps: self.skew.steps,
        });
        Track(self.tracks.len() - 1)
    }

    /// Bus time of a frame that was stamped `wire_ts` and arrived at `arrival`, in decode order.
    pub fn stamp(&mut self, track: Track, wire_ts: u64, arrival: MediaTime) -> Stamped {
        let index = track.0;
        let domain = &mut self.domains[self.tracks[index].domain];
        let count = domain.wire.unwrap(wire_ts, domain.count);
        domain.count = Some(count);
        let wire = MediaTime::from_ticks(count, domain.wire.rate_hz);
        let adjustment = domain.glide.advance(arrival) + self.skew.advance(arrival);

        let state = &mut self.tracks[index];
        let (base, jumped) = state.place(index, domain, wire, arrival, Bounds::around(arrival, adjustment));
        let now = Last { track: index, wire, base, arrival };
        if state.since.is_none_or(|since| since.wire != wire) {
            state.since = Some(now);
        }
        state.last = Some(now);
        domain.last = Some(now);

        let stepped = state.steps != self.skew.steps;
        state.steps = self.skew.steps;
        state.out = state.out.max(base + adjustment);
        self.skew.observe(arrival, arrival - base - domain.glide.shift);
        let stamped = Stamped { time: state.out, jumped: jumped || stepped };
        if let Some((wall, ts)) = domain.early_report.take() {
            self.sender_report(track, wall, ts);
        }
        stamped
    }

    /// The caller knows that the clock of this track began anew (another SSRC, another session): its next stamp goes on
    /// from where the last one was, whatever it says.
    pub fn restart(&mut self, track: Track) {
        self.tracks[track.0].restarted = true;
    }

    /// The sender says that `wire_ts` of this track's clock was `wall` on its wall clock ([`ntp_time`] for RTCP). Any epoch
    /// will do, as long as all tracks use the same.
    pub fn sender_report(&mut self, track: Track, wall: MediaTime, wire_ts: u64) {
        let domain = &mut self.domains[self.tracks[track.0].domain];
        let (Some(last), Some(count)) = (domain.last, domain.count) else {
            domain.early_report = Some((wall, wire_ts));
            return;
        };
        let wire = MediaTime::from_ticks(domain.wire.unwrap(wire_ts, Some(count)), domain.wire.rate_hz);
        let sender = wall - wire;
        let stepped = domain.sender.is_some_and(|before| (sender - before).abs() > REPORT_STEP);
        domain.sender = Some(sender);
        let here = domain.newest.0 + domain.glide.goal - sender;
        let (Some(common), false) = (self.wall, stepped) else {
            // The first report, or the first after the wall clock was stepped: media stay where they are.
            self.wall = Some(here);
            return;
        };
        let goal = domain.glide.goal + (common - here);
        if (common - here).abs() <= REPORT_MAX {
            domain.glide.head_for(goal, last.arrival - domain.anchored <= EARLY);
        }
    }
}

impl TrackState {
    /// Base time of a stamp, and whether the clock jumped.
    fn place(&mut self, me: usize, domain: &mut DomainState, wire: MediaTime, arrival: MediaTime, bounds: Bounds) -> (MediaTime, bool) {
        let restarted = std::mem::take(&mut self.restarted);
        let Some(last) = self.last else {
            return self.place_first(domain, wire, arrival, bounds);
        };
        if wire == last.wire && !restarted {
            let since = self.since.unwrap_or(last);
            if arrival - since.arrival <= FROZEN {
                return (last.base, false);
            }
            let begins = !std::mem::replace(&mut self.frozen, true);
            return (bounds.clamp(since.run_on(arrival).max(last.base)), begins);
        }
        self.frozen = false;
        let expected = last.run_on(arrival);
        if !restarted && let Some(found) = self.follow(me, domain, wire, arrival, (last, expected), bounds) {
            return found;
        }
        let base = bounds.clamp(expected);
        self.rebase(domain, base - wire, arrival);
        (base, true)
    }

    /// The first stamp of a track: on the clock of its domain if that is believable, else at its arrival.
    fn place_first(&mut self, domain: &mut DomainState, wire: MediaTime, arrival: MediaTime, bounds: Bounds) -> (MediaTime, bool) {
        let expected = match domain.last {
            Some(last) => {
                let expected = last.run_on(arrival);
                let base = wire + domain.newest.0;
                if (base - expected).abs() <= FORWARD && bounds.hold(base, NEIGHBOURHOOD) {
                    self.offset = domain.newest.0;
                    return (base, false);
                }
                bounds.clamp(expected)
            }
            None => {
                domain.anchored = arrival;
                bounds.now
            }
        };
        self.rebase(domain, expected - wire, arrival);
        (expected, false)
    }

    /// The base by an offset that is known already, the track's own or the newest of its domain; `None` on a jump.
    fn follow(
        &mut self,
        me: usize,
        domain: &DomainState,
        wire: MediaTime,
        arrival: MediaTime,
        (last, expected): (Last, MediaTime),
        bounds: Bounds,
    ) -> Option<(MediaTime, bool)> {
        let fits = |base: MediaTime| base >= last.base - BACKWARD && base <= expected + FORWARD && bounds.hold(base, MediaTime::ZERO);
        let own = wire + self.offset;
        let (newest, found) = domain.newest;
        if newest == self.offset {
            // A neighbour on the same clock may have accepted the same small leap a hair below the threshold.
            let agreed = domain
                .last
                .is_some_and(|l| l.track != me && (own - l.run_on(arrival)).abs() <= NEIGHBOURHOOD && bounds.hold(own, NEIGHBOURHOOD));
            return (agreed || fits(own)).then_some((own, false));
        }
        let shared = wire + newest;
        let own_fits = fits(own);
        let nearer = (shared - expected).abs() < (own - expected).abs();
        if fits(shared) && (!own_fits || (nearer && arrival - found <= JUMP_ECHO)) {
            self.offset = newest;
            return Some((shared, true));
        }
        own_fits.then_some((own, false))
    }

    fn rebase(&mut self, domain: &mut DomainState, offset: MediaTime, arrival: MediaTime) {
        self.offset = offset;
        domain.newest = (offset, arrival);
        // Reports about the clock before the jump say nothing of the clock after it.
        domain.sender = None;
    }
}

/// The shift of a domain on its way to where sender reports want it.
#[derive(Debug, Default)]
struct Glide {
    shift: MediaTime,
    goal: MediaTime,
    /// Movement per 1,000 units of time.
    per_mille: i64,
    moved: Option<MediaTime>,
}

impl Glide {
    fn head_for(&mut self, goal: MediaTime, early: bool) {
        self.goal = goal;
        self.per_mille = if early { 500 } else { 50 };
    }

    fn advance(&mut self, arrival: MediaTime) -> MediaTime {
        let elapsed = elapsed_ns(&mut self.moved, arrival);
        let reach = MediaTime::from_nanos(elapsed * self.per_mille / 1_000);
        self.shift += (self.goal - self.shift).max(MediaTime::ZERO - reach).min(reach);
        self.shift
    }
}

/// Time since `moved`, which becomes `arrival`; a second at most, so that nothing leaps after a pause.
fn elapsed_ns(moved: &mut Option<MediaTime>, arrival: MediaTime) -> i64 {
    let before = moved.map_or(arrival, |m| m.min(arrival));
    *moved = Some(moved.map_or(arrival, |m| m.max(arrival)));
    (arrival - before).as_nanos().clamp(0, 1_000_000_000)
}

/// Holds the smallest delay of a source near zero.
#[derive(Debug, Default)]
struct Skew {
    correction: MediaTime,
    /// Smallest delay of the last full window and of the one before.
    floor: Option<MediaTime>,
    floor_before: Option<MediaTime>,
    /// Begin and smallest delay of the current window.
    window: Option<(MediaTime, MediaTime)>,
    moved: Option<MediaTime>,
    /// How often the correction was stepped.
    steps: u32,
}

impl Skew {
    const WINDOW: MediaTime = MediaTime::from_secs(5);
    /// A window that has seen nothing for longer than this is of no use.
    const STALE: MediaTime = MediaTime::from_secs(10);
    const TOLERANCE: MediaTime = MediaTime::from_millis(20);
    /// A delay this constant over two windows is no longer a stall that is being caught up with.
    const STEADY: MediaTime = MediaTime::from_millis(500);
    /// Seconds behind that are worth a visible step.
    const STEP: MediaTime = MediaTime::from_secs(1);
    const SLEW_PPM: i64 = 500;

    fn advance(&mut self, arrival: MediaTime) -> MediaTime {
        let elapsed = elapsed_ns(&mut self.moved, arrival);
        if let Some(floor) = self.floor {
            let error = floor - self.correction;
            let excess = error - error.max(MediaTime::ZERO - Self::TOLERANCE).min(Self::TOLERANCE);
            let reach = MediaTime::from_nanos(elapsed * Self::SLEW_PPM / 1_000_000);
            self.correction += excess.max(MediaTime::ZERO - reach).min(reach);
        }
        self.correction
    }

    /// Notes the delay of a stamp before correction.
    fn observe(&mut self, arrival: MediaTime, delay: MediaTime) {
        let (begin, least) = match self.window {
            Some((begin, least)) if arrival - begin <= Self::STALE => (begin, least.min(delay)),
            _ => (arrival, delay),
        };
        self.window = Some((begin, least));
        if arrival - begin < Self::WINDOW {
            return;
        }
        self.window = None;
        self.floor_before = self.floor.replace(least);
        let steady = self.floor_before.is_some_and(|before| (before - least).abs() < Self::STEADY);
        if steady && least - self.correction > Self::STEP {
            self.correction = least;
            self.steps = self.steps.wrapping_add(1);
        }
    }
}

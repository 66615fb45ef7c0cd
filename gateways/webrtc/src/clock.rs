//! Bus time on a viewer's clocks: [`WallClock`] for sender reports, [`RtpClock`] for timestamps. Refuses: to know what is sent.

use std::time::Instant;

use patchbay_media::{Kind, MediaTime};

/// Sender reports tell a wall clock this far behind bus time: str0m refuses one that lies ahead of now, and a source
/// may stamp a little ahead. The same for audio and video, so lips stay in sync.
const WALL_LEAD: MediaTime = MediaTime::from_secs(1);

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
    pub(crate) fn lateness(&self, pts: MediaTime, now: Instant) -> MediaTime {
        self.bus + MediaTime::from(now.saturating_duration_since(self.instant)) - pts
    }

    pub(crate) fn of(&self, pts: MediaTime, now: Instant) -> Instant {
        let offset = pts - WALL_LEAD - self.bus;
        let at = if offset < MediaTime::ZERO {
            self.instant.checked_sub(offset.abs().to_duration())
        } else {
            self.instant.checked_add(offset.to_duration())
        };
        at.unwrap_or(now).min(now)
    }
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
pub(crate) struct RtpClock {
    rate_hz: u32,
    offset: u32,
    continuous: bool,
    /// Where the last packet ended, in ticks, and how far that was from bus time.
    last: Option<(i64, i64)>,
}

impl RtpClock {
    pub(crate) fn new(kind: Kind, rate_hz: u32) -> Self {
        Self { rate_hz, offset: rand::random(), continuous: kind == Kind::Audio, last: None }
    }

    pub(crate) fn stamp(&mut self, pts: MediaTime, duration: MediaTime) -> u32 {
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

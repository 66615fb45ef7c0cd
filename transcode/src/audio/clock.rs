//! [`SourceClock`]: counts decoded samples against the source's timestamps, and says what to do when they part.
//!
//! The sample count is the clock of the output; timestamps only correct it. That is what keeps the output free of
//! gaps while lip-sync cannot drift: noise below [`JITTER`] never reaches the sound, everything above is filled or
//! trimmed at once, and what is left is stretched away by a thousandth.

use patchbay_media::MediaTime;

/// Timestamps this far off are noise: 20 ms less what millisecond stamps may be wrong.
const JITTER: MediaTime = MediaTime::from_millis(19);
/// Where packets are known to be missing, this much is already a gap.
const JITTER_AT_LOSS: MediaTime = MediaTime::from_millis(4);
/// Beyond this the source's clock was set anew.
const JUMP: MediaTime = MediaTime::from_secs(2);
/// Mean deviation at which stretching begins and ends.
const STRETCH_ABOVE: f64 = 4e6;
const STRETCH_BELOW: f64 = 1e6;
/// One sample in this many is added or removed while stretching: 0.2 %, which nobody hears.
const STRETCH_STEP: usize = 500;
/// Weight of one packet in the mean deviation: about a second's worth of packets.
const WEIGHT: f64 = 1.0 / 50.0;

/// How a packet lies against the samples so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It follows.
    Follows,
    /// This many samples are missing before it.
    Gap(usize),
    /// It begins this many samples before the end of what is already there.
    Late(usize),
    /// It belongs to another clock.
    Jump,
}

/// A sample counter with an origin.
#[derive(Clone, Debug)]
pub(crate) struct SourceClock {
    rate: u32,
    origin: MediaTime,
    samples: i64,
    /// Mean of timestamp minus count, nanoseconds.
    deviation: f64,
    stretching: bool,
}

impl SourceClock {
    /// Counts samples of `rate` Hz from `origin` on.
    pub(crate) fn new(rate: u32, origin: MediaTime) -> Self {
        Self { rate, origin, samples: 0, deviation: 0.0, stretching: false }
    }

    /// Where the next sample lies.
    pub(crate) fn end(&self) -> MediaTime {
        self.origin + MediaTime::from_ticks(self.samples, self.rate)
    }

    /// Samples in a span.
    pub(crate) fn samples_in(&self, span: MediaTime) -> usize {
        usize::try_from(span.to_ticks(self.rate)).unwrap_or(0)
    }

    /// Counts samples.
    pub(crate) fn advance(&mut self, samples: usize) {
        self.samples = self.samples.saturating_add(samples as i64);
    }

    /// Where a packet stamped `pts` lies; `after_loss` when packets before it are known to be missing.
    pub(crate) fn fit(&mut self, pts: MediaTime, after_loss: bool) -> Fit {
        let off = pts - self.end();
        if off.abs() > JUMP {
            return Fit::Jump;
        }
        let tolerated = if after_loss { JITTER_AT_LOSS } else { JITTER };
        if off >= tolerated {
            self.settled();
            return Fit::Gap(self.samples_in(off));
        }
        if MediaTime::ZERO - off >= JITTER {
            self.settled();
            return Fit::Late(self.samples_in(MediaTime::ZERO - off));
        }
        self.deviation += (off.as_nanos() as f64 - self.deviation) * WEIGHT;
        Fit::Follows
    }

    fn settled(&mut self) {
        self.deviation = 0.0;
        self.stretching = false;
    }

    /// By how many samples to lengthen (or shorten) a packet of `samples`, so that the deviation goes away.
    pub(crate) fn stretch(&mut self, samples: usize) -> i64 {
        let size = self.deviation.abs();
        self.stretching = if self.stretching { size > STRETCH_BELOW } else { size > STRETCH_ABOVE };
        let step = samples.div_ceil(STRETCH_STEP) as i64;
        if !self.stretching || samples < 2 * STRETCH_STEP / 10 {
            return 0;
        }
        let step = if self.deviation > 0.0 { step } else { -step };
        self.deviation -= step as f64 * 1e9 / f64::from(self.rate.max(1));
        step
    }
}

/// Makes `by` more (or fewer) samples of `samples` by linear interpolation over the whole packet.
pub(crate) fn stretch(samples: &mut Vec<f32>, channels: usize, by: i64) {
    let n = samples.len() / channels.max(1);
    let Some(wanted) = n.checked_add_signed(by as isize).filter(|&w| w >= 2 && n >= 2 && by != 0) else { return };
    let step = (n - 1) as f32 / (wanted - 1) as f32;
    let mut out = Vec::with_capacity(wanted * channels);
    for i in 0..wanted {
        let at = i as f32 * step;
        let left = (at as usize).min(n - 2);
        let part = at - left as f32;
        for channel in 0..channels {
            let (a, b) = (samples[left * channels + channel], samples[(left + 1) * channels + channel]);
            out.push(a + (b - a) * part);
        }
    }
    *samples = out;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_at_one_second() -> SourceClock {
        let mut clock = SourceClock::new(48_000, MediaTime::ZERO);
        clock.advance(48_000);
        clock
    }

    #[test]
    fn jitter_is_ignored_gaps_and_overlaps_are_counted_and_jumps_told() {
        let mut clock = clock_at_one_second();
        let at = |ms| MediaTime::from_millis(ms);
        assert_eq!(clock.fit(at(1_015), false), Fit::Follows);
        assert_eq!(clock.fit(at(1_015), true), Fit::Gap(720));
        assert_eq!(clock.fit(at(1_020), false), Fit::Gap(960));
        assert_eq!(clock.fit(at(985), true), Fit::Follows);
        assert_eq!(clock.fit(at(900), false), Fit::Late(4_800));
        assert_eq!(clock.fit(at(3_500), false), Fit::Jump);
        assert_eq!(clock.fit(at(-1_500), false), Fit::Jump);
    }

    /// A source whose sample clock runs 300 ppm slow for two hours: without correction 2.2 s off.
    #[test]
    fn a_wrong_sample_clock_is_followed_within_10_ms() {
        for ppm in [-300.0, 300.0] {
            let mut clock = SourceClock::new(48_000, MediaTime::ZERO);
            let mut worst = 0;
            for n in 0..360_000 {
                let pts = MediaTime::from_nanos((f64::from(n) * 20e6 * (1.0 + ppm * 1e-6)) as i64);
                assert_eq!(clock.fit(pts, false), Fit::Follows, "packet {n} at {ppm} ppm");
                worst = worst.max((pts - clock.end()).abs().as_millis());
                let by = clock.stretch(960);
                clock.advance(960_usize.checked_add_signed(by as isize).unwrap());
            }
            assert!(worst <= 10, "{worst} ms at {ppm} ppm");
        }
    }

    #[test]
    fn millisecond_stamps_never_stretch_anything() {
        let mut clock = SourceClock::new(44_100, MediaTime::ZERO);
        for n in 0..10_000 {
            let pts = MediaTime::from_millis(MediaTime::from_ticks(n * 1_024, 44_100).as_millis());
            assert_eq!(clock.fit(pts, false), Fit::Follows);
            assert_eq!(clock.stretch(1_024), 0);
            clock.advance(1_024);
        }
    }

    #[test]
    fn stretching_keeps_the_ends_and_the_channels() {
        let mut stereo: Vec<f32> = (0..960).flat_map(|i| [i as f32, -(i as f32)]).collect();
        stretch(&mut stereo, 2, 2);
        assert_eq!(stereo.len(), 962 * 2);
        assert_eq!((stereo[0], stereo[1]), (0.0, 0.0));
        assert!((stereo[1_922] - 959.0).abs() < 0.01 && (stereo[1_923] + 959.0).abs() < 0.01);
    }
}

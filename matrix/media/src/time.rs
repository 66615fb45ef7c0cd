//! [`MediaTime`]: one signed nanosecond scale for everything on the bus.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

/// A point (or span) on the bus's time scale, in nanoseconds. Arithmetic saturates: ±292 years is out of reach
/// of honest input, and hostile input must not wrap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MediaTime(i64);

impl MediaTime {
    /// Time zero.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds.
    pub const fn from_nanos(ns: i64) -> Self {
        Self(ns)
    }

    /// From microseconds.
    pub const fn from_micros(us: i64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// From milliseconds.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// From seconds.
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1_000_000_000))
    }

    /// From ticks of a clock of `rate` Hz, rounded to the nearest nanosecond. A rate of 0 is read as 1.
    pub fn from_ticks(ticks: i64, rate: u32) -> Self {
        let rate = i128::from(rate.max(1));
        let scaled = i128::from(ticks) * 1_000_000_000;
        Self(saturate((scaled + rate.div_euclid(2)).div_euclid(rate)))
    }

    /// In ticks of a clock of `rate` Hz, rounded to the nearest tick.
    pub fn to_ticks(self, rate: u32) -> i64 {
        saturate((i128::from(self.0) * i128::from(rate) + 500_000_000).div_euclid(1_000_000_000))
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Seconds as a float, for statistics only.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Distance without sign.
    pub const fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }

    /// The non-negative part as a [`Duration`].
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(self.0.max(0) as u64)
    }
}

fn saturate(x: i128) -> i64 {
    i64::try_from(x).unwrap_or(if x < 0 { i64::MIN } else { i64::MAX })
}

impl From<Duration> for MediaTime {
    fn from(d: Duration) -> Self {
        Self(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Add for MediaTime {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for MediaTime {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl Sub for MediaTime {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

impl SubAssign for MediaTime {
    fn sub_assign(&mut self, rhs: Self) {
        *self = *self - rhs;
    }
}

impl fmt::Debug for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_trip_at_the_clocks_of_rtp_and_rtmp() {
        for rate in [1_000, 8_000, 44_100, 48_000, 90_000] {
            for ticks in [-3, 0, 1, 44_101, 4_294_967_295, 1 << 40] {
                assert_eq!(MediaTime::from_ticks(ticks, rate).to_ticks(rate), ticks, "{ticks} at {rate} Hz");
            }
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let max = MediaTime::from_nanos(i64::MAX);
        assert_eq!(max + MediaTime::from_secs(1), max);
        assert_eq!(MediaTime::from_ticks(i64::MAX, 1), max);
    }
}

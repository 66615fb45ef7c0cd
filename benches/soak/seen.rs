//! What a viewer saw, in windows.

use std::time::{Duration, Instant};

use crate::sources::FPS;

/// Longest step between two stamps of one clock.
const CLOCK_MAX_MS: f64 = 60_000.0;

/// Of one viewer since it was last asked.
pub struct Seen {
    pictures: u64,
    /// When the newest picture came, or it was begun to wait for one.
    last: Instant,
    longest: Duration,
    skews_ms: Vec<f64>,
    /// Stamp of the newest picture, milliseconds.
    stamp_ms: Option<f64>,
    missed: u64,
    ends: u64,
}

/// The same, closed.
pub struct Window {
    pub pictures: u64,
    /// Longest time without a new picture.
    pub gap_ms: f64,
    /// How much later sound came than the picture that belongs to it; the middle of the window's.
    pub skew_ms: Option<f64>,
    /// Pictures that are missing between two that came, by their stamps.
    pub missed: u64,
    /// How often the viewer was thrown out or refused.
    pub ends: u64,
}

impl Seen {
    pub fn new() -> Self {
        Self::since(Instant::now())
    }

    fn since(last: Instant) -> Self {
        Self { pictures: 0, last, longest: Duration::ZERO, skews_ms: Vec::new(), stamp_ms: None, missed: 0, ends: 0 }
    }

    pub fn picture(&mut self, stamp_ms: f64, skew_ms: Option<f64>) {
        let step = self.stamp_ms.replace(stamp_ms).map_or(0.0, |last| stamp_ms - last);
        // Beyond that, another clock has begun.
        if (0.0..CLOCK_MAX_MS).contains(&step) {
            self.missed += ((step * FPS as f64 / 1e3).round() as u64).saturating_sub(1);
        }
        let now = Instant::now();
        self.pictures += 1;
        self.longest = self.longest.max(now - std::mem::replace(&mut self.last, now));
        self.skews_ms.extend(skew_ms);
    }

    pub fn ended(&mut self) {
        self.ends += 1;
    }

    /// Closes the window. A gap that is still open belongs to it, and to the next one.
    pub fn take(&mut self) -> Window {
        let this = std::mem::replace(self, Self { stamp_ms: self.stamp_ms, ..Self::since(self.last) });
        let gap_ms = this.longest.max(this.last.elapsed()).as_secs_f64() * 1e3;
        Window { pictures: this.pictures, missed: this.missed, gap_ms, skew_ms: middle(this.skews_ms), ends: this.ends }
    }
}

/// The median.
pub fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

//! [`Ladder`]: how video encodes step down when transcoding costs more than it may.
//!
//! Pure: says what a target becomes, not when. What passes through is no encode and is never touched.

use std::fmt;

use patchbay_media::{VideoShape, VideoTarget};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::target::video_bitrate;

/// Halving goes no further than this.
const FPS_MIN: u32 = 10;
const SIDE_MIN: u32 = 160;
/// Assumed where neither target nor source says.
const FPS_USUAL: u32 = 30;

/// One step down; each comes on top of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Half the frames per second.
    Fps,
    /// Half the width and height.
    Size,
    /// No pictures; the sound goes on.
    AudioOnly,
}

impl Step {
    /// As configuration, API and metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fps => "fps",
            Self::Size => "size",
            Self::AudioOnly => "audio_only",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Steps in the order they are taken. Level 0 is none of them, level n the first n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder(Vec<Step>);

impl Ladder {
    /// What comes after "no pictures" cannot be taken and is left out.
    pub fn new(mut steps: Vec<Step>) -> Self {
        if let Some(last) = steps.iter().position(|s| *s == Step::AudioOnly) {
            steps.truncate(last + 1);
        }
        Self(steps)
    }

    /// The lowest level.
    pub fn bottom(&self) -> usize {
        self.0.len()
    }

    /// The lowest level that still has pictures.
    pub fn last_with_pictures(&self) -> usize {
        self.0.iter().position(|s| *s == Step::AudioOnly).unwrap_or(self.0.len())
    }

    /// The steps in force at `level`.
    pub fn taken(&self, level: usize) -> &[Step] {
        &self.0[..level.min(self.0.len())]
    }

    /// What `target`, made from pictures of `source`, becomes at `level`; `None` where there are no pictures.
    /// `keeps_size`: who watches it cannot follow a change of size, so that step is left out.
    pub fn apply(&self, level: usize, target: VideoTarget, source: &VideoShape, keeps_size: bool) -> Option<VideoTarget> {
        self.taken(level).iter().try_fold(target, |target, step| match step {
            Step::Fps => Some(half_fps(target, source)),
            Step::Size if keeps_size => Some(target),
            Step::Size => Some(half_size(target, source)),
            Step::AudioOnly => None,
        })
    }
}

fn half_fps(target: VideoTarget, source: &VideoShape) -> VideoTarget {
    let told = source.frame_rate.map_or(FPS_USUAL, |rate| rate.round().clamp(1.0, 240.0) as u32);
    let rate = target.frame_rate_max.map_or(told, |max| max.min(told));
    // Half the pictures take more than half the bits: they differ more from one to the next.
    let bitrate_bps = whole_kilobits(u64::from(target.bitrate_bps) * 2 / 3);
    VideoTarget { frame_rate_max: Some((rate / 2).max(FPS_MIN.min(rate))), bitrate_bps, ..target }
}

/// So that the order of the steps makes no difference.
fn whole_kilobits(bps: u64) -> u32 {
    u32::try_from((bps + 500) / 1_000 * 1_000).unwrap_or(u32::MAX)
}

fn half_size(target: VideoTarget, source: &VideoShape) -> VideoTarget {
    let (width, height) = target.size.unwrap_or((source.width, source.height));
    if width.max(height) < 2 * SIDE_MIN {
        return target;
    }
    let half = |side: u32| ((side / 2) & !1).max(2);
    let size = (half(width), half(height));
    // In the proportion of what the planner gives to both: who is planned at this size gets the very same target.
    let usual = |size| u64::from(video_bitrate(target.codec, size, f64::from(FPS_USUAL)));
    let bitrate = u64::from(target.bitrate_bps) * usual(size) / usual((width, height)).max(1);
    VideoTarget { size: Some(size), bitrate_bps: whole_kilobits(bitrate), ..target }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patchbay_media::Codec;

    const TARGET: VideoTarget =
        VideoTarget { codec: Codec::Mpeg1, size: None, frame_rate_max: None, bitrate_bps: 3_000_000, gop_ms: 2_000 };

    fn source(width: u32, height: u32, rate: f64) -> VideoShape {
        VideoShape { width, height, frame_rate: Some(rate), ..VideoShape::default() }
    }

    #[test]
    fn each_step_comes_on_top_of_those_before() {
        let ladder = Ladder::new(vec![Step::Fps, Step::Size, Step::AudioOnly]);
        let hd = source(1_280, 720, 29.97);
        let at = |level| ladder.apply(level, TARGET, &hd, false).map(|t| (t.size, t.frame_rate_max));
        assert_eq!(at(0), Some((None, None)));
        assert_eq!(at(1), Some((None, Some(15))));
        assert_eq!(at(2), Some((Some((640, 360)), Some(15))));
        assert_eq!(at(3), None);
        assert_eq!(at(99), None);
        assert_eq!(ladder.apply(2, TARGET, &hd, true), ladder.apply(1, TARGET, &hd, false));
        assert_eq!((ladder.bottom(), ladder.last_with_pictures()), (3, 2));
    }

    #[test]
    fn a_viewer_planned_at_the_smaller_size_gets_the_very_same_target() {
        let ladder = Ladder::new(vec![Step::Fps, Step::Size]);
        for (width, height) in [(1_920, 1_080), (1_280, 720), (640, 360)] {
            let planned = |width, height| VideoTarget { bitrate_bps: video_bitrate(Codec::Mpeg1, (width, height), 30.0), ..TARGET };
            let stepped = ladder.apply(2, planned(width, height), &source(width, height, 30.0), false).unwrap();
            let (w, h) = stepped.size.unwrap();
            let settled = VideoTarget { size: stepped.size, ..planned(w, h) };
            assert_eq!(ladder.apply(2, settled, &source(width, height, 30.0), true), Some(stepped));
        }
    }

    #[test]
    fn small_and_slow_pictures_stay_as_they_are() {
        let ladder = Ladder::new(vec![Step::Size, Step::Fps]);
        let at = |shape: &VideoShape, level| ladder.apply(level, TARGET, shape, false).map(|t| (t.size, t.frame_rate_max));
        assert_eq!(at(&source(176, 144, 15.0), 2), Some((None, Some(10))));
        assert_eq!(at(&source(640, 362, 8.0), 2), Some((Some((320, 180)), Some(8))));
        // A size nobody knows yet.
        assert_eq!(at(&VideoShape::default(), 1), Some((None, None)));
        assert_eq!((ladder.bottom(), ladder.last_with_pictures()), (2, 2));
    }

    #[test]
    fn nothing_comes_after_the_end() {
        assert_eq!(Ladder::new(vec![Step::AudioOnly, Step::Fps]), Ladder::new(vec![Step::AudioOnly]));
    }
}

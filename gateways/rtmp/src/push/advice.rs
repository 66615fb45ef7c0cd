//! [`Advice`]: what services usually ask for, and a stream that is pushed to one does not give.
//!
//! Refuses: what the planner decides about; codecs and B-frames are matters of what the sink takes.

use patchbay_media::{Frame, MediaTime, TrackInfo};

/// Most services ask for a key frame every two seconds; a little later is not worth a word.
const KEYS_APART_MAX: MediaTime = MediaTime::from_millis(2_500);
/// A group that does not end is spoken of from here on.
const OPEN_GROUP: MediaTime = MediaTime::from_secs(10);
/// After so many short groups in a row the encoder counts as set right.
const SHORT_IN_A_ROW: u32 = 8;
/// Sample rates that services name.
const RATES: [u32; 2] = [44_100, 48_000];

/// What was seen of a stream, and said about it.
#[derive(Default)]
pub(super) struct Advice {
    last_key: Option<MediaTime>,
    longest: MediaTime,
    short_in_a_row: u32,
    said: Lacks,
}

/// What a stream does not give.
#[derive(Clone, Copy, Default, PartialEq)]
struct Lacks {
    /// Seconds between key frames.
    keys_apart: Option<i64>,
    sample_rate: Option<u32>,
    video: bool,
    audio: bool,
}

impl Advice {
    /// Looks at a frame of video.
    pub(super) fn frame(&mut self, frame: &Frame) {
        let apart = self.last_key.map(|last| frame.dts - last);
        if frame.key {
            self.last_key = Some(frame.dts);
        }
        match apart {
            Some(apart) if frame.key && apart <= KEYS_APART_MAX => {
                self.short_in_a_row = self.short_in_a_row.saturating_add(1);
                if self.short_in_a_row >= SHORT_IN_A_ROW {
                    self.longest = MediaTime::ZERO;
                }
            }
            // One that is open grows in few steps: each is said.
            Some(apart) if frame.key || apart >= OPEN_GROUP.max(self.longest + self.longest) => {
                (self.longest, self.short_in_a_row) = (self.longest.max(apart), 0);
            }
            _ => {}
        }
    }

    /// Frames are missing, or others come: the group that was begun says nothing.
    pub(super) fn cut(&mut self) {
        self.last_key = None;
    }

    /// What is to be said from now on, if that is something else than before. The tracks are those that are sent.
    pub(super) fn news(&mut self, video: Option<&TrackInfo>, audio: Option<&TrackInfo>) -> Option<Vec<String>> {
        let rate = audio.and_then(TrackInfo::audio_shape).map(|shape| shape.sample_rate);
        let lacks = Lacks {
            keys_apart: (video.is_some() && self.longest > KEYS_APART_MAX).then(|| (self.longest.as_millis() + 500) / 1_000),
            sample_rate: rate.filter(|rate| *rate != 0 && !RATES.contains(rate)),
            video: video.is_none(),
            audio: audio.is_none(),
        };
        (std::mem::replace(&mut self.said, lacks) != lacks).then(|| lacks.in_words())
    }
}

impl Lacks {
    fn in_words(self) -> Vec<String> {
        let keys = self.keys_apart.map(|seconds| {
            format!(
                "a key frame every {seconds} s; most services ask for one every 2 s: set the encoder's key-frame interval, or have it \
                 re-encoded by a rule"
            )
        });
        let rate = self.sample_rate.map(|rate| {
            format!("audio of {rate} Hz; most services ask for 44100 or 48000 Hz: set it in the encoder, or have it re-encoded by a rule")
        });
        let none =
            |what| format!("no {what}, which many services ask for; /v1/pairs says whether the source has none or why it is left out");
        let missing = [self.video.then(|| none("video")), self.audio.then(|| none("audio"))];
        [keys, rate].into_iter().chain(missing).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use patchbay_media::{AudioShape, Codec, VideoShape};

    use super::*;

    /// Looks at ten pictures a second with a key frame where `is_key` says so.
    fn watch(advice: &mut Advice, tenths: std::ops::Range<i64>, is_key: impl Fn(i64) -> bool) {
        for tenth in tenths {
            let time = MediaTime::from_millis(tenth * 100);
            let (duration, payload) = (MediaTime::ZERO, Bytes::new());
            advice.frame(&Frame { pts: time, dts: time, duration, key: is_key(tenth), loss: 0, arrival: time, payload });
        }
    }

    fn news(advice: &mut Advice, rate: u32) -> Option<String> {
        let video = TrackInfo::video(Codec::H264, Bytes::new(), VideoShape::default());
        let audio = TrackInfo::audio(Codec::Aac, Bytes::new(), AudioShape { sample_rate: rate, channels: 2 });
        advice.news(Some(&video), Some(&audio)).map(|all| all.join("\n"))
    }

    #[test]
    fn rare_key_frames_are_named_once_until_they_come_often() {
        let mut advice = Advice::default();
        watch(&mut advice, 0..100, |tenth| tenth % 20 == 0);
        assert_eq!(news(&mut advice, 48_000), None);
        watch(&mut advice, 100..200, |tenth| tenth % 80 == 0);
        let said = news(&mut advice, 48_000).expect("news");
        assert!(said.starts_with("a key frame every 8 s; most services ask for one every 2 s: "), "{said}");
        // What varies is not said again and again.
        watch(&mut advice, 200..400, |tenth| tenth % 40 == 0);
        assert_eq!(news(&mut advice, 48_000), None);
        watch(&mut advice, 400..600, |tenth| tenth % 20 == 0);
        assert_eq!(news(&mut advice, 48_000).as_deref(), Some(""));
    }

    #[test]
    fn a_group_that_never_ends_is_noticed_and_a_gap_is_none() {
        let mut advice = Advice::default();
        watch(&mut advice, 0..90, |tenth| tenth == 0);
        advice.cut();
        watch(&mut advice, 90..180, |tenth| tenth == 90);
        assert_eq!(news(&mut advice, 44_100), None);
        watch(&mut advice, 180..900, |_| false);
        assert!(news(&mut advice, 44_100).is_some_and(|said| said.contains("every 80 s")));
    }

    #[test]
    fn unusual_rates_and_missing_tracks_are_named() {
        let mut advice = Advice::default();
        assert_eq!(news(&mut advice, 0), None, "a rate that is not known");
        assert!(news(&mut advice, 22_050).is_some_and(|said| said.contains("22050 Hz")));
        let video = TrackInfo::video(Codec::H264, Bytes::new(), VideoShape::default());
        let said = advice.news(Some(&video), None).expect("news").join("\n");
        assert!(said.starts_with("no audio") && !said.contains("Hz"), "{said}");
    }
}

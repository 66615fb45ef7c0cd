//! What is known of a track: codec, parameter sets and the traits that plans depend on.

use std::fmt;

use bytes::Bytes;

use crate::{Codec, Kind};

/// The three bytes that name an H.264 profile and level (`profile-level-id`, RFC 6184 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct H264Profile {
    /// `profile_idc`: 66 Baseline, 77 Main, 100 High…
    pub idc: u8,
    /// `constraint_set0..5_flag`, set 0 in the top bit.
    pub constraints: u8,
    /// `level_idc`: ten times the level.
    pub level: u8,
}

impl H264Profile {
    /// Name as users know it, for reasons and pages.
    pub const fn name(self) -> &'static str {
        match self.idc {
            66 if self.constraints & 0x40 != 0 => "Constrained Baseline",
            66 => "Baseline",
            77 => "Main",
            88 => "Extended",
            100 => "High",
            110 => "High 10",
            122 => "High 4:2:2",
            244 => "High 4:4:4",
            _ => "unknown profile",
        }
    }
}

impl fmt::Display for H264Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}", self.name(), self.level / 10, self.level % 10)
    }
}

/// Traits of a video track.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct VideoShape {
    /// Luma samples per row; 0 while unknown.
    pub width: u32,
    /// Luma rows; 0 while unknown.
    pub height: u32,
    /// Frames per second, when the source says so.
    pub frame_rate: Option<f64>,
    /// How many frames may be out of display order; 0 means no B-frames.
    pub reorder_frames: u8,
    /// H.264 only.
    pub profile: Option<H264Profile>,
}

/// Traits of an audio track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AudioShape {
    /// Samples per second and channel.
    pub sample_rate: u32,
    /// Channels.
    pub channels: u8,
}

/// Traits by kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Of a video track.
    Video(VideoShape),
    /// Of an audio track.
    Audio(AudioShape),
}

/// Everything a subscriber needs to know before the first frame of a track.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackInfo {
    /// The codec; fixes the layout of payload and config.
    pub codec: Codec,
    /// Parameter sets in the layout of the crate's table; may be empty.
    pub config: Bytes,
    /// The traits plans depend on.
    pub shape: Shape,
}

impl TrackInfo {
    /// Describes a video track.
    pub fn video(codec: Codec, config: Bytes, shape: VideoShape) -> Self {
        Self { codec, config, shape: Shape::Video(shape) }
    }

    /// Describes an audio track.
    pub fn audio(codec: Codec, config: Bytes, shape: AudioShape) -> Self {
        Self { codec, config, shape: Shape::Audio(shape) }
    }

    /// Video or audio.
    pub fn kind(&self) -> Kind {
        self.codec.kind()
    }

    /// The video traits, if this is a video track.
    pub fn video_shape(&self) -> Option<&VideoShape> {
        match &self.shape {
            Shape::Video(v) => Some(v),
            Shape::Audio(_) => None,
        }
    }

    /// The audio traits, if this is an audio track.
    pub fn audio_shape(&self) -> Option<&AudioShape> {
        match &self.shape {
            Shape::Audio(a) => Some(a),
            Shape::Video(_) => None,
        }
    }

    /// Whether a plan made for `self` still holds for `other`: same codec and traits, parameter sets aside.
    pub fn same_plan(&self, other: &Self) -> bool {
        self.codec == other.codec && self.shape == other.shape
    }
}

impl fmt::Display for TrackInfo {
    /// One line for people: `h264 High 3.1 1280x720 B-frames 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.codec)?;
        match &self.shape {
            Shape::Video(v) => {
                if let Some(p) = v.profile {
                    write!(f, " {p}")?;
                }
                if v.width > 0 {
                    write!(f, " {}x{}", v.width, v.height)?;
                }
                if let Some(rate) = v.frame_rate {
                    write!(f, " {rate:.0} fps")?;
                }
                if v.reorder_frames > 0 {
                    write!(f, " B-frames (reorders {})", v.reorder_frames)?;
                }
                Ok(())
            }
            Shape::Audio(a) => write!(f, " {} Hz {} ch", a.sample_rate, a.channels),
        }
    }
}

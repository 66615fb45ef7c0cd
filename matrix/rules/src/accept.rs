//! [`Sink`]: what one sink takes, stated per call, and why it refuses the rest.

use std::fmt;

use patchbay_media::{Codec, Kind, Target, TrackInfo};

use crate::{Action, EndpointKind, Plan, Source};

/// A video format a sink takes. `None` in a limit means "any".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoAccept {
    /// The codec.
    pub codec: Codec,
    /// How many frames it can put back into display order; 0 means it takes no B-frames.
    pub reorder_frames_max: Option<u8>,
    /// H.264 `profile_idc`s it decodes. Re-encoded H.264 is constrained baseline, which decoders of 66, 77 and 100 all take.
    pub h264_profiles: Option<Vec<u8>>,
    /// Longest longer and shorter side in pixels (so that portrait is judged like landscape).
    pub side_max: Option<(u32, u32)>,
    /// It shows pictures of odd sides askew.
    pub even_sides: bool,
    /// The only width and height it takes.
    pub size: Option<(u32, u32)>,
}

/// An audio format a sink takes. `None` in a limit means "any".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioAccept {
    /// The codec.
    pub codec: Codec,
    /// Sample rates it plays.
    pub sample_rates: Option<Vec<u32>>,
    /// Most channels it plays.
    pub channels_max: Option<u8>,
}

/// Why a sink refuses a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refuses {
    /// It does not take the codec.
    Codec(Codec),
    /// It cannot reorder as many frames.
    BFrames {
        /// The source's reorder depth.
        depth: u8,
    },
    /// It does not decode the H.264 profile.
    Profile {
        /// `profile_idc`.
        idc: u8,
        /// Name of the profile.
        name: &'static str,
    },
    /// The picture is too large.
    Size {
        /// Of the source.
        width: u32,
        /// Of the source.
        height: u32,
    },
    /// It cannot show an odd size.
    OddSize {
        /// Of the source.
        width: u32,
        /// Of the source.
        height: u32,
    },
    /// It began with another size, and takes no other.
    SizeChange {
        /// Of the source.
        width: u32,
        /// Of the source.
        height: u32,
    },
    /// It does not play the sample rate.
    SampleRate(u32),
    /// It plays fewer channels.
    Channels(u8),
}

impl fmt::Display for Refuses {
    /// A clause that the name of the sink follows: `the source has B-frames (reorder depth 2), which cannot be put in order by`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(codec) => write!(f, "{codec} is not taken by"),
            Self::BFrames { depth } => write!(f, "the source has B-frames (reorder depth {depth}), which cannot be reordered by"),
            Self::Profile { name, idc } => write!(f, "H.264 {name} (profile {idc}) is not decoded by"),
            Self::Size { width, height } => write!(f, "{width}x{height} is too large for"),
            Self::OddSize { width, height } => write!(f, "the odd size {width}x{height} is not shown right by"),
            Self::SizeChange { width, height } => write!(f, "a change of size to {width}x{height} is not followed by"),
            Self::SampleRate(rate) => write!(f, "{rate} Hz is not played by"),
            Self::Channels(n) => write!(f, "{n} channels are too many for"),
        }
    }
}

impl VideoAccept {
    /// Takes every variant of `codec`.
    pub const fn any(codec: Codec) -> Self {
        Self { codec, reorder_frames_max: None, h264_profiles: None, side_max: None, even_sides: false, size: None }
    }

    /// H.264 as real-time decoders take it: no B-frames; Baseline, Main and High.
    pub fn h264_realtime() -> Self {
        Self { reorder_frames_max: Some(0), h264_profiles: Some(vec![66, 77, 100]), ..Self::any(Codec::H264) }
    }

    /// Why this format does not cover `track`; `None` if it does. What the source has not said yet is not held against it.
    pub fn refuses(&self, track: &TrackInfo) -> Option<Refuses> {
        if track.codec != self.codec {
            return Some(Refuses::Codec(track.codec));
        }
        let shape = track.video_shape()?;
        if let (Some(list), Some(profile)) = (&self.h264_profiles, shape.profile)
            && self.codec == Codec::H264
            && !list.contains(&profile.idc)
        {
            return Some(Refuses::Profile { idc: profile.idc, name: profile.name() });
        }
        if self.reorder_frames_max.is_some_and(|max| shape.reorder_frames > max) {
            return Some(Refuses::BFrames { depth: shape.reorder_frames });
        }
        let (long, short) = (shape.width.max(shape.height), shape.width.min(shape.height));
        if self.side_max.is_some_and(|(l, s)| long > l.max(s) || short > l.min(s)) {
            return Some(Refuses::Size { width: shape.width, height: shape.height });
        }
        let (width, height) = (shape.width, shape.height);
        if self.even_sides && (width % 2 != 0 || height % 2 != 0) {
            return Some(Refuses::OddSize { width, height });
        }
        self.size.filter(|size| width != 0 && *size != (width, height)).map(|_| Refuses::SizeChange { width, height })
    }
}

impl AudioAccept {
    /// Takes every variant of `codec`.
    pub const fn any(codec: Codec) -> Self {
        Self { codec, sample_rates: None, channels_max: None }
    }

    fn of(codec: Codec, rates: &[u32], channels: u8) -> Self {
        Self { codec, sample_rates: Some(rates.to_vec()), channels_max: Some(channels) }
    }

    /// Why this format does not cover `track`; `None` if it does. What the source has not said yet is not held against it.
    pub fn refuses(&self, track: &TrackInfo) -> Option<Refuses> {
        if track.codec != self.codec {
            return Some(Refuses::Codec(track.codec));
        }
        let shape = track.audio_shape()?;
        if let Some(rates) = &self.sample_rates
            && shape.sample_rate != 0
            && !rates.contains(&shape.sample_rate)
        {
            return Some(Refuses::SampleRate(shape.sample_rate));
        }
        self.channels_max.is_some_and(|max| shape.channels > max).then_some(Refuses::Channels(shape.channels))
    }
}

/// What one sink takes, in order of preference. An empty list means that it takes none of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// What the sink is, for the rules.
    pub kind: EndpointKind,
    /// Video formats.
    pub video: Vec<VideoAccept>,
    /// Audio formats.
    pub audio: Vec<AudioAccept>,
    /// It reads size and sample rate once, and shows noise when they change. See [`Self::settle`].
    pub is_rigid: bool,
    /// Nothing is transcoded for it; its token says so.
    pub passes_only: bool,
}

impl Sink {
    /// Takes these codecs too, after its own, with pictures no larger and no more out of order.
    pub fn take_also(&mut self, codecs: impl IntoIterator<Item = Codec>) {
        for codec in codecs {
            match (codec.kind(), self.video.first(), self.audio.first()) {
                (Kind::Video, Some(first), _) if self.video.iter().all(|a| a.codec != codec) => {
                    self.video.push(VideoAccept { codec, h264_profiles: None, ..first.clone() });
                }
                (Kind::Audio, _, Some(_)) if self.audio.iter().all(|a| a.codec != codec) => {
                    self.audio.push(AudioAccept { channels_max: Some(2), ..AudioAccept::any(codec) });
                }
                _ => {}
            }
        }
    }

    /// Takes no picture whose shorter side has more than `lines`.
    pub fn limit_height(&mut self, lines: u32) {
        for accept in &mut self.video {
            let (a, b) = accept.side_max.unwrap_or((u32::MAX, u32::MAX));
            accept.side_max = Some((a.max(b), a.min(b).min(lines)));
        }
    }

    /// Whether it is rigid and has begun: what it gets may no longer change in size.
    pub fn is_settled(&self) -> bool {
        self.is_rigid && self.video.iter().any(|accept| accept.size.is_some())
    }

    /// A rigid sink is to get for as long as it is connected what this plan sends it.
    pub fn settle(&mut self, plan: &Plan, source: &Source<'_>) {
        if !self.is_rigid {
            return;
        }
        let video = match plan.video.action {
            Action::Transcode(Target::Video(target)) => target.size,
            Action::Pass => source.video.and_then(TrackInfo::video_shape).map(|shape| (shape.width, shape.height)),
            _ => None,
        };
        let audio = match plan.audio.action {
            Action::Transcode(Target::Audio(target)) => Some(target.sample_rate),
            Action::Pass => source.audio.and_then(TrackInfo::audio_shape).map(|shape| shape.sample_rate),
            _ => None,
        };
        if let Some(size) = video.filter(|(width, _)| *width != 0) {
            self.video.iter_mut().for_each(|accept| accept.size = Some(size));
        }
        if let Some(rate) = audio.filter(|rate| *rate != 0) {
            self.audio.iter_mut().for_each(|accept| accept.sample_rates = Some(vec![rate]));
        }
    }

    /// Why the sink refuses `track`; `None` if one of its formats covers it. The reason is that of the format which comes
    /// nearest: one of the same codec before "codec".
    pub fn refuses(&self, track: &TrackInfo) -> Option<Refuses> {
        match track.kind() {
            Kind::Video => nearest(self.video.iter().map(|a| a.refuses(track)), track.codec),
            Kind::Audio => nearest(self.audio.iter().map(|a| a.refuses(track)), track.codec),
        }
    }
}

fn nearest(answers: impl Iterator<Item = Option<Refuses>>, codec: Codec) -> Option<Refuses> {
    let mut reason = Refuses::Codec(codec);
    for answer in answers {
        let refusal = answer?;
        if matches!(reason, Refuses::Codec(_)) {
            reason = refusal;
        }
    }
    Some(reason)
}

/// Sample rates of AAC up to what players are known to take.
const AAC_RATES: [u32; 10] = [7_350, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// Sample rates of MPEG-1 audio.
pub(crate) const MPEG1_RATES: [u32; 3] = [32_000, 44_100, 48_000];

impl EndpointKind {
    /// What a sink of this kind usually takes; a gateway that knows more of its peer (an SDP offer, a player's name)
    /// states that instead.
    pub fn default_sink(self) -> Sink {
        let aac = || AudioAccept::of(Codec::Aac, &AAC_RATES, 2);
        let opus = || AudioAccept::of(Codec::Opus, &[48_000], 2);
        let (video, audio) = match self {
            // Chromium decodes High although it never offers it.
            Self::Webrtc | Self::Mix => (vec![VideoAccept::h264_realtime()], vec![opus()]),
            // jsmpeg leaves B-pictures out, and takes two columns and rows at a time.
            Self::H5 => (
                vec![VideoAccept { reorder_frames_max: Some(0), even_sides: true, ..VideoAccept::any(Codec::Mpeg1) }],
                vec![AudioAccept::of(Codec::Mp2, &MPEG1_RATES, 2)],
            ),
            Self::Miniprogram => (vec![VideoAccept::h264_realtime()], vec![aac()]),
            Self::Rtmp | Self::Cdn => (
                vec![VideoAccept { reorder_frames_max: Some(16), ..VideoAccept::any(Codec::H264) }],
                vec![aac(), AudioAccept::of(Codec::Mp3, &MPEG1_RATES, 2)],
            ),
            Self::Udp => (all(Kind::Video, VideoAccept::any), all(Kind::Audio, AudioAccept::any)),
            Self::Sip => (
                vec![VideoAccept::h264_realtime()],
                vec![
                    opus(),
                    AudioAccept::of(Codec::G722, &[16_000], 1),
                    AudioAccept::of(Codec::Pcma, &[8_000], 1),
                    AudioAccept::of(Codec::Pcmu, &[8_000], 1),
                ],
            ),
            Self::File => (
                [Codec::H264, Codec::H265, Codec::Av1, Codec::Vp9, Codec::Mpeg1, Codec::Mpeg2].map(VideoAccept::any).into(),
                [Codec::Aac, Codec::Opus, Codec::Mp2, Codec::Mp3].map(AudioAccept::any).into(),
            ),
        };
        // jsmpeg's WebAssembly decoders ask for size and rate once.
        Sink { kind: self, video, audio, is_rigid: self == Self::H5, passes_only: false }
    }
}

/// Every codec of a kind, the ones we can encode best first.
fn all<T>(kind: Kind, make: impl Fn(Codec) -> T) -> Vec<T> {
    let mut codecs: Vec<Codec> = Codec::ALL.into_iter().filter(|c| c.kind() == kind).collect();
    codecs.sort_by_key(|c| !matches!(c, Codec::H264 | Codec::Opus));
    codecs.into_iter().map(make).collect()
}

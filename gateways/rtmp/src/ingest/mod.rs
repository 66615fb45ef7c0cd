//! [`Ingest`]: a publisher's FLV tags become tracks and frames on the bus.
//!
//! Owns the tracks of one publication and its clock. Refuses: sockets, and to end the session for a tag it cannot
//! read; such a tag is counted as lost, and the first of a kind named in the log.

mod audio;
mod video;

use std::mem::discriminant;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use patchbay_bus::{EndReason, TrackWriter};
use patchbay_contract::{Cause, Publication};
use patchbay_media::timeline::{self, Timeline, Wire};
use patchbay_media::{Codec, MediaTime};

use crate::flv::mux::Metadata;
use crate::flv::tag::{AudioTag, TagError, VideoTag};
use crate::proto::message::Data;

use audio::AudioIngest;
use video::VideoIngest;

/// Why a tag did not become a frame.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// The tag itself.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// H.264 or H.265 that cannot be read.
    #[error(transparent)]
    Nal(#[from] patchbay_media::nal::NalError),
    /// AV1 that cannot be read.
    #[error(transparent)]
    Av1(#[from] patchbay_media::av1::Av1Error),
    /// A picture whose header makes no sense, or is too large.
    #[error("{0} picture cannot be read")]
    Picture(Codec),
    /// An AAC configuration that cannot be read.
    #[error(transparent)]
    Aac(#[from] patchbay_media::aac::AscError),
    /// A description of FLAC that cannot be read.
    #[error(transparent)]
    Flac(#[from] patchbay_media::flac::FlacError),
    /// A frame before the header that describes it.
    #[error("a frame came before its sequence header")]
    NoHeader,
    /// A codec that has no place on the bus.
    #[error("{0} is not carried")]
    Codec(&'static str),
    /// No MPEG audio header where one must be.
    #[error("MP3 frame without a header")]
    Mp3,
}

impl Unusable {
    /// Whether the other is of the same kind, so that the log needs only one of them.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nal(a), Self::Nal(b)) => discriminant(a) == discriminant(b),
            (Self::Av1(a), Self::Av1(b)) => discriminant(a) == discriminant(b),
            (Self::Tag(a), Self::Tag(b)) => discriminant(a) == discriminant(b),
            _ => discriminant(self) == discriminant(other),
        }
    }
}

/// Where a frame stands in time.
#[derive(Clone, Copy)]
struct Stamp {
    dts: MediaTime,
    arrival: MediaTime,
}

/// One published stream on its way to the bus.
pub(crate) struct Ingest {
    publication: Publication,
    timeline: Timeline,
    video_clock: timeline::Track,
    audio_clock: timeline::Track,
    video: VideoIngest,
    audio: AudioIngest,
    /// Named in the log so far: one of a kind.
    told: Vec<Unusable>,
}

impl Ingest {
    pub(crate) fn new(publication: Publication) -> Self {
        let mut timeline = Timeline::new();
        // Audio and video of RTMP count with one clock.
        let domain = timeline.domain(Wire::RTMP);
        let (video_clock, audio_clock) = (timeline.track(domain), timeline.track(domain));
        Self {
            publication,
            timeline,
            video_clock,
            audio_clock,
            video: VideoIngest::default(),
            audio: AudioIngest::default(),
            told: Vec::new(),
        }
    }

    /// Takes an FLV video tag body.
    pub(crate) fn video(&mut self, timestamp: u32, body: Bytes, arrival: MediaTime) {
        self.publication.counters().frame(body.len(), 0);
        let dts = self.timeline.stamp(self.video_clock, timestamp.into(), arrival).time;
        let publisher = self.publication.publisher();
        let taken = VideoTag::parse(body).map_err(Unusable::from).and_then(|tag| match tag {
            Some(tag) => self.video.take(tag, Stamp { dts, arrival }, publisher),
            None => Ok(()),
        });
        if let Err(error) = taken
            && self.refuse("video", error)
        {
            self.video.lost();
        }
    }

    /// Takes an FLV audio tag body.
    pub(crate) fn audio(&mut self, timestamp: u32, body: Bytes, arrival: MediaTime) {
        self.publication.counters().frame(body.len(), 0);
        let dts = self.timeline.stamp(self.audio_clock, timestamp.into(), arrival).time;
        let publisher = self.publication.publisher();
        let taken = AudioTag::parse(body).map_err(Unusable::from).and_then(|tag| match tag {
            Some(tag) => self.audio.take(tag, Stamp { dts, arrival }, publisher),
            None => Ok(()),
        });
        if let Err(error) = taken
            && self.refuse("audio", error)
        {
            self.audio.lost();
        }
    }

    /// Takes a data message; only `onMetaData` says anything.
    pub(crate) fn data(&mut self, data: &Data) {
        if data.name == "onMetaData"
            && let Some(value) = data.values.first()
        {
            self.video.declare_frame_rate(Metadata::from_value(value).frame_rate);
        }
    }

    /// Ends the tracks, the stream and the session.
    pub(crate) fn end(self, reason: EndReason, cause: Cause) {
        let writers = [self.video.into_writer(), self.audio.into_writer()];
        writers.into_iter().flatten().for_each(|w: TrackWriter| w.end(reason));
        self.publication.end(reason, cause);
    }

    /// Names a tag that is left out, once of a kind; whether the track misses it.
    fn refuse(&mut self, track: &str, error: Unusable) -> bool {
        let is_missed = !matches!(error, Unusable::Tag(TagError::OtherTrack(_)));
        self.publication.counters().lost.fetch_add(u64::from(is_missed), Ordering::Relaxed);
        if !self.told.iter().any(|told| told.is_like(&error)) {
            tracing::warn!(session = self.publication.id(), stream = %self.publication.stream(), track, %error, "tags are left out");
            self.told.push(error);
        }
        is_missed
    }
}

#[cfg(test)]
mod tests;

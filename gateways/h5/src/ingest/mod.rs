//! [`Ingest`]: a publisher's transport stream becomes tracks and frames on the bus.
//!
//! Owns the tracks of one publication and its clock. Refuses: sockets, and to end the session for damage; what cannot be used
//! is counted as lost, and the first of a kind named in the log.

mod audio;
pub(crate) mod mpeg_video;
pub(crate) mod sound;
mod video;

use std::mem::discriminant;
use std::sync::atomic::Ordering;

use patchbay_bus::{EndReason, TrackWriter};
use patchbay_contract::{Cause, Publication};
use patchbay_media::nal::NalError;
use patchbay_media::timeline::{self, Timeline, Wire};
use patchbay_media::{Kind, MediaTime};

use crate::ts::{CLOCK_HZ, Demuxer, PACKET, Pes, STAMP_MASK};
use audio::AudioIngest;
use video::VideoIngest;

/// Bytes after which something that is no transport stream, or holds nothing that is understood, is given up.
const PROBE_MAX: u64 = 1 << 20;
/// Pictures are not shown later after decoding than this; more is nonsense.
const COMPOSITION_MAX: i64 = 5 * CLOCK_HZ as i64;

/// Why bytes did not become frames.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Nothing in the stream says when it is.
    #[error("a PES packet of video has no time stamp")]
    NoStamp,
    /// No picture begins in the packet.
    #[error("a PES packet of video holds no whole picture")]
    NoPicture,
    /// A picture before the first key picture with its header.
    #[error("a picture came before the first key picture")]
    NoHeader,
    /// More than a decoder is given.
    #[error("a sequence header says {width}x{height}")]
    Size {
        /// Luma samples per row.
        width: u32,
        /// Luma rows.
        height: u32,
    },
    /// H.264 that cannot be read.
    #[error(transparent)]
    H264(NalError),
    /// Bytes between frames of sound.
    #[error("sound with bytes that belong to no frame")]
    Sound,
}

impl Unusable {
    /// Whether the other is of the same kind, so that the log needs only one of them.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::H264(a), Self::H264(b)) => discriminant(a) == discriminant(b),
            _ => discriminant(self) == discriminant(other),
        }
    }
}

/// The input is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no transport stream with video (MPEG-1, MPEG-2, H.264) or sound (MP2, MP3, AAC) in the first {PROBE_MAX} bytes")]
pub(crate) struct NotTs;

/// Where a picture stands in time.
#[derive(Clone, Copy)]
struct Stamp {
    pts: MediaTime,
    dts: MediaTime,
    arrival: MediaTime,
}

/// One published stream on its way to the bus.
pub(crate) struct Ingest {
    publication: Publication,
    demuxer: Demuxer,
    timeline: Timeline,
    video_clock: timeline::Track,
    audio_clock: timeline::Track,
    video: VideoIngest,
    audio: AudioIngest,
    packets: Vec<Pes>,
    bytes: u64,
    damage: u64,
    /// Named in the log so far: one of a kind.
    told: Vec<Unusable>,
}

impl Ingest {
    pub(crate) fn new(publication: Publication) -> Self {
        let mut timeline = Timeline::new();
        // One program, one clock.
        let domain = timeline.domain(Wire::TS);
        let (video_clock, audio_clock) = (timeline.track(domain), timeline.track(domain));
        Self {
            publication,
            demuxer: Demuxer::new(),
            timeline,
            video_clock,
            audio_clock,
            video: VideoIngest::default(),
            audio: AudioIngest::default(),
            packets: Vec::new(),
            bytes: 0,
            damage: 0,
            told: Vec::new(),
        }
    }

    /// Takes bytes, cut anywhere.
    ///
    /// # Errors
    /// When so much has come without anything to be understood that nothing will.
    pub(crate) fn push(&mut self, data: &[u8], arrival: MediaTime) -> Result<(), NotTs> {
        self.bytes += data.len() as u64;
        // In pieces, so that what one read can ask for is bounded.
        for piece in data.chunks(PACKET * 64) {
            self.demuxer.push(piece, &mut self.packets);
            self.take_packets(arrival);
        }
        if self.bytes > PROBE_MAX && !self.demuxer.has_streams() {
            return Err(NotTs);
        }
        Ok(())
    }

    /// Ends the tracks, the stream and the session.
    pub(crate) fn end(mut self, reason: EndReason, cause: Cause) {
        if reason == EndReason::Finished {
            self.demuxer.finish(&mut self.packets);
            self.take_packets(patchbay_bus::now());
        }
        let writers = [self.video.into_writer(), self.audio.into_writer()];
        writers.into_iter().flatten().for_each(|w: TrackWriter| w.end(reason));
        self.publication.end(reason, cause);
    }

    fn take_packets(&mut self, arrival: MediaTime) {
        let mut packets = std::mem::take(&mut self.packets);
        for pes in packets.drain(..) {
            self.publication.counters().frame(pes.data.len(), 0);
            let taken = match pes.stream_type.kind() {
                Kind::Video => self.video(&pes, arrival),
                Kind::Audio => self.sound(&pes, arrival),
            };
            if let Err(error) = taken {
                self.refuse(error);
            }
        }
        self.packets = packets;
        let damage = self.demuxer.damage();
        self.publication.counters().lost.fetch_add(damage - self.damage, Ordering::Relaxed);
        self.damage = damage;
    }

    fn video(&mut self, pes: &Pes, arrival: MediaTime) -> Result<(), Unusable> {
        self.video.lost(pes.lost);
        let taken = self.picture(pes, arrival);
        if taken.is_err() {
            self.video.lost(1);
        }
        taken
    }

    fn picture(&mut self, pes: &Pes, arrival: MediaTime) -> Result<(), Unusable> {
        let pts = pes.pts.ok_or(Unusable::NoStamp)?;
        let decode = pes.dts.unwrap_or(pts);
        let dts = self.timeline.stamp(self.video_clock, decode, arrival).time;
        // 33 bits of difference, as a signed number.
        let ahead = (pts.wrapping_sub(decode) & STAMP_MASK) as i64;
        let ahead = if ahead > 1 << 32 { ahead - (1 << 33) } else { ahead };
        let pts = dts + MediaTime::from_ticks(ahead.clamp(-COMPOSITION_MAX, COMPOSITION_MAX), CLOCK_HZ);
        let at = Stamp { pts, dts, arrival };
        self.video.take(pes.stream_type, &pes.data, at, self.publication.publisher())
    }

    fn sound(&mut self, pes: &Pes, arrival: MediaTime) -> Result<(), Unusable> {
        let clock = (&mut self.timeline, self.audio_clock);
        match self.audio.take(pes, arrival, clock, self.publication.publisher()) {
            0 => Ok(()),
            _ => Err(Unusable::Sound),
        }
    }

    fn refuse(&mut self, error: Unusable) {
        self.publication.counters().lost.fetch_add(1, Ordering::Relaxed);
        if !self.told.iter().any(|told| told.is_like(&error)) {
            tracing::warn!(session = self.publication.id(), stream = %self.publication.stream(), %error, "input is left out");
            self.told.push(error);
        }
    }
}

#[cfg(test)]
mod tests;

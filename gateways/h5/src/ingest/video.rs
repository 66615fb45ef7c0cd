//! [`VideoIngest`]: PES packets of video become pictures on the bus.
//!
//! A PES packet holds whole pictures, as every encoder on the way to a network sends them; what begins in one packet and ends
//! in the next is left out.

use bytes::Bytes;
use patchbay_bus::{Publisher, TrackWriter};
use patchbay_media::h264::{AccessUnit, NalError, ParameterSets, SIDE_MAX};
use patchbay_media::{Frame, MediaTime, Reorder, Shape, TrackInfo};

use super::mpeg_video::{self, Coding, Picture, Sequence};
use super::{Stamp, Unusable};
use crate::ts::StreamType;

/// Longest sequence header that is kept: two matrices and some user data.
const SEQUENCE_MAX: usize = 4 << 10;

/// The video track, from its first key frame on.
#[derive(Default)]
pub(super) struct VideoIngest {
    writer: Option<TrackWriter>,
    /// Said by headers and seen in frames so far.
    info: Option<TrackInfo>,
    /// `info` is newer than what the track knows; told with the next key frame.
    changed: bool,
    sets: ParameterSets,
    /// Why the newest parameter sets cannot be used; then neither can the pictures after them.
    refused: Option<NalError>,
    /// The last sequence header, for intra pictures that come without.
    sequence: Bytes,
    reorder: Reorder,
    lost: u32,
}

impl VideoIngest {
    /// Takes the payload of one PES packet.
    pub(super) fn take(&mut self, kind: StreamType, data: &Bytes, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        match kind {
            StreamType::H264 => self.access_unit(data, at, publisher),
            _ => self.mpeg(data, at, publisher),
        }
    }

    /// Notes frames that are missing.
    pub(super) fn lost(&mut self, frames: u32) {
        self.lost = self.lost.saturating_add(frames);
    }

    pub(super) fn into_writer(self) -> Option<TrackWriter> {
        self.writer
    }

    fn access_unit(&mut self, data: &Bytes, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        let unit = AccessUnit::from_annex_b(data, &mut self.sets);
        if unit.new_sets && !self.sets.pps.is_empty() {
            self.refused = self.sets.track_info().map(|info| self.describe(info)).err();
        }
        if let Some(error) = &self.refused {
            return Err(error.clone().into());
        }
        if unit.payload.is_empty() {
            return Ok(());
        }
        self.push(unit.payload, unit.key, at, publisher)
    }

    fn mpeg(&mut self, data: &Bytes, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        let pictures = mpeg_video::pictures(data);
        if pictures.is_empty() {
            return Err(Unusable::NoPicture);
        }
        for (i, picture) in pictures.into_iter().enumerate() {
            let later = self.frame_time(i);
            self.picture(data, picture, Stamp { pts: at.pts + later, dts: at.dts + later, ..at }, publisher)?;
        }
        Ok(())
    }

    /// Duration of `frames` frames.
    fn frame_time(&self, frames: usize) -> MediaTime {
        let rate = self.info.as_ref().and_then(TrackInfo::video_shape).and_then(|s| s.frame_rate).unwrap_or(25.0);
        MediaTime::from_nanos((frames as f64 * 1e9 / rate) as i64)
    }

    fn picture(&mut self, data: &Bytes, picture: Picture, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        let mut payload = data.slice(picture.range);
        let key = picture.coding == Coding::Intra;
        match picture.sequence {
            Some(sequence) => self.sequence(data, sequence)?,
            None if key => payload = [&self.sequence[..], &payload].concat().into(),
            None => {}
        }
        if picture.coding == Coding::Other {
            self.learn_depth(1);
        }
        self.push(payload, key, at, publisher)
    }

    fn sequence(&mut self, data: &Bytes, sequence: Sequence) -> Result<(), Unusable> {
        let shape = sequence.shape;
        let (width, height) = (shape.width, shape.height);
        if !(1..=SIDE_MAX).contains(&width) || !(1..=SIDE_MAX).contains(&height) {
            return Err(Unusable::Size { width, height });
        }
        let header = &data[sequence.range];
        if header.len() <= SEQUENCE_MAX && self.sequence != header {
            // Copied: the picture after it must not be held for as long.
            self.sequence = Bytes::copy_from_slice(header);
        }
        self.describe(TrackInfo::video(sequence.codec, Bytes::new(), shape));
        Ok(())
    }

    /// Takes over a description, with the depth that was seen.
    fn describe(&mut self, mut info: TrackInfo) {
        // Another size or other parameter sets begin another sequence: what was seen of the one before says nothing about it.
        let size = |info: &TrackInfo| info.video_shape().map(|shape| (shape.width, shape.height));
        let is_same = |known: &&TrackInfo| (known.codec, &known.config, size(known)) == (info.codec, &info.config, size(&info));
        let before = self.info.as_ref().filter(is_same).and_then(TrackInfo::video_shape);
        let seen = before.map_or(0, |shape| shape.reorder_frames);
        if let Shape::Video(shape) = &mut info.shape {
            shape.reorder_frames = shape.reorder_frames.max(seen);
        }
        self.changed |= self.info.as_ref() != Some(&info);
        self.info = Some(info);
    }

    fn learn_depth(&mut self, depth: u8) {
        if let Some(TrackInfo { shape: Shape::Video(shape), .. }) = &mut self.info
            && depth > shape.reorder_frames
        {
            shape.reorder_frames = depth;
            self.changed = true;
        }
    }

    fn push(&mut self, payload: Bytes, key: bool, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        let depth = self.reorder.observe(at.pts, key);
        self.learn_depth(depth);
        let Some(info) = self.info.as_ref().filter(|_| key || self.writer.is_some()) else { return Err(Unusable::NoHeader) };
        let writer = self.writer.get_or_insert_with(|| publisher.add_track(info.clone()));
        if key && std::mem::take(&mut self.changed) {
            writer.set_info(info.clone());
        }
        let loss = std::mem::take(&mut self.lost);
        writer.push(Frame { pts: at.pts, dts: at.dts, duration: MediaTime::ZERO, key, loss, arrival: at.arrival, payload });
        Ok(())
    }
}

impl From<NalError> for Unusable {
    fn from(error: NalError) -> Self {
        Self::H264(error)
    }
}

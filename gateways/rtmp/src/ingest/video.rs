//! [`VideoIngest`]: video tags of one publication.

use bytes::Bytes;
use patchbay_bus::{Publisher, TrackWriter};
use patchbay_media::av1::{Sequence, TemporalUnit};
use patchbay_media::nal::{AccessUnit, NalError, Sets};
use patchbay_media::{Codec, Frame, MediaTime, Reorder, Shape, TrackInfo, h264, hevc, vpx};

use super::{Stamp, Unusable};
use crate::flv::tag::{VideoCodec, VideoPacket, VideoTag};

/// Composition times beyond this are nonsense; 5 s is more than any encoder delays a picture.
const COMPOSITION_MAX_MS: i32 = 5_000;
/// Longest decoder configuration that is kept, bytes.
const CONFIG_MAX: usize = 64 << 10;

/// What is known of the NAL units in the tags.
struct Units {
    sets: Box<dyn Sets + Send>,
    /// Bytes of a NAL unit's length: 1 to 4.
    prefix: usize,
    /// Why the newest sets in the stream cannot be used; then neither can the pictures after them.
    refused: Option<NalError>,
}

impl Units {
    /// As a decoder configuration says; also what that describes.
    fn new((sets, prefix): (impl Sets + Send + 'static, usize)) -> (Self, Result<TrackInfo, NalError>) {
        let info = sets.track_info();
        (Self { sets: Box::new(sets), prefix, refused: info.as_ref().err().cloned() }, info)
    }

    /// Takes a picture; also says what it is described by, if that is new.
    fn unit(&mut self, data: &Bytes) -> Result<(AccessUnit, Option<TrackInfo>), NalError> {
        let unit = AccessUnit::from_length_prefixed(data, self.prefix, &mut *self.sets)?;
        let mut info = None;
        if unit.new_sets {
            info = self.sets.track_info().map_err(|error| self.refused = Some(error)).ok();
            self.refused.take_if(|_| info.is_some());
        }
        match &self.refused {
            Some(error) => Err(error.clone()),
            None => Ok((unit, info)),
        }
    }
}

/// The video track, from its first header on.
#[derive(Default)]
pub(super) struct VideoIngest {
    writer: Option<TrackWriter>,
    codec: Option<VideoCodec>,
    /// Of H.264 and H.265.
    units: Option<Units>,
    /// Of AV1.
    sequence: Option<Sequence>,
    /// Said by the headers, the metadata and the frames so far.
    info: Option<TrackInfo>,
    /// `info` is newer than what the track knows; told with the next key frame.
    changed: bool,
    frame_rate: Option<f64>,
    reorder: Reorder,
    key_seen: bool,
    /// Since the last frame.
    lost: u32,
}

impl VideoIngest {
    pub(super) fn take(&mut self, tag: VideoTag, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        match tag.packet {
            VideoPacket::SequenceStart(record) => self.header(tag.codec, &record, publisher),
            VideoPacket::Frame { composition_ms, data } => {
                if data.is_empty() {
                    return Ok(());
                }
                // Of these the header is optional: their key frames say it all.
                if self.codec.is_none() && matches!(tag.codec, VideoCodec::Vp8 | VideoCodec::Vp9) {
                    self.codec = Some(tag.codec);
                }
                if self.codec != Some(tag.codec) {
                    return Err(Unusable::NoHeader);
                }
                let (payload, key) = self.picture(tag.codec, tag.keyframe, data)?;
                self.publish(publisher);
                self.frame(payload, key, composition_ms, at)
            }
            VideoPacket::SequenceEnd | VideoPacket::Metadata(_) => Ok(()),
        }
    }

    /// Notes a lost tag.
    pub(super) fn lost(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    /// What the metadata says; used where the stream itself is silent.
    pub(super) fn declare_frame_rate(&mut self, rate: Option<f64>) {
        self.frame_rate = rate.filter(|r| (1.0..=480.0).contains(r));
        if let (Some(rate), Some(TrackInfo { shape: Shape::Video(shape), .. })) = (self.frame_rate, &mut self.info)
            && shape.frame_rate.is_none()
        {
            shape.frame_rate = Some(rate);
            self.changed = true;
        }
    }

    pub(super) fn into_writer(self) -> Option<TrackWriter> {
        self.writer
    }

    fn header(&mut self, codec: VideoCodec, record: &Bytes, publisher: &Publisher) -> Result<(), Unusable> {
        // The read buffer must not be held for as long as the track lives.
        let record = Bytes::copy_from_slice(record.get(..CONFIG_MAX).unwrap_or(record));
        let units = match codec {
            VideoCodec::Avc => Some(Units::new(h264::ParameterSets::from_avcc(&record)?)),
            VideoCodec::Hevc => Some(Units::new(hevc::ParameterSets::from_hvcc(&record)?)),
            VideoCodec::Av1 => {
                self.sequence = Sequence::from_av1c(&record)?;
                self.sequence.as_ref().map(Sequence::track_info).into_iter().for_each(|info| self.describe(info));
                None
            }
            VideoCodec::Vp8 | VideoCodec::Vp9 => None,
        };
        self.codec = Some(codec);
        if let Some((units, info)) = units {
            self.units = Some(units);
            self.describe(info?);
        }
        self.publish(publisher);
        Ok(())
    }

    /// Makes the track as soon as it can be described.
    fn publish(&mut self, publisher: &Publisher) {
        if self.writer.is_none()
            && let Some(info) = &self.info
        {
            self.writer = Some(publisher.add_track(info.clone()));
            self.changed = false;
        }
    }

    /// Takes over a description, with what was learnt elsewhere.
    fn describe(&mut self, mut info: TrackInfo) {
        // Other parameter sets begin another sequence: what was seen of the one before says nothing about it.
        let same = self.info.as_ref().filter(|known| known.config == info.config);
        let depth_seen = same.and_then(TrackInfo::video_shape).map_or(0, |s| s.reorder_frames);
        if let Shape::Video(shape) = &mut info.shape {
            shape.frame_rate = shape.frame_rate.or(self.frame_rate);
            shape.reorder_frames = shape.reorder_frames.max(depth_seen);
        }
        self.changed |= self.info.as_ref() != Some(&info);
        self.info = Some(info);
    }

    /// A picture in the bus's layout, and whether decoding can begin with it.
    fn picture(&mut self, codec: VideoCodec, tagged_key: bool, data: Bytes) -> Result<(Bytes, bool), Unusable> {
        match (codec, &mut self.units) {
            (VideoCodec::Avc | VideoCodec::Hevc, Some(units)) => {
                let (unit, info) = units.unit(&data)?;
                info.into_iter().for_each(|info| self.describe(info));
                self.key_seen |= unit.key;
                // Streams without any such picture (intra refresh) can be joined only where the sender says so.
                Ok((unit.payload, unit.key || (tagged_key && !self.key_seen)))
            }
            (VideoCodec::Avc | VideoCodec::Hevc, None) => Err(Unusable::NoHeader),
            (VideoCodec::Vp8, _) => self.vpx(Codec::Vp8, data),
            (VideoCodec::Vp9, _) => self.vpx(Codec::Vp9, data),
            (VideoCodec::Av1, _) => {
                let unit = TemporalUnit::read(&data, &mut self.sequence)?;
                if unit.new_sequence {
                    self.sequence.as_ref().map(Sequence::track_info).into_iter().for_each(|info| self.describe(info));
                }
                Ok((unit.payload, unit.key))
            }
        }
    }

    fn vpx(&mut self, codec: Codec, data: Bytes) -> Result<(Bytes, bool), Unusable> {
        let info = vpx::Header::read(codec, &data).ok_or(Unusable::Picture(codec))?.track_info(codec);
        let key = info.is_some();
        info.into_iter().for_each(|info| self.describe(info));
        Ok((data, key))
    }

    fn frame(&mut self, payload: Bytes, key: bool, composition_ms: i32, at: Stamp) -> Result<(), Unusable> {
        if payload.is_empty() {
            return Ok(());
        }
        let composition = composition_ms.clamp(-COMPOSITION_MAX_MS, COMPOSITION_MAX_MS);
        let pts = at.dts + MediaTime::from_millis(composition.into());
        self.learn_depth(pts, key);
        let Some(writer) = &mut self.writer else { return Err(Unusable::NoHeader) };
        if key
            && std::mem::take(&mut self.changed)
            && let Some(info) = &self.info
        {
            writer.set_info(info.clone());
        }
        let loss = std::mem::take(&mut self.lost);
        writer.push(Frame { pts, dts: at.dts, duration: MediaTime::ZERO, key, loss, arrival: at.arrival, payload });
        Ok(())
    }

    fn learn_depth(&mut self, pts: MediaTime, key: bool) {
        let depth = self.reorder.observe(pts, key);
        if depth == 0 {
            return;
        }
        if let Some(TrackInfo { shape: Shape::Video(shape), .. }) = &mut self.info
            && depth > shape.reorder_frames
        {
            shape.reorder_frames = depth;
            self.changed = true;
        }
    }
}

//! [`VideoIngest`]: video tags of one publication.

use bytes::Bytes;
use patchbay_bus::{Publisher, TrackWriter};
use patchbay_media::h264::{AccessUnit, H264Error, ParameterSets};
use patchbay_media::{Codec, Frame, MediaTime, Reorder, Shape, TrackInfo, VideoShape};

use super::{Stamp, Unusable};
use crate::flv::tag::{VideoCodec, VideoPacket, VideoTag};

/// Composition times beyond this are nonsense; 5 s is more than any encoder delays a picture.
const COMPOSITION_MAX_MS: i32 = 5_000;
/// Longest decoder configuration that is kept, bytes.
const CONFIG_MAX: usize = 64 << 10;

/// What is known of the H.264 in the tags.
struct Avc {
    sets: ParameterSets,
    /// Bytes of a NAL unit's length: 1, 2 or 4.
    prefix: usize,
    /// Why the newest sets in the stream cannot be used; then neither can the pictures after them.
    refused: Option<H264Error>,
}

impl Avc {
    /// Takes a picture; also says what it is described by, if that is new.
    fn unit(&mut self, data: &Bytes) -> Result<(AccessUnit, Option<TrackInfo>), H264Error> {
        let unit = AccessUnit::from_length_prefixed(data, self.prefix, &mut self.sets)?;
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
    avc: Option<Avc>,
    /// Said by the headers, the metadata and the frames so far.
    info: Option<TrackInfo>,
    /// `info` is newer than what the track knows; told with the next key frame.
    changed: bool,
    frame_rate: Option<f64>,
    reorder: Reorder,
    idr_seen: bool,
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
                if self.codec.is_none() && matches!(tag.codec, VideoCodec::Vp8 | VideoCodec::Vp9) {
                    self.header(tag.codec, &Bytes::new(), publisher)?;
                }
                if self.codec != Some(tag.codec) {
                    return Err(Unusable::NoHeader);
                }
                self.frame(tag.keyframe, composition_ms, data, at)
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
        let other = |codec, config| TrackInfo::video(codec, config, VideoShape::default());
        let info = match codec {
            VideoCodec::Avc => {
                let (sets, prefix) = ParameterSets::from_avcc(&record)?;
                let info = sets.track_info();
                self.avc = Some(Avc { sets, prefix, refused: info.as_ref().err().cloned() });
                info
            }
            VideoCodec::Hevc => Ok(other(Codec::H265, record)),
            VideoCodec::Av1 => Ok(other(Codec::Av1, record)),
            VideoCodec::Vp8 => Ok(other(Codec::Vp8, Bytes::new())),
            VideoCodec::Vp9 => Ok(other(Codec::Vp9, Bytes::new())),
        };
        self.codec = Some(codec);
        self.describe(info?);
        if self.writer.is_none()
            && let Some(info) = &self.info
        {
            self.writer = Some(publisher.add_track(info.clone()));
            self.changed = false;
        }
        Ok(())
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

    fn frame(&mut self, tagged_key: bool, composition_ms: i32, data: Bytes, at: Stamp) -> Result<(), Unusable> {
        let avc = self.avc.as_mut().filter(|_| self.codec == Some(VideoCodec::Avc));
        let (payload, key) = match avc {
            Some(avc) => {
                let (unit, info) = avc.unit(&data)?;
                info.into_iter().for_each(|info| self.describe(info));
                self.idr_seen |= unit.key;
                // Streams without any IDR picture (intra refresh) can be joined only where the sender says so.
                (unit.payload, unit.key || (tagged_key && !self.idr_seen))
            }
            None => (data, tagged_key),
        };
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

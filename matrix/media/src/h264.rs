//! H.264 parameter sets: `avcC` records, and the traits an SPS declares.
//!
//! Bitstream syntax itself is h264-reader's; this file adds the container layout (ISO/IEC 14496-15) and limits.

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::{PicOrderCntType, SeqParameterSet};
use h264_reader::nal::{Nal, RefNal};

pub use crate::nal::{AccessUnit, NalError, SIDE_MAX, annex_b_nals, nals};
use crate::nal::{PARAMETER_SETS_MAX, Role, Sets, first_ue, read_sets, short, take};
use crate::{Codec, H264Profile, TrackInfo, VideoShape};

/// NAL unit types used here (H.264 table 7-1).
pub mod nal_type {
    /// Coded slice of a non-IDR picture.
    pub const SLICE: u8 = 1;
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
    /// Filler data.
    pub const FILLER: u8 = 12;
}

/// The type of a NAL unit; 0 for an empty one.
pub fn nal_unit_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |b| b & 0x1f)
}

/// The parameter sets of one track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Sequence parameter sets, each one NAL unit.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, each one NAL unit.
    pub pps: Vec<Bytes>,
}

impl ParameterSets {
    /// Reads an `AVCDecoderConfigurationRecord`; also returns the length-prefix size (1, 2 or 4).
    ///
    /// # Errors
    /// See [`NalError`].
    pub fn from_avcc(record: &Bytes) -> Result<(Self, usize), NalError> {
        let mut at = 0;
        let head = take(record, &mut at, 6)?;
        if head[0] != 1 {
            return Err(NalError::Version(head[0]));
        }
        let mut sets = Self::default();
        read_sets(record, &mut at, usize::from(head[5] & 0x1f), &mut sets.sps)?;
        let pps_count = take(record, &mut at, 1)?[0];
        read_sets(record, &mut at, usize::from(pps_count), &mut sets.pps)?;
        if sets.sps.is_empty() {
            return Err(NalError::NoSps);
        }
        Ok((sets, usize::from(head[4] & 3) + 1))
    }

    /// Writes an `AVCDecoderConfigurationRecord` for 4-byte length prefixes; `None` without a usable SPS.
    pub fn to_avcc(&self) -> Option<Bytes> {
        let first = self.sps.first().filter(|s| s.len() >= 4)?;
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&[1, first[1], first[2], first[3], 0xff, 0xe0 | self.sps.len().min(31) as u8]);
        for sps in self.sps.iter().take(31) {
            out.put_u16(sps.len() as u16);
            out.put_slice(sps);
        }
        out.put_u8(self.pps.len() as u8);
        for pps in &self.pps {
            out.put_u16(pps.len() as u16);
            out.put_slice(pps);
        }
        Some(out.freeze())
    }

    /// The traits of the first SPS.
    ///
    /// # Errors
    /// When it is missing, invalid or describes a picture that is too large.
    pub fn shape(&self) -> Result<VideoShape, NalError> {
        shape_of_sps(self.sps.first().ok_or(NalError::NoSps)?)
    }

    /// The track these sets describe.
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub fn track_info(&self) -> Result<TrackInfo, NalError> {
        let shape = self.shape()?;
        Ok(TrackInfo::video(Codec::H264, self.to_avcc().ok_or(NalError::NoSps)?, shape))
    }
}

impl Sets for ParameterSets {
    fn role(&self, nal: &[u8]) -> Role {
        match nal_unit_type(nal) {
            nal_type::SPS | nal_type::PPS => Role::Set,
            nal_type::IDR => Role::Key,
            // Nothing, the ends of sequence and stream, delimiters and filler.
            0 | nal_type::AUD | 10 | 11 | nal_type::FILLER => Role::Useless,
            _ => Role::Frame,
        }
    }

    /// Keeps `nal` (an SPS or PPS) unless it is already kept; a new SPS drops the sets it replaces. Returns
    /// whether anything changed.
    fn learn(&mut self, nal: &[u8]) -> bool {
        let list = match nal_unit_type(nal) {
            nal_type::SPS if !self.sps.iter().any(|s| s == nal) => {
                // One active SPS per track: a different one starts a new coded video sequence with its own PPS.
                self.sps.clear();
                self.pps.clear();
                &mut self.sps
            }
            nal_type::PPS if !self.pps.iter().any(|p| p == nal) => {
                let id = first_ue(nal.get(1..).unwrap_or_default());
                self.pps.retain(|p| first_ue(p.get(1..).unwrap_or_default()) != id);
                &mut self.pps
            }
            _ => return false,
        };
        if list.len() >= PARAMETER_SETS_MAX || nal.len() > usize::from(u16::MAX) {
            return false;
        }
        list.push(Bytes::copy_from_slice(nal));
        true
    }

    fn track_info(&self) -> Result<TrackInfo, NalError> {
        self.track_info()
    }
}

fn shape_of_sps(sps: &[u8]) -> Result<VideoShape, NalError> {
    let parsed = SeqParameterSet::from_bits(RefNal::new(sps, &[], true).rbsp_bits()).map_err(|e| NalError::Sps(short(&e)))?;
    let (width, height) = parsed.pixel_dimensions().map_err(|e| NalError::Sps(short(&e)))?;
    if width > SIDE_MAX || height > SIDE_MAX {
        return Err(NalError::TooLarge { width, height });
    }
    let idc = u8::from(parsed.profile_idc);
    let profile = H264Profile { idc, constraints: sps.get(2).copied().unwrap_or(0), level: parsed.level_idc };
    let frame_rate = parsed.fps().filter(|f| f.is_finite() && (1.0..=480.0).contains(f));
    Ok(VideoShape { width, height, frame_rate, reorder_frames: reorder_depth(&parsed, idc), profile: Some(profile) })
}

/// Frames that may be out of display order. Without a declaration only profiles and POC types that rule
/// reordering out are certain; the others read as 0 and the ingest raises the figure once it sees it happen.
fn reorder_depth(sps: &SeqParameterSet, profile_idc: u8) -> u8 {
    if profile_idc == 66 || sps.pic_order_cnt == PicOrderCntType::TypeTwo {
        return 0;
    }
    let declared = sps.vui_parameters.as_ref().and_then(|v| v.bitstream_restrictions.as_ref());
    declared.map_or(0, |r| r.max_num_reorder_frames.min(16) as u8)
}

/// The track an `avcC` record describes.
///
/// # Errors
/// See [`NalError`].
pub fn track_info(record: &Bytes) -> Result<TrackInfo, NalError> {
    ParameterSets::from_avcc(record)?.0.track_info()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x264, High profile, 640x360, 30 fps, 2 reorder frames.
    const HIGH_B_FRAMES: &[u8] = &[
        0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c,
        0x0f, 0x16, 0x2d, 0x96,
    ];
    const PPS: &[u8] = &[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0];

    fn sets() -> ParameterSets {
        ParameterSets { sps: vec![Bytes::from_static(HIGH_B_FRAMES)], pps: vec![Bytes::from_static(PPS)] }
    }

    #[test]
    fn avcc_round_trips_and_tells_the_traits() {
        let record = sets().to_avcc().unwrap();
        assert_eq!(ParameterSets::from_avcc(&record), Ok((sets(), 4)));
        let info = track_info(&record).unwrap();
        let shape = info.video_shape().unwrap();
        assert_eq!((shape.width, shape.height, shape.reorder_frames), (640, 360, 2));
        assert_eq!(shape.profile.unwrap().name(), "High");
        assert_eq!(shape.frame_rate, Some(30.0));
    }

    #[test]
    fn truncated_records_are_refused_with_the_offset() {
        let record = sets().to_avcc().unwrap();
        for len in 0..record.len() {
            assert!(matches!(ParameterSets::from_avcc(&record.slice(..len)), Err(NalError::Truncated { .. })), "{len} bytes");
        }
    }

    #[test]
    fn annex_b_becomes_length_prefixed_without_parameter_sets() {
        let mut stream = vec![0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1];
        stream.extend_from_slice(HIGH_B_FRAMES);
        stream.extend_from_slice(&[0, 0, 0, 1]);
        stream.extend_from_slice(PPS);
        stream.extend_from_slice(&[0, 0, 1, 0x65, 1, 2, 3, 0, 0, 1, 0x65, 4]);
        let mut learned = ParameterSets::default();
        let unit = AccessUnit::from_annex_b(&stream, &mut learned);
        assert!(unit.key && unit.new_sets);
        assert_eq!(learned, sets());
        assert_eq!(&unit.payload[..], &[0, 0, 0, 4, 0x65, 1, 2, 3, 0, 0, 0, 2, 0x65, 4]);
        assert_eq!(nals(&unit.payload).map(|n| n.len()).collect::<Vec<_>>(), [4, 2]);
    }

    #[test]
    fn a_clean_access_unit_is_shared_and_a_lying_length_refused() {
        let data = Bytes::from_static(&[0, 0, 0, 2, 0x41, 9]);
        let unit = AccessUnit::from_length_prefixed(&data, 4, &mut ParameterSets::default()).unwrap();
        assert_eq!(unit.payload.as_ptr(), data.as_ptr());
        assert!(!unit.key);
        let lie = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x41]);
        assert!(AccessUnit::from_length_prefixed(&lie, 4, &mut ParameterSets::default()).is_err());
    }
}

//! H.264 parameter sets and access units: `avcC` records, NAL iteration, and the traits an SPS declares.
//!
//! Bitstream syntax itself is h264-reader's; this file adds the container layouts (ISO/IEC 14496-15, Annex B)
//! and limits.

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::{PicOrderCntType, SeqParameterSet};
use h264_reader::nal::{Nal, RefNal};

use crate::{Codec, H264Profile, TrackInfo, VideoShape};

/// Widest and tallest picture that is accepted: 8K. Anything above is refused before a decoder is opened.
pub const SIDE_MAX: u32 = 8_192;

/// Most parameter sets of each kind that are kept per track.
const PARAMETER_SETS_MAX: usize = 32;

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

/// Why H.264 data was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum H264Error {
    /// The record or access unit ends inside a field.
    #[error("H.264 data is truncated at byte {at} of {len}")]
    Truncated {
        /// Offset of the field that does not fit.
        at: usize,
        /// Length of the whole.
        len: usize,
    },
    /// `configurationVersion` is not 1.
    #[error("avcC has version {0}, expected 1")]
    Version(u8),
    /// No SPS present.
    #[error("no sequence parameter set")]
    NoSps,
    /// Too many parameter sets.
    #[error("more than 32 parameter sets")]
    TooMany,
    /// The SPS does not parse.
    #[error("sequence parameter set is invalid: {0}")]
    Sps(String),
    /// The picture is larger than [`SIDE_MAX`].
    #[error("picture of {width}x{height} exceeds {SIDE_MAX}x{SIDE_MAX}")]
    TooLarge {
        /// Luma samples per row.
        width: u32,
        /// Luma rows.
        height: u32,
    },
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

fn take(bytes: &Bytes, at: &mut usize, n: usize) -> Result<Bytes, H264Error> {
    let end = at.checked_add(n).filter(|&e| e <= bytes.len()).ok_or(H264Error::Truncated { at: *at, len: bytes.len() })?;
    let out = bytes.slice(*at..end);
    *at = end;
    Ok(out)
}

impl ParameterSets {
    /// Reads an `AVCDecoderConfigurationRecord`; also returns the length-prefix size (1, 2 or 4).
    ///
    /// # Errors
    /// See [`H264Error`].
    pub fn from_avcc(record: &Bytes) -> Result<(Self, usize), H264Error> {
        let mut at = 0;
        let head = take(record, &mut at, 6)?;
        if head[0] != 1 {
            return Err(H264Error::Version(head[0]));
        }
        let mut sets = Self::default();
        read_sets(record, &mut at, usize::from(head[5] & 0x1f), &mut sets.sps)?;
        let pps_count = take(record, &mut at, 1)?[0];
        read_sets(record, &mut at, usize::from(pps_count), &mut sets.pps)?;
        if sets.sps.is_empty() {
            return Err(H264Error::NoSps);
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

    /// Keeps `nal` (an SPS or PPS) unless it is already kept; a new SPS drops the sets it replaces. Returns
    /// whether anything changed.
    pub fn learn(&mut self, nal: &[u8]) -> bool {
        let list = match nal_unit_type(nal) {
            nal_type::SPS if !self.sps.iter().any(|s| s == nal) => {
                // One active SPS per track: a different one starts a new coded video sequence with its own PPS.
                self.sps.clear();
                self.pps.clear();
                &mut self.sps
            }
            nal_type::PPS if !self.pps.iter().any(|p| p == nal) => {
                let id = pps_id(nal);
                self.pps.retain(|p| pps_id(p) != id);
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

    /// The traits of the first SPS.
    ///
    /// # Errors
    /// When it is missing, invalid or describes a picture that is too large.
    pub fn shape(&self) -> Result<VideoShape, H264Error> {
        shape_of_sps(self.sps.first().ok_or(H264Error::NoSps)?)
    }

    /// The track these sets describe.
    ///
    /// # Errors
    /// As [`Self::shape`].
    pub fn track_info(&self) -> Result<TrackInfo, H264Error> {
        let shape = self.shape()?;
        Ok(TrackInfo::video(Codec::H264, self.to_avcc().ok_or(H264Error::NoSps)?, shape))
    }
}

/// `pic_parameter_set_id` as its raw Exp-Golomb prefix byte; enough to tell sets of one track apart.
fn pps_id(nal: &[u8]) -> u32 {
    let word =
        nal.get(1..5).map_or_else(|| u32::from(*nal.get(1).unwrap_or(&0x80)) << 24, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let zeros = word.leading_zeros().min(15);
    (word << zeros) >> (31 - zeros)
}

fn read_sets(record: &Bytes, at: &mut usize, count: usize, into: &mut Vec<Bytes>) -> Result<(), H264Error> {
    if count > PARAMETER_SETS_MAX {
        return Err(H264Error::TooMany);
    }
    for _ in 0..count {
        let len = take(record, at, 2)?;
        let set = take(record, at, usize::from(u16::from_be_bytes([len[0], len[1]])))?;
        if !set.is_empty() {
            into.push(set);
        }
    }
    Ok(())
}

fn shape_of_sps(sps: &[u8]) -> Result<VideoShape, H264Error> {
    let parsed = SeqParameterSet::from_bits(RefNal::new(sps, &[], true).rbsp_bits()).map_err(|e| H264Error::Sps(short(&e)))?;
    let (width, height) = parsed.pixel_dimensions().map_err(|e| H264Error::Sps(short(&e)))?;
    if width > SIDE_MAX || height > SIDE_MAX {
        return Err(H264Error::TooLarge { width, height });
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

fn short(e: &impl std::fmt::Debug) -> String {
    format!("{e:?}").chars().take(120).collect()
}

/// The track an `avcC` record describes.
///
/// # Errors
/// See [`H264Error`].
pub fn track_info(record: &Bytes) -> Result<TrackInfo, H264Error> {
    ParameterSets::from_avcc(record)?.0.track_info()
}

/// Iterates over the NAL units of a length-prefixed access unit, as sub-slices of `payload`. Stops silently at a
/// truncated tail: what reaches the bus was checked by [`AccessUnit`].
pub fn nals(payload: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let prefix = payload.get(at..at + 4)?;
        let len = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
        let start = at + 4;
        let end = start.checked_add(len).filter(|&e| e <= payload.len())?;
        at = end;
        Some(payload.slice(start..end))
    })
}

/// Iterates over the NAL units of an Annex B byte stream (start codes of 3 or 4 bytes).
pub fn annex_b_nals(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        let current = rest?;
        let end = current.windows(3).position(|w| w == [0, 0, 1]);
        let nal = &current[..end.unwrap_or(current.len())];
        rest = end.map(|e| &current[e + 3..]);
        // Trailing zeros belong to the next start code (trailing_zero_8bits).
        let len = nal.iter().rposition(|&b| b != 0).map_or(0, |p| p + 1);
        Some(&nal[..len])
    })
    .filter(|nal| !nal.is_empty())
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    stream.windows(3).position(|w| w == [0, 0, 1]).map(|p| &stream[p + 3..])
}

/// One access unit brought into the bus's layout.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    /// Length-prefixed NAL units without parameter sets, delimiters and filler.
    pub payload: Bytes,
    /// Whether it holds an IDR slice.
    pub key: bool,
    /// Whether in-band parameter sets changed what `ParameterSets` held.
    pub new_sets: bool,
}

impl AccessUnit {
    /// From length-prefixed NAL units (`prefix` of 1, 2 or 4 bytes). The usual case, 4-byte prefixes and nothing
    /// to strip, shares the input.
    ///
    /// # Errors
    /// [`H264Error::Truncated`] when a length runs past the end.
    pub fn from_length_prefixed(data: &Bytes, prefix: usize, sets: &mut ParameterSets) -> Result<Self, H264Error> {
        let mut ranges = Vec::with_capacity(8);
        let mut at = 0;
        while at < data.len() {
            let head = data.get(at..at + prefix).ok_or(H264Error::Truncated { at, len: data.len() })?;
            let len = head.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
            let start = at + prefix;
            let end = start.checked_add(len).filter(|&e| e <= data.len()).ok_or(H264Error::Truncated { at, len: data.len() })?;
            ranges.push(start..end);
            at = end;
        }
        let clean = prefix == 4 && ranges.iter().all(|r| keeps(&data[r.clone()]));
        if clean {
            let key = ranges.iter().any(|r| nal_unit_type(&data[r.clone()]) == nal_type::IDR);
            return Ok(Self { payload: data.clone(), key, new_sets: false });
        }
        Ok(Self::gather(ranges.iter().map(|r| &data[r.clone()]), data.len(), sets))
    }

    /// From an Annex B byte stream.
    pub fn from_annex_b(data: &[u8], sets: &mut ParameterSets) -> Self {
        Self::gather(annex_b_nals(data), data.len(), sets)
    }

    fn gather<'a>(nals: impl Iterator<Item = &'a [u8]>, size_hint: usize, sets: &mut ParameterSets) -> Self {
        let mut out = BytesMut::with_capacity(size_hint + 16);
        let (mut key, mut new_sets) = (false, false);
        for nal in nals {
            if matches!(nal_unit_type(nal), nal_type::SPS | nal_type::PPS) {
                new_sets |= sets.learn(nal);
            } else if keeps(nal) {
                key |= nal_unit_type(nal) == nal_type::IDR;
                out.put_u32(nal.len() as u32);
                out.put_slice(nal);
            }
        }
        Self { payload: out.freeze(), key, new_sets }
    }
}

fn keeps(nal: &[u8]) -> bool {
    !matches!(nal_unit_type(nal), 0 | nal_type::SPS | nal_type::PPS | nal_type::AUD | 10 | 11 | nal_type::FILLER)
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
            assert!(matches!(ParameterSets::from_avcc(&record.slice(..len)), Err(H264Error::Truncated { .. })), "{len} bytes");
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

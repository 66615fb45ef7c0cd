//! H.265 parameter sets: `hvcC` records, and the traits an SPS declares.
//!
//! The bits below the syntax are h264-reader's: both standards escape and code numbers alike. Of an SPS only what comes
//! before its scaling lists is read; frame rates are behind them, and sources tell those elsewhere too.

use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, ByteReader};

use crate::nal::{NalError, PARAMETER_SETS_MAX, Role, SIDE_MAX, Sets, first_ue, read_sets, short, take, take_u16};
use crate::{Codec, TrackInfo, VideoShape};

/// Bytes of a NAL unit's header.
const HEADER: usize = 2;
/// Most lists of NAL units in a record: one of each type there is.
const ARRAYS_MAX: u8 = 64;

/// NAL unit types used here (H.265 table 7-1).
mod nal_type {
    /// The first of the pictures that decoding can begin with…
    pub(super) const BLA_W_LP: u8 = 16;
    /// …and the last of them that is not reserved.
    pub(super) const CRA: u8 = 21;
    /// The last of the types that slices have.
    pub(super) const SLICES_MAX: u8 = 31;
    pub(super) const VPS: u8 = 32;
    pub(super) const SPS: u8 = 33;
    pub(super) const PPS: u8 = 34;
    pub(super) const PREFIX_SEI: u8 = 39;
    pub(super) const SUFFIX_SEI: u8 = 40;
}

fn nal_unit_type(nal: &[u8]) -> Option<u8> {
    let [first, second, ..] = nal else { return None };
    // Higher layers are for decoders of the extensions.
    let layer = (first & 1) << 5 | second >> 3;
    (layer == 0).then_some(first >> 1 & 0x3f)
}

/// The parameter sets of one track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    vps: Vec<Bytes>,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
}

impl ParameterSets {
    /// Reads an `HEVCDecoderConfigurationRecord`; also returns the length-prefix size (1 to 4).
    ///
    /// # Errors
    /// See [`NalError`].
    pub fn from_hvcc(record: &Bytes) -> Result<(Self, usize), NalError> {
        let mut at = 0;
        let head = take(record, &mut at, 23)?;
        // Encoders from before the standard was finished wrote 0.
        if head[0] > 1 {
            return Err(NalError::Version(head[0]));
        }
        if head[22] > ARRAYS_MAX {
            return Err(NalError::TooMany);
        }
        let mut sets = Self::default();
        for _ in 0..head[22] {
            let kind = take(record, &mut at, 1)?[0] & 0x3f;
            let count = take_u16(record, &mut at)?;
            let mut others = Vec::new();
            let list = sets.list(kind).unwrap_or(&mut others);
            read_sets(record, &mut at, count, list)?;
        }
        if sets.sps.is_empty() {
            return Err(NalError::NoSps);
        }
        Ok((sets, usize::from(head[21] & 3) + 1))
    }

    /// Writes an `HEVCDecoderConfigurationRecord` for 4-byte length prefixes (ISO/IEC 14496-15 §8.3.3.1.2).
    ///
    /// # Errors
    /// When the SPS is missing or invalid.
    pub fn to_hvcc(&self) -> Result<Bytes, NalError> {
        Ok(self.write(&Sps::read(self.sps.first().ok_or(NalError::NoSps)?)?))
    }

    fn write(&self, sps: &Sps) -> Bytes {
        let mut out = BytesMut::with_capacity(160);
        out.put_u8(1);
        out.put_slice(&sps.profile_tier_level);
        out.put_u16(0xf000); // min_spatial_segmentation_idc: not known
        out.put_slice(&[0xfc, 0xfc | sps.chroma_format, 0xf8 | sps.depth_luma, 0xf8 | sps.depth_chroma]);
        out.put_u16(0); // avgFrameRate: not known
        out.put_u8((sps.sub_layers_more + 1) << 3 | u8::from(sps.nested) << 2 | 3);
        let lists = [(nal_type::VPS, &self.vps), (nal_type::SPS, &self.sps), (nal_type::PPS, &self.pps)];
        out.put_u8(lists.iter().filter(|(_, list)| !list.is_empty()).count() as u8);
        for (kind, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            out.put_u8(kind);
            out.put_u16(list.len() as u16);
            for nal in list {
                out.put_u16(nal.len() as u16);
                out.put_slice(nal);
            }
        }
        out.freeze()
    }

    fn list(&mut self, kind: u8) -> Option<&mut Vec<Bytes>> {
        match kind {
            nal_type::VPS => Some(&mut self.vps),
            nal_type::SPS => Some(&mut self.sps),
            nal_type::PPS => Some(&mut self.pps),
            _ => None,
        }
    }
}

impl Sets for ParameterSets {
    fn role(&self, nal: &[u8]) -> Role {
        match nal_unit_type(nal) {
            Some(nal_type::VPS..=nal_type::PPS) => Role::Set,
            Some(nal_type::BLA_W_LP..=nal_type::CRA) => Role::Key,
            Some(0..=nal_type::SLICES_MAX | nal_type::PREFIX_SEI | nal_type::SUFFIX_SEI) => Role::Frame,
            _ => Role::Useless,
        }
    }

    /// Keeps `nal` unless it is already kept; a new SPS drops the sets it replaces. Returns whether anything changed.
    fn learn(&mut self, nal: &[u8]) -> bool {
        let kind = nal_unit_type(nal).unwrap_or(0);
        let Some(list) = self.list(kind) else { return false };
        if nal.len() > usize::from(u16::MAX) || list.iter().any(|known| known == nal) {
            return false;
        }
        if kind == nal_type::PPS {
            let id = |nal: &[u8]| first_ue(nal.get(HEADER..).unwrap_or_default());
            list.retain(|known| id(known) != id(nal));
        } else {
            // One of each is active: another one begins another coded video sequence.
            list.clear();
        }
        if list.len() >= PARAMETER_SETS_MAX {
            return false;
        }
        list.push(Bytes::copy_from_slice(nal));
        if kind == nal_type::SPS {
            self.pps.clear();
        }
        true
    }

    fn track_info(&self) -> Result<TrackInfo, NalError> {
        let sps = Sps::read(self.sps.first().ok_or(NalError::NoSps)?)?;
        let Sps { width, height, .. } = sps;
        if width > SIDE_MAX || height > SIDE_MAX {
            return Err(NalError::TooLarge { width, height });
        }
        let shape = VideoShape { width, height, reorder_frames: sps.reorder, ..VideoShape::default() };
        Ok(TrackInfo::video(Codec::H265, self.write(&sps), shape))
    }
}

/// What is read of a sequence parameter set (H.265 §7.3.2.2).
struct Sps {
    /// Of the whole stream, as the record repeats it.
    profile_tier_level: [u8; 12],
    sub_layers_more: u8,
    nested: bool,
    chroma_format: u8,
    /// Bits of a sample beyond eight.
    depth_luma: u8,
    depth_chroma: u8,
    /// As shown.
    width: u32,
    height: u32,
    reorder: u8,
}

impl Sps {
    fn read(nal: &[u8]) -> Result<Self, NalError> {
        let header = NonZeroUsize::new(HEADER).unwrap_or(NonZeroUsize::MIN);
        Self::parse(&mut BitReader::new(ByteReader::skipping_bytes(nal, header)))
    }

    fn parse(bits: &mut impl BitRead) -> Result<Self, NalError> {
        bits.skip(4, "sps_video_parameter_set_id")?;
        let sub_layers_more: u8 = bits.read::<3, _>("sps_max_sub_layers_minus1")?;
        if sub_layers_more > 6 {
            return Err(NalError::Sps(format!("sps_max_sub_layers_minus1 is {sub_layers_more}, more than 6")));
        }
        let nested = bits.read_bit("sps_temporal_id_nesting_flag")?;
        let profile_tier_level = bits.read_to("profile_tier_level")?;
        skip_sub_layers(bits, sub_layers_more)?;
        bits.read_ue("sps_seq_parameter_set_id")?;
        let chroma_format = small(bits, "chroma_format_idc", 3)?;
        let separate = chroma_format == 3 && bits.read_bit("separate_colour_plane_flag")?;
        let (mut width, mut height) = (bits.read_ue("pic_width_in_luma_samples")?, bits.read_ue("pic_height_in_luma_samples")?);
        if bits.read_bit("conformance_window_flag")? {
            // The window counts chroma samples.
            let (across, down) = match chroma_format {
                1 => (2, 2),
                2 => (2, 1),
                _ => (1, 1),
            };
            let mut cut = |name, unit| Ok::<_, BitReaderError>(bits.read_ue(name)?.saturating_mul(unit));
            let (left, right) = (cut("conf_win_left_offset", across)?, cut("conf_win_right_offset", across)?);
            let (top, bottom) = (cut("conf_win_top_offset", down)?, cut("conf_win_bottom_offset", down)?);
            width = width.saturating_sub(left.saturating_add(right));
            height = height.saturating_sub(top.saturating_add(bottom));
        }
        if width == 0 || height == 0 {
            return Err(NalError::Sps("nothing is left of the picture".into()));
        }
        let depth_luma = small(bits, "bit_depth_luma_minus8", 8)?;
        let depth_chroma = small(bits, "bit_depth_chroma_minus8", 8)?;
        bits.read_ue("log2_max_pic_order_cnt_lsb_minus4")?;
        let first = if bits.read_bit("sps_sub_layer_ordering_info_present_flag")? { 0 } else { sub_layers_more };
        let mut reorder = 0;
        for _ in first..=sub_layers_more {
            bits.read_ue("sps_max_dec_pic_buffering_minus1")?;
            // The last one is that of all sub-layers together.
            reorder = small(bits, "sps_max_num_reorder_pics", 16)?;
            bits.read_ue("sps_max_latency_increase_plus1")?;
        }
        let chroma_format = if separate { 0 } else { chroma_format };
        Ok(Self { profile_tier_level, sub_layers_more, nested, chroma_format, depth_luma, depth_chroma, width, height, reorder })
    }
}

/// The rest of `profile_tier_level` (H.265 §7.3.3).
fn skip_sub_layers(bits: &mut impl BitRead, count: u8) -> Result<(), BitReaderError> {
    let mut present = 0;
    for _ in 0..count {
        present += if bits.read_bit("sub_layer_profile_present_flag")? { 88 } else { 0 };
        present += if bits.read_bit("sub_layer_level_present_flag")? { 8 } else { 0 };
    }
    if count > 0 {
        present += 2 * (8 - u32::from(count));
    }
    bits.skip(present, "sub_layers")
}

fn small(bits: &mut impl BitRead, name: &'static str, max: u32) -> Result<u8, NalError> {
    match bits.read_ue(name)? {
        value if value <= max => Ok(value as u8),
        value => Err(NalError::Sps(format!("{name} is {value}, more than {max}"))),
    }
}

impl From<BitReaderError> for NalError {
    fn from(error: BitReaderError) -> Self {
        Self::Sps(short(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nal::AccessUnit;

    /// x265, Main, 640x360 cut from 640x368, 2 pictures out of order.
    const VPS: &[u8] = &[
        0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3f, 0x95,
        0x94, 0x09,
    ];
    const SPS: &[u8] = &[
        0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x3f, 0xa0, 0x05, 0x02, 0x01,
        0x71, 0xf2, 0xe5, 0x95, 0x95, 0x29, 0x30, 0xb9, 0xa0, 0x20, 0x00, 0x00, 0x03, 0x00, 0x20, 0x00, 0x00, 0x03, 0x03, 0xc1,
    ];
    const PPS: &[u8] = &[0x44, 0x01, 0xc0, 0x73, 0xc1, 0x89];
    /// The head of x265's record: what its SPS says, in other words.
    const HEAD: &[u8] = &[1, 0x01, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0x3f, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f];

    fn sets() -> ParameterSets {
        let list = |nal| vec![Bytes::from_static(nal)];
        ParameterSets { vps: list(VPS), sps: list(SPS), pps: list(PPS) }
    }

    #[test]
    fn hvcc_round_trips_and_tells_the_traits() {
        let record = sets().to_hvcc().unwrap();
        assert_eq!(&record[..HEAD.len()], HEAD);
        assert_eq!(ParameterSets::from_hvcc(&record), Ok((sets(), 4)));
        let info = sets().track_info().unwrap();
        assert_eq!((info.codec, &info.config), (Codec::H265, &record));
        let shape = info.video_shape().unwrap();
        assert_eq!((shape.width, shape.height, shape.reorder_frames), (640, 360, 2));
    }

    #[test]
    fn truncated_records_and_sets_are_refused() {
        let record = sets().to_hvcc().unwrap();
        for len in 0..record.len() {
            assert!(matches!(ParameterSets::from_hvcc(&record.slice(..len)), Err(NalError::Truncated { .. })), "{len} bytes");
        }
        // Everything up to the reordering depth is needed.
        for len in 0..25 {
            let sets = ParameterSets { sps: vec![Bytes::from_static(&SPS[..len])], ..sets() };
            assert!(matches!(sets.track_info(), Err(NalError::Sps(_))), "{len} bytes");
        }
    }

    #[test]
    fn access_units_leave_their_sets_with_the_track() {
        let mut stream = Vec::new();
        // VPS, SPS, PPS, delimiter, SEI, a slice of a higher layer, a slice of an IDR picture.
        for nal in [VPS, SPS, PPS, &[0x46, 1, 0x50], &[0x4e, 1, 5], &[0x28, 9, 7], &[0x28, 1, 0xac]] {
            stream.extend([0, 0, 0, 1]);
            stream.extend(nal);
        }
        let mut learned = ParameterSets::default();
        let unit = AccessUnit::from_annex_b(&stream, &mut learned);
        assert!(unit.key && unit.new_sets);
        assert_eq!(learned, sets());
        assert_eq!(&unit.payload[..], &[0, 0, 0, 3, 0x4e, 1, 5, 0, 0, 0, 3, 0x28, 1, 0xac]);
        assert!(!AccessUnit::from_annex_b(&stream, &mut learned).new_sets, "they are known");
    }

    #[test]
    fn a_new_sps_forgets_the_pictures_sets_and_no_other_picture_is_key() {
        let mut learned = sets();
        let other = [SPS, &[0x80]].concat();
        assert!(learned.learn(&other) && learned.pps.is_empty() && learned.vps.len() == 1);
        for (first, role) in [(0x02, Role::Frame), (0x26, Role::Key), (0x2a, Role::Key), (0x2c, Role::Frame), (0x46, Role::Useless)] {
            assert_eq!(learned.role(&[first, 1, 0]), role, "{first:#x}");
        }
        assert_eq!(learned.role(&[0x26]), Role::Useless, "half a header");
    }
}

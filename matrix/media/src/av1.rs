//! AV1 as the bus carries it: temporal units brought into its layout, what a sequence header says, and `av1C` records.
//!
//! Section numbers are those of the AV1 bitstream specification. Refuses: to look into frames behind their first bits.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bits::Bits;
use crate::nal::SIDE_MAX;
use crate::{Codec, TrackInfo, VideoShape};

/// Most parts of a temporal unit between OBUs that are left out.
const PARTS_MAX: usize = 1_024;
/// Largest sequence header that is kept, bytes; real ones have a dozen.
const SEQUENCE_MAX: usize = 1 << 10;
/// First byte of an `av1C` record: marker and version 1.
const AV1C_VERSION: u8 = 0x81;
/// `has_size_field` in the header of an OBU.
const HAS_SIZE: u8 = 2;

/// Types of OBUs that are used here (§6.2.2).
mod obu_type {
    pub(super) const SEQUENCE_HEADER: u8 = 1;
    pub(super) const TEMPORAL_DELIMITER: u8 = 2;
    pub(super) const FRAME_HEADER: u8 = 3;
    pub(super) const FRAME: u8 = 6;
    pub(super) const TILE_LIST: u8 = 8;
    pub(super) const PADDING: u8 = 15;
}

/// Why AV1 was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Av1Error {
    /// An OBU ends inside its header, or behind the data.
    #[error("AV1 is truncated at byte {at} of {len}")]
    Truncated {
        /// Offset of the OBU.
        at: usize,
        /// Length of the whole.
        len: usize,
    },
    /// The record is not of version 1.
    #[error("av1C begins with {0:#04x}, expected {AV1C_VERSION:#04x}")]
    Version(u8),
    /// Too much is left out of one temporal unit.
    #[error("temporal unit in more than {PARTS_MAX} parts")]
    TooManyParts,
    /// The sequence header does not parse.
    #[error("AV1 sequence header is invalid")]
    Sequence,
    /// The picture is larger than [`SIDE_MAX`].
    #[error("picture of {width}x{height} exceeds {SIDE_MAX}x{SIDE_MAX}")]
    TooLarge {
        /// Luma samples per row.
        width: u32,
        /// Luma rows.
        height: u32,
    },
    /// A frame before any sequence header.
    #[error("AV1 frame without a sequence header before it")]
    NoSequence,
}

/// One OBU in a byte string.
struct Obu {
    kind: u8,
    whole: Range<usize>,
    payload: Range<usize>,
}

impl Obu {
    /// The one that begins at `at`. Without a size it goes on to the end (§5.3.1).
    fn read(data: &[u8], at: usize) -> Result<Self, Av1Error> {
        let truncated = Av1Error::Truncated { at, len: data.len() };
        let header = *data.get(at).ok_or(truncated.clone())?;
        let mut start = at + 1 + usize::from(header >> 2 & 1);
        let end = if header & HAS_SIZE == 0 {
            data.len()
        } else {
            let (size, bytes) = leb128(data.get(start..).unwrap_or_default()).ok_or(truncated.clone())?;
            start += bytes;
            start.checked_add(size).ok_or(truncated.clone())?
        };
        if start > end || end > data.len() {
            return Err(truncated);
        }
        Ok(Self { kind: header >> 3 & 0xf, whole: at..end, payload: start..end })
    }
}

/// The number at the start of `data`, and how many bytes it takes (§4.10.5).
fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for (i, byte) in data.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()? as usize, i + 1));
        }
    }
    None
}

/// A temporal unit in the bus's layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporalUnit {
    /// Its OBUs.
    pub payload: Bytes,
    /// Whether decoding can begin with it.
    pub key: bool,
    /// Whether its sequence header is another one than before.
    pub new_sequence: bool,
}

impl TemporalUnit {
    /// Reads one. `sequence` is what the track has had so far; a header that is refused leaves none. The usual case,
    /// nothing left out but a delimiter at the start, shares the input.
    ///
    /// # Errors
    /// See [`Av1Error`].
    pub fn read(data: &Bytes, sequence: &mut Option<Sequence>) -> Result<Self, Av1Error> {
        let (mut kept, mut at) = (Vec::<Range<usize>>::with_capacity(2), 0);
        let (mut first_frame, mut new_sequence) = (None, false);
        while at < data.len() {
            let obu = Obu::read(data, at)?;
            at = obu.whole.end;
            match obu.kind {
                obu_type::TEMPORAL_DELIMITER | obu_type::TILE_LIST | obu_type::PADDING => continue,
                obu_type::SEQUENCE_HEADER => new_sequence |= learn(&data[obu.payload.clone()], sequence)?,
                obu_type::FRAME | obu_type::FRAME_HEADER if first_frame.is_none() => first_frame = Some(obu.payload.clone()),
                _ => {}
            }
            match kept.last_mut() {
                Some(last) if last.end == obu.whole.start => last.end = obu.whole.end,
                _ => kept.push(obu.whole),
            }
            if kept.len() > PARTS_MAX {
                return Err(Av1Error::TooManyParts);
            }
        }
        let payload = match &kept[..] {
            [] => Bytes::new(),
            [one] => data.slice(one.clone()),
            many => many.iter().flat_map(|range| &data[range.clone()]).copied().collect(),
        };
        let key = match (first_frame, &sequence) {
            (Some(_), None) => return Err(Av1Error::NoSequence),
            (Some(frame), Some(sequence)) => sequence.begins_with(&data[frame]),
            (None, _) => false,
        };
        Ok(Self { payload, key, new_sequence })
    }
}

/// Takes over a sequence header; whether it is another one.
fn learn(header: &[u8], sequence: &mut Option<Sequence>) -> Result<bool, Av1Error> {
    if sequence.as_ref().is_some_and(|known| known.header == header) {
        return Ok(false);
    }
    *sequence = None;
    *sequence = Some(Sequence::read(header)?);
    Ok(true)
}

/// A sequence header (§5.5), and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Without the header of its OBU.
    header: Bytes,
    width: u32,
    height: u32,
    /// Every frame is a key frame.
    is_still: bool,
    /// Bytes 1 and 2 of `av1C`: profile, level, tier, and how samples are stored.
    form: [u8; 2],
}

impl Sequence {
    /// Reads the sequence header of an `AV1CodecConfigurationRecord`; `None` if it has none, which is allowed.
    ///
    /// # Errors
    /// See [`Av1Error`].
    pub fn from_av1c(record: &Bytes) -> Result<Option<Self>, Av1Error> {
        let version = *record.first().ok_or(Av1Error::Truncated { at: 0, len: 0 })?;
        if version != AV1C_VERSION {
            return Err(Av1Error::Version(version));
        }
        let mut at = 4;
        while at < record.len() {
            let obu = Obu::read(record, at)?;
            if obu.kind == obu_type::SEQUENCE_HEADER {
                return Self::read(&record[obu.payload]).map(Some);
            }
            at = obu.whole.end;
        }
        Ok(None)
    }

    /// The track it describes, with an `av1C` record made of it.
    pub fn track_info(&self) -> TrackInfo {
        let mut record = BytesMut::with_capacity(self.header.len() + 8);
        record.put_slice(&[AV1C_VERSION, self.form[0], self.form[1], 0, obu_type::SEQUENCE_HEADER << 3 | HAS_SIZE]);
        // SEQUENCE_MAX takes two bytes at most.
        match self.header.len() {
            short @ 0..0x80 => record.put_u8(short as u8),
            long => record.put_slice(&[long as u8 | 0x80, (long >> 7) as u8]),
        }
        record.put_slice(&self.header);
        let shape = VideoShape { width: self.width, height: self.height, ..VideoShape::default() };
        TrackInfo::video(Codec::Av1, record.freeze(), shape)
    }

    /// Whether a frame with this header is a key frame that is shown (§5.9.2).
    fn begins_with(&self, frame: &[u8]) -> bool {
        // show_existing_frame 0, frame_type 0, show_frame 1.
        self.is_still || frame.first().is_some_and(|first| first >> 4 == 0b0001)
    }

    fn read(header: &[u8]) -> Result<Self, Av1Error> {
        if header.len() > SEQUENCE_MAX {
            return Err(Av1Error::Sequence);
        }
        let fields = Fields::read(&mut Bits::new(header)).ok_or(Av1Error::Sequence)?;
        let Fields { width, height, is_still, form } = fields;
        if width > SIDE_MAX || height > SIDE_MAX {
            return Err(Av1Error::TooLarge { width, height });
        }
        Ok(Self { header: Bytes::copy_from_slice(header), width, height, is_still, form })
    }
}

/// The fields of a sequence header that are used.
struct Fields {
    width: u32,
    height: u32,
    is_still: bool,
    form: [u8; 2],
}

impl Fields {
    /// §5.5.1.
    fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let profile = bits.read(3)? as u8;
        bits.read(1)?; // still_picture
        let is_still = bits.flag()?;
        let (level, tier) = if is_still { (bits.read(5)? as u8, false) } else { operating_points(bits)? };
        let (width_bits, height_bits) = (bits.read(4)? as usize + 1, bits.read(4)? as usize + 1);
        let (width, height) = (bits.read(width_bits)? + 1, bits.read(height_bits)? + 1);
        if !is_still && bits.flag()? {
            bits.read(4 + 3)?; // lengths of frame ids
        }
        bits.read(3)?; // superblock size, two intra tools
        if !is_still {
            inter_tools(bits)?;
        }
        bits.read(3)?; // super-resolution, two filters
        let storage = color_config(bits, profile)?;
        Some(Self { width, height, is_still, form: [profile << 5 | level, u8::from(tier) << 7 | storage] })
    }
}

/// From `timing_info_present_flag` to the last operating point; level and tier of the first.
fn operating_points(bits: &mut Bits<'_>) -> Option<(u8, bool)> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.read(32)?; // num_units_in_display_tick
        bits.read(32)?; // time_scale
        if bits.flag()? {
            skip_uvlc(bits)?;
        }
        if bits.flag()? {
            delay_bits = Some(bits.read(5)? as usize + 1);
            bits.read(32)?; // num_units_in_decoding_tick
            bits.read(5 + 5)?; // two more lengths
        }
    }
    let has_display_delay = bits.flag()?;
    let mut first = None;
    for _ in 0..=bits.read(5)? {
        bits.read(12)?; // operating_point_idc
        let level = bits.read(5)? as u8;
        let tier = level > 7 && bits.flag()?;
        if let Some(length) = delay_bits
            && bits.flag()?
        {
            bits.read(length)?; // decoder_buffer_delay
            bits.read(length)?; // encoder_buffer_delay
            bits.read(1)?; // low_delay_mode_flag
        }
        if has_display_delay && bits.flag()? {
            bits.read(4)?;
        }
        first.get_or_insert((level, tier));
    }
    first
}

/// §4.10.3.
fn skip_uvlc(bits: &mut Bits<'_>) -> Option<()> {
    let mut zeros = 0;
    while !bits.flag()? {
        zeros += 1;
    }
    // A longer one has no value bits.
    if zeros < 32 {
        bits.read(zeros)?;
    }
    Some(())
}

/// From `enable_interintra_compound` to `order_hint_bits_minus_1`.
fn inter_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.read(4)?;
    let has_order_hint = bits.flag()?;
    if has_order_hint {
        bits.read(2)?;
    }
    let forces_screen_content = bits.flag()? || bits.flag()?;
    if forces_screen_content && !bits.flag()? {
        bits.read(1)?; // seq_force_integer_mv
    }
    if has_order_hint {
        bits.read(3)?;
    }
    Some(())
}

/// `color_config` (§5.5.2) as the low seven bits of byte 2 of `av1C`.
fn color_config(bits: &mut Bits<'_>, profile: u8) -> Option<u8> {
    let high = bits.flag()?;
    let twelve = profile == 2 && high && bits.flag()?;
    let monochrome = profile != 1 && bits.flag()?;
    // Primaries, transfer and matrix of sRGB, for which samples are never subsampled.
    let is_rgb = bits.flag()? && (bits.read(8)?, bits.read(8)?, bits.read(8)?) == (1, 13, 0);
    let (across, down, position) = if monochrome {
        (true, true, 0)
    } else if is_rgb {
        (false, false, 0)
    } else {
        bits.read(1)?; // color_range
        let (across, down) = match profile {
            0 => (true, true),
            1 => (false, false),
            _ if twelve => {
                let across = bits.flag()?;
                (across, across && bits.flag()?)
            }
            _ => (true, false),
        };
        (across, down, if across && down { bits.read(2)? as u8 } else { 0 })
    };
    let flags = [high, twelve, monochrome, across, down].iter().fold(0, |all, flag| all << 1 | u8::from(*flag));
    Some(flags << 2 | position)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVT-AV1, Main, 640x360, and its record.
    const HEADER: &[u8] = &[0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x12, 0xbe, 0x40, 0x10];
    const RECORD: &[u8] = &[0x81, 0x01, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x0c, 0xc4, 0xff, 0x67, 0x12, 0xbe, 0x40, 0x10];

    fn read(data: &[u8], sequence: &mut Option<Sequence>) -> Result<TemporalUnit, Av1Error> {
        TemporalUnit::read(&Bytes::copy_from_slice(data), sequence)
    }

    fn sequence() -> Sequence {
        Sequence::from_av1c(&Bytes::from_static(RECORD)).unwrap().unwrap()
    }

    #[test]
    fn records_round_trip_and_tell_the_size() {
        let info = sequence().track_info();
        let shape = info.video_shape().unwrap();
        assert_eq!((info.codec, shape.width, shape.height), (Codec::Av1, 640, 360));
        assert_eq!(&info.config[..], RECORD);
        assert_eq!(Sequence::from_av1c(&Bytes::from_static(&RECORD[..4])), Ok(None), "headers may be in the stream alone");
        assert_eq!(Sequence::from_av1c(&Bytes::from_static(&[1, 2, 3, 4])), Err(Av1Error::Version(1)));
        for len in 5..RECORD.len() {
            assert!(Sequence::from_av1c(&Bytes::from_static(&RECORD[..len])).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_key_unit_brings_its_sequence_header_and_leaves_its_delimiter() {
        let mut known = None;
        let unit = [&[0x12, 0, 0x0a, 0x0b], HEADER, &[0x32, 2, 0x10, 0]].concat();
        let seen = read(&unit, &mut known).unwrap();
        assert_eq!((seen.key, seen.new_sequence, &seen.payload[..]), (true, true, &unit[2..]));
        assert_eq!(known, Some(sequence()));
        let again = read(&unit, &mut known).unwrap();
        assert!(again.key && !again.new_sequence);
        let delta = read(&[0x12, 0, 0x32, 2, 0x30, 6], &mut known).unwrap();
        assert_eq!((delta.key, &delta.payload[..]), (false, &[0x32, 2, 0x30, 6][..]));
        let hidden = read(&[0x32, 2, 0x00, 6], &mut known).unwrap();
        assert!(!hidden.key, "a key frame that is shown later");
        let shown_again = read(&[0x1a, 1, 0xe8], &mut known).unwrap();
        assert!(!shown_again.key);
    }

    #[test]
    fn what_is_of_no_use_is_left_out_wherever_it_stands() {
        let unit = [&[0x12, 0, 0x0a, 0x0b], HEADER, &[0x7a, 3, 0, 0, 0x80, 0x32, 2, 0x10, 0]].concat();
        let seen = read(&unit, &mut None).unwrap();
        assert_eq!(&seen.payload[..], [&[0x0a, 0x0b], HEADER, &[0x32, 2, 0x10, 0]].concat());
        assert_eq!(read(&[0x12, 0], &mut None).unwrap().payload.len(), 0);
        let unsized_last = read(&[0x12, 0, 0x30, 0x10, 0, 9], &mut Some(sequence())).unwrap();
        assert_eq!((unsized_last.key, &unsized_last.payload[..]), (true, &[0x30, 0x10, 0, 9][..]));
    }

    #[test]
    fn lies_are_refused() {
        let mut known = Some(sequence());
        for (bad, at) in [(&[0x32, 9, 0x10][..], 0), (&[0x12, 0, 0x32], 2), (&[0x32, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 0)] {
            assert_eq!(read(bad, &mut known), Err(Av1Error::Truncated { at, len: bad.len() }), "{bad:?}");
        }
        assert_eq!(read(&[0x32, 1, 0x10], &mut None), Err(Av1Error::NoSequence));
        // Sixteen bits for each side, all ones.
        let huge = [&[0x18, 0x3f][..], &[0xff; 10]].concat();
        let unit = [&[0x0a, huge.len() as u8][..], &huge].concat();
        assert!(matches!(read(&unit, &mut known), Err(Av1Error::TooLarge { width: 65_536, .. })));
        assert_eq!(known, None, "what follows belongs to the one that was refused");
    }
}

//! NAL units, which H.264 and H.265 share: behind lengths (ISO/IEC 14496-15) or start codes (Annex B), and access units in
//! the bus's layout made of them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::TrackInfo;

/// Widest and tallest picture that is accepted: 8K. Anything above is refused before a decoder is opened.
pub const SIDE_MAX: u32 = 8_192;

/// Most parameter sets of each kind that are kept per track.
pub(crate) const PARAMETER_SETS_MAX: usize = 32;
/// Most NAL units of an access unit that is taken: far beyond any slicing.
const UNITS_MAX: usize = 4_096;

/// Why NAL units or the parameter sets among them were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NalError {
    /// The record or access unit ends inside a field.
    #[error("parameter sets or picture are truncated at byte {at} of {len}")]
    Truncated {
        /// Offset of the field that does not fit.
        at: usize,
        /// Length of the whole.
        len: usize,
    },
    /// `configurationVersion` is not known.
    #[error("decoder configuration record has version {0}, expected 1")]
    Version(u8),
    /// No SPS present.
    #[error("no sequence parameter set")]
    NoSps,
    /// Too many parameter sets.
    #[error("more than {PARAMETER_SETS_MAX} parameter sets")]
    TooMany,
    /// Too many NAL units in one access unit.
    #[error("more than {UNITS_MAX} NAL units in one access unit")]
    TooManyUnits,
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

/// What a NAL unit is to the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A parameter set: kept with the track, not in its frames.
    Set,
    /// Part of a picture that decoding can begin with.
    Key,
    /// Part of any other frame.
    Frame,
    /// Of no use to a decoder, or not the base layer's.
    Useless,
}

/// The parameter sets of one track, of either codec.
pub trait Sets {
    /// What `nal` is.
    fn role(&self, nal: &[u8]) -> Role;

    /// Keeps a parameter set; whether anything changed.
    fn learn(&mut self, nal: &[u8]) -> bool;

    /// The track these sets describe.
    ///
    /// # Errors
    /// When the SPS is missing, invalid or describes a picture that is too large.
    fn track_info(&self) -> Result<TrackInfo, NalError>;
}

/// The next `n` bytes of `bytes`.
pub(crate) fn take(bytes: &Bytes, at: &mut usize, n: usize) -> Result<Bytes, NalError> {
    let end = at.checked_add(n).filter(|&e| e <= bytes.len()).ok_or(NalError::Truncated { at: *at, len: bytes.len() })?;
    let out = bytes.slice(*at..end);
    *at = end;
    Ok(out)
}

/// The next two bytes of `bytes`, as a number.
pub(crate) fn take_u16(bytes: &Bytes, at: &mut usize) -> Result<usize, NalError> {
    let two = take(bytes, at, 2)?;
    Ok(usize::from(u16::from_be_bytes([two[0], two[1]])))
}

/// Takes `count` NAL units, each behind its length of two bytes.
pub(crate) fn read_sets(record: &Bytes, at: &mut usize, count: usize, into: &mut Vec<Bytes>) -> Result<(), NalError> {
    if count > PARAMETER_SETS_MAX.saturating_sub(into.len()) {
        return Err(NalError::TooMany);
    }
    for _ in 0..count {
        let len = take_u16(record, at)?;
        let set = take(record, at, len)?;
        if !set.is_empty() {
            into.push(set);
        }
    }
    Ok(())
}

/// The first Exp-Golomb number of `bytes` if it is small, else something of it: enough to tell sets of one track apart.
pub(crate) fn first_ue(bytes: &[u8]) -> u32 {
    let word =
        bytes.get(..4).map_or_else(|| u32::from(*bytes.first().unwrap_or(&0x80)) << 24, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let zeros = word.leading_zeros().min(15);
    (word << zeros) >> (31 - zeros)
}

pub(crate) fn short(e: &impl std::fmt::Debug) -> String {
    format!("{e:?}").chars().take(120).collect()
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
    /// Whether decoding can begin with it.
    pub key: bool,
    /// Whether in-band parameter sets changed what was known.
    pub new_sets: bool,
}

impl AccessUnit {
    /// From length-prefixed NAL units (`prefix` of 1 to 4 bytes). The usual case, 4-byte prefixes and nothing to strip,
    /// shares the input.
    ///
    /// # Errors
    /// [`NalError::Truncated`] when a length runs past the end.
    pub fn from_length_prefixed(data: &Bytes, prefix: usize, sets: &mut (impl Sets + ?Sized)) -> Result<Self, NalError> {
        let mut ranges = Vec::with_capacity(8);
        let mut at = 0;
        while at < data.len() {
            let head = data.get(at..at + prefix).ok_or(NalError::Truncated { at, len: data.len() })?;
            let len = head.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
            let start = at + prefix;
            let end = start.checked_add(len).filter(|&e| e <= data.len()).ok_or(NalError::Truncated { at, len: data.len() })?;
            at = end;
            if start == end {
                continue;
            }
            if ranges.len() == UNITS_MAX {
                return Err(NalError::TooManyUnits);
            }
            ranges.push(start..end);
        }
        let nals = || ranges.iter().map(|r| &data[r.clone()]);
        if prefix == 4 && nals().all(|nal| matches!(sets.role(nal), Role::Key | Role::Frame)) {
            let key = nals().any(|nal| sets.role(nal) == Role::Key);
            return Ok(Self { payload: data.clone(), key, new_sets: false });
        }
        Ok(Self::gather(nals(), data.len(), sets))
    }

    /// From an Annex B byte stream.
    pub fn from_annex_b(data: &[u8], sets: &mut (impl Sets + ?Sized)) -> Self {
        Self::gather(annex_b_nals(data), data.len(), sets)
    }

    fn gather<'a>(nals: impl Iterator<Item = &'a [u8]>, size_hint: usize, sets: &mut (impl Sets + ?Sized)) -> Self {
        let mut out = BytesMut::with_capacity(size_hint + 16);
        let (mut key, mut new_sets) = (false, false);
        for nal in nals {
            let role = sets.role(nal);
            match role {
                Role::Set => new_sets |= sets.learn(nal),
                Role::Key | Role::Frame => {
                    key |= role == Role::Key;
                    out.put_u32(nal.len() as u32);
                    out.put_slice(nal);
                }
                Role::Useless => {}
            }
        }
        Self { payload: out.freeze(), key, new_sets }
    }
}

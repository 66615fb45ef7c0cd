//! MPEG-1 and MPEG-2 video (ISO/IEC 11172-2, 13818-2): where pictures begin, and what sequence headers say.
//!
//! Refuses: anything below the picture header.

use std::ops::Range;

use patchbay_media::{Codec, VideoShape};

/// Most pictures that are looked for in one PES packet.
const PICTURES_MAX: usize = 64;

const PICTURE: u8 = 0x00;
const SLICE_FIRST: u8 = 0x01;
const SLICE_LAST: u8 = 0xaf;
const SEQUENCE: u8 = 0xb3;
const EXTENSION: u8 = 0xb5;
const GROUP: u8 = 0xb8;

/// How a picture is coded (table 6-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Without reference to others.
    Intra,
    /// From earlier ones.
    Predicted,
    /// From earlier and later ones, or DC only.
    Other,
}

/// A sequence header with its extensions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sequence {
    /// MPEG-1 unless a sequence extension follows.
    pub(crate) codec: Codec,
    /// What it says.
    pub(crate) shape: VideoShape,
    /// Where it lies, with everything up to the group or picture that follows.
    pub(crate) range: Range<usize>,
}

/// One picture (both fields of it) with the headers before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Picture {
    pub(crate) range: Range<usize>,
    pub(crate) coding: Coding,
    pub(crate) sequence: Option<Sequence>,
}

/// A unit that is being read.
struct Open {
    begin: usize,
    coding: Option<Coding>,
    sequence: Option<Sequence>,
    slices: bool,
    /// Its picture is one field and the other has not come.
    half: bool,
}

/// The pictures in `data`. What lies before the first header is not in any of them.
pub(crate) fn pictures(data: &[u8]) -> Vec<Picture> {
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    for (at, code) in start_codes(data) {
        let begins = matches!(code, PICTURE | SEQUENCE | GROUP);
        if begins && open.as_ref().is_none_or(|unit| unit.slices && !unit.half) {
            close(open.take(), at, &mut found);
            if found.len() == PICTURES_MAX {
                return found;
            }
            open = Some(Open { begin: at, coding: None, sequence: None, slices: false, half: false });
        }
        let Some(unit) = &mut open else { continue };
        if matches!(code, PICTURE | GROUP)
            && let Some(sequence) = unit.sequence.as_mut().filter(|s| s.range.end == data.len())
        {
            sequence.range.end = at;
        }
        let body = &data[at + 4..];
        match code {
            // A second field keeps the coding of the first: an I field may be followed by a P field.
            PICTURE => unit.coding = unit.coding.or_else(|| coding(body)),
            SEQUENCE => unit.sequence = sequence(body, at..data.len()),
            EXTENSION => extension(body, unit),
            SLICE_FIRST..=SLICE_LAST => unit.slices = true,
            _ => {}
        }
    }
    close(open, data.len(), &mut found);
    found
}

fn close(open: Option<Open>, end: usize, found: &mut Vec<Picture>) {
    if let Some(Open { begin, coding: Some(coding), sequence, slices: true, .. }) = open {
        found.push(Picture { range: begin..end, coding, sequence });
    }
}

/// (offset of the prefix, code) of every start code.
fn start_codes(data: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&[a, b, c, code]) = data.get(at..).and_then(|d| d.first_chunk::<4>()) {
            match (a, b, c) {
                (0, 0, 1) => {
                    at += 4;
                    return Some((at - 4, code));
                }
                // No prefix can begin before a byte greater than 1.
                (_, _, 2..) => at += 3,
                _ => at += 1,
            }
        }
        None
    })
}

/// `picture_coding_type`, after ten bits of temporal reference.
fn coding(body: &[u8]) -> Option<Coding> {
    Some(match body.get(1)? >> 3 & 7 {
        1 => Coding::Intra,
        2 => Coding::Predicted,
        3 | 4 => Coding::Other,
        _ => return None,
    })
}

fn sequence(body: &[u8], range: Range<usize>) -> Option<Sequence> {
    let [a, b, c, d] = body.first_chunk::<4>()?.map(u32::from);
    let (width, height) = (a << 4 | b >> 4, (b & 15) << 8 | c);
    let frame_rate = frame_rate(d & 15);
    let shape = VideoShape { width, height, frame_rate, reorder_frames: 0, profile: None };
    Some(Sequence { codec: Codec::Mpeg1, shape, range })
}

/// `frame_rate_code` (table 6-4).
fn frame_rate(code: u32) -> Option<f64> {
    let rates = [24_000.0 / 1_001.0, 24.0, 25.0, 30_000.0 / 1_001.0, 30.0, 50.0, 60_000.0 / 1_001.0, 60.0];
    rates.get((code as usize).checked_sub(1)?).copied()
}

/// Sequence extensions (§6.2.2.3) add to the sequence, picture coding extensions (§6.2.3.1) tell fields from frames.
fn extension(body: &[u8], unit: &mut Open) {
    let Some(bytes) = body.first_chunk::<6>() else { return };
    match (bytes[0] >> 4, &mut unit.sequence) {
        (1, Some(sequence)) => {
            let [_, b, c, _, _, f] = bytes.map(u32::from);
            sequence.codec = Codec::Mpeg2;
            sequence.shape.width |= ((b & 1) << 1 | c >> 7) << 12;
            sequence.shape.height |= (c >> 5 & 3) << 12;
            let (n, d) = (f >> 5 & 3, f & 31);
            sequence.shape.frame_rate = sequence.shape.frame_rate.map(|rate| rate * f64::from(n + 1) / f64::from(d + 1));
        }
        (8, _) => {
            let is_field = bytes[2] & 3 != 3;
            unit.half = is_field && !unit.half;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 640x360, 25 fps.
    const SEQUENCE_HEADER: [u8; 12] = [0, 0, 1, SEQUENCE, 0x28, 0x01, 0x68, 0x13, 0xff, 0xff, 0xe0, 0x18];
    /// Progressive, 4:2:0, no size bits.
    const SEQUENCE_EXTENSION: [u8; 10] = [0, 0, 1, EXTENSION, 0x14, 0x8a, 0x00, 0x01, 0x00, 0x00];
    const GROUP_HEADER: [u8; 8] = [0, 0, 1, GROUP, 0, 8, 0, 0];
    const SLICES: [u8; 12] = [0, 0, 1, 1, 9, 9, 0, 0, 1, 2, 9, 9];

    fn header(coding: u8) -> [u8; 8] {
        [0, 0, 1, PICTURE, 0, coding << 3 | 7, 0xff, 0xf8]
    }

    fn coding_extension(structure: u8) -> [u8; 10] {
        [0, 0, 1, EXTENSION, 0x8f, 0xff, 0xf0 | structure, 0, 0, 0]
    }

    #[test]
    fn a_group_is_cut_into_pictures_and_the_first_keeps_its_headers() {
        let parts: [&[u8]; 8] =
            [&[9, 9], &SEQUENCE_HEADER, &GROUP_HEADER, &header(1), &SLICES, &header(2), &SLICES, &[&header(3)[..], &SLICES].concat()];
        let data = parts.concat();
        let found = pictures(&data);
        let story: Vec<_> = found.iter().map(|p| (p.range.clone(), p.coding)).collect();
        assert_eq!(story, [(2..42, Coding::Intra), (42..62, Coding::Predicted), (62..82, Coding::Other)]);
        let sequence = found[0].sequence.as_ref().unwrap();
        assert_eq!((sequence.codec, sequence.range.clone()), (Codec::Mpeg1, 2..14));
        let shape = sequence.shape;
        assert_eq!((shape.width, shape.height, shape.frame_rate), (640, 360, Some(25.0)));
        assert!(found[1].sequence.is_none());
    }

    #[test]
    fn a_sequence_extension_makes_it_mpeg_2() {
        let data = [&SEQUENCE_HEADER[..], &SEQUENCE_EXTENSION, &header(1), &SLICES].concat();
        let sequence = pictures(&data)[0].sequence.clone().unwrap();
        assert_eq!((sequence.codec, sequence.shape.width, sequence.range), (Codec::Mpeg2, 640, 0..22));
    }

    #[test]
    fn two_fields_are_one_picture() {
        let field = |coding, structure| [&header(coding)[..], &coding_extension(structure), &SLICES].concat();
        let data = [field(1, 1), field(2, 2), field(2, 3), field(2, 3)].concat();
        let found = pictures(&data);
        assert_eq!(found.iter().map(|p| p.range.len()).collect::<Vec<_>>(), [60, 30, 30]);
        assert_eq!(found[0].coding, Coding::Intra);
    }

    #[test]
    fn nothing_is_made_of_headers_without_slices() {
        assert!(pictures(&[&SEQUENCE_HEADER[..], &header(1)].concat()).is_empty());
        assert!(pictures(&SLICES).is_empty() && pictures(&[0, 0, 1]).is_empty());
    }

    #[test]
    fn pictures_are_bounded() {
        let data: Vec<u8> = std::iter::repeat_n([&header(2)[..], &SLICES].concat(), 1_000).flatten().collect();
        assert_eq!(pictures(&data).len(), PICTURES_MAX);
    }
}

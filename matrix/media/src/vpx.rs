//! What the header of a VP8 or VP9 frame says: whether decoding can begin with it, and what its picture is; of VP9 also as
//! a `vpcC` record ("VP Codec ISO Media File Format Binding").
//! Refuses: to look at anything behind the header.

use bytes::Bytes;

use crate::bits::Bits;
use crate::nal::SIDE_MAX;
use crate::{Codec, TrackInfo, VideoShape};

/// The start code of a VP8 key frame (RFC 6386 §9.1).
const VP8_START: [u8; 3] = [0x9d, 0x01, 0x2a];
/// `frame_sync_code` of VP9 (bitstream specification §7.2).
const VP9_SYNC: u32 = 0x49_83_42;
/// `color_space` that stands for RGB.
const VP9_RGB: u32 = 7;

/// Levels of VP9 in a `vpcC` with their largest picture in luma samples, and the longest side of it. What tells those of one
/// picture apart is the rate, which no header has.
const VP9_LEVELS: [(u8, u32, u32); 11] = [
    (10, 36_864, 512),
    (11, 73_728, 768),
    (20, 122_880, 960),
    (21, 245_760, 1_344),
    (30, 552_960, 2_048),
    (31, 983_040, 2_752),
    (40, 2_228_224, 4_160),
    (50, 8_912_896, 8_384),
    (60, 35_651_584, 16_832),
    (61, 71_303_168, 16_832),
    (62, u32::MAX, u32::MAX),
];

/// A frame, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Refers to earlier ones.
    Delta,
    /// Begins anew, with this picture.
    Key(Picture),
}

/// What a key frame says of its picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Samples per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// VP9 only, if a `vpcC` can express it.
    format: Option<Format>,
}

/// How the samples of VP9 are coded, in the numbers of a `vpcC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    profile: u8,
    bit_depth: u8,
    subsampling: u8,
    full_range: bool,
    matrix: u8,
}

impl Header {
    /// Reads it; `None` for what is no frame of `codec`, or one larger than any picture that is taken ([`SIDE_MAX`]).
    pub fn read(codec: Codec, frame: &[u8]) -> Option<Self> {
        let header = match codec {
            Codec::Vp8 => vp8(frame),
            Codec::Vp9 => vp9(frame),
            _ => None,
        }?;
        match header {
            Self::Key(picture) if picture.width.max(picture.height) > SIDE_MAX => None,
            header => Some(header),
        }
    }

    /// The track that begins with this frame; `None` unless it is a key frame.
    pub fn track_info(self, codec: Codec) -> Option<TrackInfo> {
        let Self::Key(picture) = self else { return None };
        let shape = VideoShape { width: picture.width, height: picture.height, ..VideoShape::default() };
        Some(TrackInfo::video(codec, picture.vpcc(), shape))
    }
}

impl Picture {
    /// The `vpcC` record of VP9, version and flags included; empty where there is none.
    fn vpcc(&self) -> Bytes {
        let Some(format) = self.format else { return Bytes::new() };
        let (area, side) = (self.width.saturating_mul(self.height), self.width.max(self.height));
        let level = VP9_LEVELS.iter().find(|(_, area_max, side_max)| area <= *area_max && side <= *side_max).map_or(0, |level| level.0);
        let coding = format.bit_depth << 4 | format.subsampling << 1 | u8::from(format.full_range);
        // Primaries and transfer are not in the stream: 2 says so. No codec initialisation data.
        Bytes::copy_from_slice(&[1, 0, 0, 0, format.profile, level, coding, 2, 2, format.matrix, 0, 0])
    }
}

/// RFC 6386 §9.1.
fn vp8(frame: &[u8]) -> Option<Header> {
    // The lowest bit of the tag is 0 for a key frame; two bits above it are the version, of which four are defined.
    let tag = frame.first_chunk::<3>()?;
    if tag[0] & 1 == 1 {
        return Some(Header::Delta);
    }
    let [_, _, _, a, b, c, w0, w1, h0, h1] = *frame.first_chunk::<10>()?;
    // The upper two bits of each side are a hint for scaling.
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    let (width, height) = (side(w0, w1), side(h0, h1));
    ([a, b, c] == VP8_START && width > 0 && height > 0).then_some(Header::Key(Picture { width, height, format: None }))
}

/// Bitstream specification §6.2, as far as `frame_size`.
fn vp9(frame: &[u8]) -> Option<Header> {
    let mut bits = Bits::new(frame);
    if bits.read(2)? != 2 {
        return None;
    }
    let profile = bits.read(1)? + 2 * bits.read(1)?;
    if profile == 3 && bits.flag()? {
        return None;
    }
    let (shows_existing, is_delta) = (bits.flag()?, bits.flag()?);
    if shows_existing || is_delta {
        return Some(Header::Delta);
    }
    bits.read(2)?; // show_frame, error_resilient_mode
    if bits.read(24)? != VP9_SYNC {
        return None;
    }
    let format = vp9_format(&mut bits, profile as u8)?;
    Some(Header::Key(Picture { width: bits.read(16)? + 1, height: bits.read(16)? + 1, format }))
}

/// `color_config` (§6.2.2). The outer `None` is for what is no VP9, the inner one for 4:4:0, which no `vpcC` can say.
fn vp9_format(bits: &mut Bits<'_>, profile: u8) -> Option<Option<Format>> {
    let bit_depth = match profile {
        0 | 1 => 8,
        _ if bits.flag()? => 12,
        _ => 10,
    };
    let (is_subsampled_freely, space) = (profile % 2 == 1, bits.read(3)?);
    let (full_range, subsampling) = match (space == VP9_RGB, is_subsampled_freely) {
        (true, true) => (true, (false, false)),
        (true, false) => return None,
        (false, true) => (bits.flag()?, (bits.flag()?, bits.flag()?)),
        (false, false) => (bits.flag()?, (true, true)),
    };
    if is_subsampled_freely {
        bits.read(1)?; // reserved
    }
    let subsampling = match subsampling {
        (true, true) => 1,
        (true, false) => 2,
        (false, false) => 3,
        (false, true) => return Some(None),
    };
    // Matrix coefficients as ISO/IEC 23091-4 numbers them; 2 is unknown.
    let matrix = [2, 5, 1, 6, 7, 9, 2, 0][space as usize & 7];
    Some(Some(Format { profile, bit_depth, subsampling, full_range, matrix }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of(codec: Codec, frame: &[u8]) -> Option<(u32, u32)> {
        match Header::read(codec, frame)? {
            Header::Key(picture) => Some((picture.width, picture.height)),
            Header::Delta => None,
        }
    }

    #[test]
    fn key_frames_of_vp8_tell_their_size() {
        let key = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0x68, 0x01];
        assert_eq!(size_of(Codec::Vp8, &key), Some((640, 360)));
        assert_eq!(Header::read(Codec::Vp8, &[0x11, 0x02, 0x00]), Some(Header::Delta));
        for bad in [&key[..9], &[], &[0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x10, 0, 0, 0x9d, 1, 0x2a, 0, 0, 1, 0]] {
            assert_eq!(Header::read(Codec::Vp8, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn key_frames_of_vp9_tell_their_size() {
        // Marker 10, profile 0, no existing frame, key, shown, not resilient; sync; colour space 2, range 0; 639, 359.
        let key = [0b1000_0010, 0x49, 0x83, 0x42, 0b0100_0000, 0b0010_0111, 0b1111_0000, 0b0001_0110, 0b0111_0000];
        assert_eq!(size_of(Codec::Vp9, &key), Some((640, 360)));
        assert_eq!(Header::read(Codec::Vp9, &[0b1000_0110]), Some(Header::Delta));
        assert_eq!(Header::read(Codec::Vp9, &[0b1000_1000]), Some(Header::Delta), "an existing frame is shown");
        for bad in [&key[..6], &[], &[0b0100_0000], &[0b1000_0010, 1, 2, 3, 4, 5, 6, 7, 8]] {
            assert_eq!(Header::read(Codec::Vp9, bad), None, "{bad:?}");
        }
        assert_eq!(Header::read(Codec::H264, &key), None);
        let huge = [0b1000_0010, 0x49, 0x83, 0x42, 0b0100_1111, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Header::read(Codec::Vp9, &huge), None, "65536 pixels wide");
    }

    #[test]
    fn key_frames_of_vp9_tell_their_configuration() {
        let config = |frame: &[u8]| Header::read(Codec::Vp9, frame).unwrap().track_info(Codec::Vp9).unwrap().config;
        // 320x180 of libvpx, described as FFmpeg does in FLV.
        let libvpx = [0x82, 0x49, 0x83, 0x42, 0x00, 0x13, 0xf0, 0x0b, 0x36];
        assert_eq!(config(&libvpx)[..], [1, 0, 0, 0, 0, 11, 0x82, 2, 2, 2, 0, 0]);
        // Profile 2 (0, 1), key, shown; ten bits, BT.2020, full range; 3840x2160.
        let hdr = bits("10 0 1 0 0 10 010010011000001101000010 0 101 1 0000111011111111 0000100001101111");
        assert_eq!(config(&hdr)[..], [1, 0, 0, 0, 2, 50, 0xa3, 2, 2, 9, 0, 0]);
        // Profile 1 (1, 0): 4:2:2, then 4:4:4 in RGB, then 4:4:0.
        let wide = bits("10 1 0 0 0 10 010010011000001101000010 010 0 1 0 0 0000000000111111 0000000000111111");
        assert_eq!(config(&wide)[..], [1, 0, 0, 0, 1, 10, 0x84, 2, 2, 1, 0, 0]);
        let rgb = bits("10 1 0 0 0 10 010010011000001101000010 111 0 0000000000111111 0000000000111111");
        assert_eq!(config(&rgb)[..], [1, 0, 0, 0, 1, 10, 0x87, 2, 2, 0, 0, 0]);
        let tall = bits("10 1 0 0 0 10 010010011000001101000010 010 0 0 1 0 0000000000111111 0000000000111111");
        assert!(config(&tall).is_empty(), "cannot be said");
    }

    fn bits(text: &str) -> Vec<u8> {
        let bits: Vec<u8> = text.bytes().filter(|b| *b != b' ').map(|b| b - b'0').collect();
        bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |sum, (i, bit)| sum | bit << (7 - i))).collect()
    }

    #[test]
    fn only_a_key_frame_describes_its_track() {
        let key = Header::Key(Picture { width: 640, height: 360, format: None });
        let info = key.track_info(Codec::Vp8).unwrap();
        assert_eq!((info.codec, info.video_shape().map(|s| (s.width, s.height))), (Codec::Vp8, Some((640, 360))));
        assert_eq!(Header::Delta.track_info(Codec::Vp8), None);
    }
}

//! What the header of a VP8 or VP9 frame says: whether decoding can begin with it, and how large its picture is.
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

/// A frame, by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Refers to earlier ones.
    Delta,
    /// Begins anew, with a picture of this width and height.
    Key(u32, u32),
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
            Self::Key(width, height) if width.max(height) > SIDE_MAX => None,
            header => Some(header),
        }
    }

    /// The track that begins with this frame; `None` unless it is a key frame.
    pub fn track_info(self, codec: Codec) -> Option<TrackInfo> {
        let Self::Key(width, height) = self else { return None };
        Some(TrackInfo::video(codec, Bytes::new(), VideoShape { width, height, ..VideoShape::default() }))
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
    ([a, b, c] == VP8_START && width > 0 && height > 0).then_some(Header::Key(width, height))
}

/// Bitstream specification §6.2, as far as `frame_size`.
fn vp9(frame: &[u8]) -> Option<Header> {
    let mut bits = Bits::new(frame);
    if bits.read(2)? != 2 {
        return None;
    }
    let profile = bits.read(1)? + 2 * bits.read(1)?;
    if profile == 3 && bits.read(1)? != 0 {
        return None;
    }
    let (shows_existing, is_delta) = (bits.read(1)? == 1, bits.read(1)? == 1);
    if shows_existing || is_delta {
        return Some(Header::Delta);
    }
    bits.read(2)?; // show_frame, error_resilient_mode
    if bits.read(24)? != VP9_SYNC {
        return None;
    }
    if profile >= 2 {
        bits.read(1)?; // ten or twelve bits
    }
    let subsampled = profile == 1 || profile == 3;
    if bits.read(3)? != VP9_RGB {
        bits.read(if subsampled { 4 } else { 1 })?; // range; then subsampling of both sides and a reserved bit
    } else if subsampled {
        bits.read(1)?;
    } else {
        return None;
    }
    Some(Header::Key(bits.read(16)? + 1, bits.read(16)? + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_frames_of_vp8_tell_their_size() {
        let key = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0x68, 0x01];
        assert_eq!(Header::read(Codec::Vp8, &key), Some(Header::Key(640, 360)));
        assert_eq!(Header::read(Codec::Vp8, &[0x11, 0x02, 0x00]), Some(Header::Delta));
        for bad in [&key[..9], &[], &[0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x10, 0, 0, 0x9d, 1, 0x2a, 0, 0, 1, 0]] {
            assert_eq!(Header::read(Codec::Vp8, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn key_frames_of_vp9_tell_their_size() {
        // Marker 10, profile 0, no existing frame, key, shown, not resilient; sync; colour space 2, range 0; 639, 359.
        let key = [0b1000_0010, 0x49, 0x83, 0x42, 0b0100_0000, 0b0010_0111, 0b1111_0000, 0b0001_0110, 0b0111_0000];
        assert_eq!(Header::read(Codec::Vp9, &key), Some(Header::Key(640, 360)));
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
    fn only_a_key_frame_describes_its_track() {
        let info = Header::Key(640, 360).track_info(Codec::Vp8).unwrap();
        assert_eq!((info.codec, info.video_shape().map(|s| (s.width, s.height))), (Codec::Vp8, Some((640, 360))));
        assert_eq!(Header::Delta.track_info(Codec::Vp8), None);
    }
}

//! STREAMINFO of FLAC (RFC 9639 §8.2): reading what a FLAC track is.

use bytes::{BufMut, BytesMut};

use crate::{AudioShape, Codec, TrackInfo};

/// Begins a FLAC file (§6).
const MARKER: &[u8; 4] = b"fLaC";
/// Header of a metadata block: type and length (§8.1).
const BLOCK_HEADER: usize = 4;
/// Bytes of STREAMINFO.
const STREAMINFO: usize = 34;
/// Samples of a block at least.
const BLOCK_MIN: u16 = 16;

/// Why a description of FLAC was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlacError {
    /// It ends before STREAMINFO does.
    #[error("FLAC STREAMINFO is truncated ({0} bytes)")]
    Truncated(usize),
    /// The first metadata block is another one.
    #[error("FLAC begins with metadata block {kind} of {len} bytes, not with STREAMINFO")]
    Block {
        /// Type of the block.
        kind: u8,
        /// Its length.
        len: u32,
    },
    /// Block sizes that no stream has.
    #[error("FLAC has blocks of {0} to {1} samples")]
    Blocks(u16, u16),
    /// It is no sound.
    #[error("FLAC has no sample rate")]
    NoRate,
}

/// The track that a description begins: the start of a file up to its first metadata block (what follows is left out), or the
/// bare STREAMINFO.
///
/// # Errors
/// See [`FlacError`].
pub fn track_info(description: &[u8]) -> Result<TrackInfo, FlacError> {
    let truncated = FlacError::Truncated(description.len());
    let info = match description.strip_prefix(MARKER) {
        Some(block) => {
            let ([head, length @ ..], rest) = block.split_first_chunk::<BLOCK_HEADER>().ok_or(truncated)?;
            let (kind, len) = (head & 0x7f, length.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
            if kind != 0 || len as usize != STREAMINFO {
                return Err(FlacError::Block { kind, len });
            }
            rest
        }
        None => description,
    };
    let info = info.first_chunk::<STREAMINFO>().ok_or(truncated)?;
    let blocks = (u16::from_be_bytes([info[0], info[1]]), u16::from_be_bytes([info[2], info[3]]));
    if blocks.0 < BLOCK_MIN || blocks.1 < blocks.0 {
        return Err(FlacError::Blocks(blocks.0, blocks.1));
    }
    // 20 bits of rate, 3 of channels.
    let sample_rate = u32::from(info[10]) << 12 | u32::from(info[11]) << 4 | u32::from(info[12] >> 4);
    if sample_rate == 0 {
        return Err(FlacError::NoRate);
    }
    let channels = 1 + (info[12] >> 1 & 7);
    let mut config = BytesMut::with_capacity(MARKER.len() + BLOCK_HEADER + STREAMINFO);
    config.put_slice(MARKER);
    // The only block, and so the last.
    config.put_u32(0x8000_0000 | STREAMINFO as u32);
    config.put_slice(info);
    Ok(TrackInfo::audio(Codec::Flac, config.freeze(), AudioShape { sample_rate, channels }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As FFmpeg sends it: blocks of 4608, 44100 Hz, two channels of 16 bits.
    fn bare() -> Vec<u8> {
        let mut info = vec![0x12, 0, 0x12, 0, 0, 0, 0, 0, 0x4a, 0x58, 0x0a, 0xc4, 0x42, 0xf0];
        info.resize(STREAMINFO, 0);
        info
    }

    fn file() -> Vec<u8> {
        [b"fLaC\0\0\0\x22".as_slice(), &bare(), b"\x84\0\0\x02xx"].concat()
    }

    #[test]
    fn both_forms_say_the_same() {
        let info = track_info(&bare()).unwrap();
        assert_eq!(info.audio_shape(), Some(&AudioShape { sample_rate: 44_100, channels: 2 }));
        assert_eq!(info.config[..], [b"fLaC\x80\0\0\x22".as_slice(), &bare()].concat());
        assert_eq!(track_info(&file()), Ok(info.clone()));
        assert_eq!(track_info(&info.config), Ok(info), "what is written is read");
    }

    #[test]
    fn what_is_no_streaminfo_is_named() {
        assert_eq!(track_info(&[]), Err(FlacError::Truncated(0)));
        assert_eq!(track_info(&bare()[..33]), Err(FlacError::Truncated(33)));
        assert_eq!(track_info(b"fLaC\0\0"), Err(FlacError::Truncated(6)));
        assert_eq!(track_info(&file()[..41]), Err(FlacError::Truncated(41)));
        assert_eq!(track_info(b"fLaC\x84\0\0\x22"), Err(FlacError::Block { kind: 4, len: 34 }));
        assert_eq!(track_info(b"fLaC\0\xff\xff\xff"), Err(FlacError::Block { kind: 0, len: 0xff_ffff }));
        let with = |at: usize, byte| {
            let mut info = bare();
            info[at] = byte;
            track_info(&info)
        };
        assert_eq!(with(0, 0x13), Err(FlacError::Blocks(0x1300, 0x1200)));
        assert_eq!(track_info(&[0; STREAMINFO]), Err(FlacError::Blocks(0, 0)));
        let mut silent = bare();
        silent[10..13].copy_from_slice(&[0, 0, 0x02]);
        assert_eq!(track_info(&silent), Err(FlacError::NoRate));
    }
}

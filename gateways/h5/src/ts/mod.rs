//! MPEG transport streams (ISO/IEC 13818-1): bytes in, PES packets out, and back.
//!
//! Owns packets, the two tables and PES. Refuses: I/O, clocks, what is inside a PES packet, more than one program, and more
//! than one video and one audio stream of it.

mod demux;
mod mux;
mod psi;

pub use demux::{Demuxer, Pes};
pub use mux::{Muxer, Unit};

use patchbay_media::Kind;

/// Bytes of a transport packet.
pub const PACKET: usize = 188;
/// First byte of every packet.
const SYNC: u8 = 0x47;
/// Time stamps have 33 bits, at 90 kHz.
pub const STAMP_MASK: u64 = (1 << 33) - 1;
/// Ticks per second of a time stamp.
pub const CLOCK_HZ: u32 = 90_000;

/// What an elementary stream holds (`stream_type`, table 2-34); only what is understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamType {
    /// 0x01: MPEG-1 video.
    Mpeg1Video,
    /// 0x02: MPEG-2 video; FFmpeg says so of MPEG-1 too.
    Mpeg2Video,
    /// 0x03: MPEG-1 audio, any layer.
    Mpeg1Audio,
    /// 0x04: MPEG-2 audio (the lower sample rates), any layer.
    Mpeg2Audio,
    /// 0x0f: AAC in ADTS frames.
    Adts,
    /// 0x1b: H.264 in Annex B form.
    H264,
}

impl StreamType {
    const ALL: [(u8, Self); 6] = [
        (0x01, Self::Mpeg1Video),
        (0x02, Self::Mpeg2Video),
        (0x03, Self::Mpeg1Audio),
        (0x04, Self::Mpeg2Audio),
        (0x0f, Self::Adts),
        (0x1b, Self::H264),
    ];

    /// From the number in a program map table.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == byte).map(|(_, kind)| *kind)
    }

    /// The number in a program map table.
    pub fn byte(self) -> u8 {
        // Every variant is in the list, which the test below proves.
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(byte, _)| *byte)
    }

    /// Video or audio.
    pub fn kind(self) -> Kind {
        match self {
            Self::Mpeg1Video | Self::Mpeg2Video | Self::H264 => Kind::Video,
            Self::Mpeg1Audio | Self::Mpeg2Audio | Self::Adts => Kind::Audio,
        }
    }
}

#[cfg(test)]
mod tests;

//! MPEG-1 audio layer II by libavcodec: fixed frames of 1152 samples, a few milliseconds of delay, little CPU.

use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::{AudioTarget, Codec};

use super::library::{Description, LibraryEncoder};
use crate::audio::AudioEncoder;
use crate::error::CodecError;

/// Samples per frame of layer II (ISO/IEC 11172-3 §2.4.2.1).
const FRAME: usize = 1_152;
/// The filter banks of encoder and decoder together: 512 - 32 + 1.
const LATENCY: usize = 481;
/// Sampling frequencies of MPEG-1 audio.
const SAMPLE_RATES: [u32; 3] = [32_000, 44_100, 48_000];
/// Bitrates that layer II allows for one channel and for two, kbit/s (ISO/IEC 11172-3 §2.4.2.3).
const MONO: &[u32] = &[32, 48, 56, 64, 80, 96, 112, 128, 160, 192];
const STEREO: &[u32] = &[64, 96, 112, 128, 160, 192, 224, 256, 320, 384];

/// The largest legal bitrate that is not above `wanted`, else the smallest.
fn legal_bitrate(wanted: u32, channels: u8) -> u32 {
    let legal = if channels == 1 { MONO } else { STEREO };
    legal.iter().rev().find(|&&k| k * 1_000 <= wanted).unwrap_or(&legal[0]) * 1_000
}

/// Opens an encoder; the rate must be one of MPEG-1's own.
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    if !SAMPLE_RATES.contains(&target.sample_rate) {
        return Err(CodecError::Target(*target));
    }
    let description = Description {
        codec: Codec::Mp2,
        name: "mp2",
        format: Sample::I16(Type::Packed),
        frame: FRAME,
        latency: LATENCY,
        bitrate_bps: legal_bitrate(target.bitrate_bps, target.channels.clamp(1, 2)) as usize,
        options: &[],
        global_header: false,
    };
    Ok(Box::new(LibraryEncoder::open(description, target)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitrates_are_the_legal_ones_for_the_channel_count() {
        let cases =
            [(0, 1, 32), (96_000, 1, 96), (100_000, 1, 96), (384_000, 1, 192), (32_000, 2, 64), (127_999, 2, 112), (u32::MAX, 2, 384)];
        for (wanted, channels, kilobits) in cases {
            assert_eq!(legal_bitrate(wanted, channels), kilobits * 1_000, "{wanted} for {channels}");
            let target = AudioTarget { codec: Codec::Mp2, sample_rate: 44_100, channels, bitrate_bps: wanted };
            assert!(open(&target).is_ok(), "{target:?} does not open");
        }
    }
}

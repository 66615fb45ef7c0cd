//! `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2.1): reading what an AAC track is, writing AAC-LC's two bytes.

use bytes::Bytes;

use crate::{AudioShape, Codec, TrackInfo};

/// `samplingFrequencyIndex` (table 1.18).
const SAMPLE_RATES: [u32; 13] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// Object type 2: AAC-LC.
pub const OBJECT_AAC_LC: u8 = 2;

/// Why an AudioSpecificConfig was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AscError {
    /// It ends before its mandatory fields do.
    #[error("AudioSpecificConfig is truncated ({0} bytes)")]
    Truncated(usize),
    /// Reserved sampling frequency index.
    #[error("AudioSpecificConfig has reserved sampling frequency index {0}")]
    ReservedRate(u8),
    /// A sample rate no decoder takes.
    #[error("AudioSpecificConfig has sample rate {0} Hz")]
    BadRate(u32),
    /// Channel layout in a program config element or reserved.
    #[error("AudioSpecificConfig has unsupported channel configuration {0}")]
    Channels(u8),
}

/// What an AudioSpecificConfig says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// `audioObjectType`: 2 is AAC-LC, 5 SBR, 29 PS, 39 ELD.
    pub object_type: u8,
    /// Core sample rate in Hz.
    pub sample_rate: u32,
    /// Channels of the core.
    pub channels: u8,
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, n: usize) -> Result<u32, AscError> {
        let mut value = 0;
        for _ in 0..n {
            let byte = *self.bytes.get(self.at / 8).ok_or(AscError::Truncated(self.bytes.len()))?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    fn object_type(&mut self) -> Result<u8, AscError> {
        let value = self.take(5)?;
        Ok(if value == 31 { 32 + self.take(6)? as u8 } else { value as u8 })
    }

    fn sample_rate(&mut self) -> Result<u32, AscError> {
        let index = self.take(4)?;
        if index == 15 {
            return self.take(24);
        }
        SAMPLE_RATES.get(index as usize).copied().ok_or(AscError::ReservedRate(index as u8))
    }
}

impl AudioSpecificConfig {
    /// Reads the fields every config has.
    ///
    /// # Errors
    /// See [`AscError`]; nothing outside 7.35–96 kHz or 1–8 channels is accepted.
    pub fn parse(bytes: &[u8]) -> Result<Self, AscError> {
        let mut bits = Bits { bytes, at: 0 };
        let object_type = bits.object_type()?;
        let sample_rate = bits.sample_rate()?;
        let configuration = bits.take(4)? as u8;
        if !(7_350..=96_000).contains(&sample_rate) {
            return Err(AscError::BadRate(sample_rate));
        }
        let channels = match configuration {
            1..=6 => configuration,
            7 => 8,
            other => return Err(AscError::Channels(other)),
        };
        Ok(Self { object_type, sample_rate, channels })
    }

    /// The two bytes of an AAC-LC config (five when the rate is not in the table).
    pub fn to_bytes(&self) -> Bytes {
        let object = u64::from(self.object_type & 31);
        let channels = u64::from(if self.channels == 8 { 7 } else { self.channels });
        match SAMPLE_RATES.iter().position(|&r| r == self.sample_rate) {
            Some(index) => {
                let word = (object << 11 | (index as u64) << 7 | channels << 3) as u16;
                Bytes::copy_from_slice(&word.to_be_bytes())
            }
            None => {
                let word = object << 35 | 15 << 31 | u64::from(self.sample_rate & 0xff_ffff) << 7 | channels << 3;
                Bytes::copy_from_slice(&word.to_be_bytes()[3..])
            }
        }
    }

    /// The track this config describes.
    pub fn track_info(bytes: &Bytes) -> Result<TrackInfo, AscError> {
        let asc = Self::parse(bytes)?;
        Ok(TrackInfo::audio(Codec::Aac, bytes.clone(), AudioShape { sample_rate: asc.sample_rate, channels: asc.channels }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lc_configs_round_trip() {
        for sample_rate in SAMPLE_RATES.into_iter().chain([37_800]) {
            for channels in [1, 2, 6, 8] {
                let asc = AudioSpecificConfig { object_type: OBJECT_AAC_LC, sample_rate, channels };
                assert_eq!(AudioSpecificConfig::parse(&asc.to_bytes()), Ok(asc));
            }
        }
    }

    #[test]
    fn known_bytes() {
        let lc_44100_stereo = AudioSpecificConfig::parse(&[0x12, 0x10]).unwrap();
        assert_eq!(lc_44100_stereo, AudioSpecificConfig { object_type: 2, sample_rate: 44_100, channels: 2 });
        let eld = AudioSpecificConfig::parse(&[0xf8, 0xe6, 0x40, 0x00]).unwrap();
        assert_eq!((eld.object_type, eld.sample_rate, eld.channels), (39, 48_000, 2));
    }

    #[test]
    fn bad_configs_are_refused_by_name() {
        assert_eq!(AudioSpecificConfig::parse(&[0x12]), Err(AscError::Truncated(1)));
        assert_eq!(AudioSpecificConfig::parse(&[0x16, 0x90]), Err(AscError::ReservedRate(13)));
        assert_eq!(AudioSpecificConfig::parse(&[0x12, 0x00]), Err(AscError::Channels(0)));
    }
}

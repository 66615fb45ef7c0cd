//! [`AudioIngest`]: audio tags of one publication.

use bytes::Bytes;
use patchbay_bus::{Publisher, TrackWriter};
use patchbay_media::aac::AudioSpecificConfig;
use patchbay_media::{AudioShape, Codec, Frame, MediaTime, TrackInfo, flac};

use super::{Stamp, Unusable};
use crate::flv::tag::{AudioCodec, AudioPacket, AudioTag, SoundFormat};

/// Longest decoder configuration that is kept, bytes.
const CONFIG_MAX: usize = 1 << 10;
/// Samples of an AAC frame (ISO/IEC 14496-3 §4.5.1.1).
const AAC_SAMPLES: i64 = 1_024;

/// The audio track, from its first header on.
#[derive(Default)]
pub(super) struct AudioIngest {
    writer: Option<TrackWriter>,
    codec: Option<AudioCodec>,
    shape: AudioShape,
    /// Since the last frame.
    lost: u32,
}

impl AudioIngest {
    pub(super) fn take(&mut self, tag: AudioTag, at: Stamp, publisher: &Publisher) -> Result<(), Unusable> {
        match tag.packet {
            AudioPacket::SequenceStart(config) => self.header(tag.codec, &config, publisher),
            AudioPacket::Frame(data) => {
                if data.is_empty() {
                    return Ok(());
                }
                self.describe(tag.codec, tag.sound, &data, publisher)?;
                self.frame(data, at)
            }
            AudioPacket::SequenceEnd | AudioPacket::ChannelConfig(_) => Ok(()),
        }
    }

    /// Notes a lost tag.
    pub(super) fn lost(&mut self) {
        self.lost = self.lost.saturating_add(1);
    }

    pub(super) fn into_writer(self) -> Option<TrackWriter> {
        self.writer
    }

    fn header(&mut self, codec: AudioCodec, config: &Bytes, publisher: &Publisher) -> Result<(), Unusable> {
        match codec {
            AudioCodec::Aac => {
                // The read buffer must not be held for as long as the track lives.
                let config = Bytes::copy_from_slice(config.get(..CONFIG_MAX).unwrap_or(config));
                let info = AudioSpecificConfig::track_info(&config)?;
                self.set_info(codec, info, publisher);
                Ok(())
            }
            AudioCodec::Opus => {
                // OpusHead (RFC 7845 §5.1): the channel count is its tenth byte; decoding is always at 48 kHz.
                let channels = config.get(9).copied().filter(|n| (1..=8).contains(n)).unwrap_or(2);
                let shape = AudioShape { sample_rate: 48_000, channels };
                self.set_info(codec, TrackInfo::audio(Codec::Opus, Bytes::new(), shape), publisher);
                Ok(())
            }
            AudioCodec::Flac => {
                self.set_info(codec, flac::track_info(config)?, publisher);
                Ok(())
            }
            // Their frames say it all.
            AudioCodec::Mp3 | AudioCodec::G711A | AudioCodec::G711U => Ok(()),
            AudioCodec::Ac3 => Err(Unusable::Codec("AC-3")),
            AudioCodec::Eac3 => Err(Unusable::Codec("E-AC-3")),
        }
    }

    /// Makes or updates the track of a codec whose frames describe themselves.
    fn describe(&mut self, codec: AudioCodec, sound: SoundFormat, data: &[u8], publisher: &Publisher) -> Result<(), Unusable> {
        let g711 = |codec| (codec, AudioShape { sample_rate: 8_000, channels: 1 + u8::from(sound.stereo) });
        let (bus_codec, shape) = match codec {
            AudioCodec::Mp3 => (Codec::Mp3, mp3_shape(data).ok_or(Unusable::Mp3)?),
            AudioCodec::G711A => g711(Codec::Pcma),
            AudioCodec::G711U => g711(Codec::Pcmu),
            AudioCodec::Aac | AudioCodec::Opus | AudioCodec::Flac if self.codec == Some(codec) => return Ok(()),
            AudioCodec::Aac | AudioCodec::Opus | AudioCodec::Flac => return Err(Unusable::NoHeader),
            AudioCodec::Ac3 => return Err(Unusable::Codec("AC-3")),
            AudioCodec::Eac3 => return Err(Unusable::Codec("E-AC-3")),
        };
        if self.codec == Some(codec) && self.shape == shape {
            return Ok(());
        }
        self.set_info(codec, TrackInfo::audio(bus_codec, Bytes::new(), shape), publisher);
        Ok(())
    }

    fn set_info(&mut self, codec: AudioCodec, info: TrackInfo, publisher: &Publisher) {
        self.codec = Some(codec);
        self.shape = info.audio_shape().copied().unwrap_or_default();
        match &mut self.writer {
            Some(writer) => writer.set_info(info),
            None => self.writer = Some(publisher.add_track(info)),
        }
    }

    fn frame(&mut self, payload: Bytes, at: Stamp) -> Result<(), Unusable> {
        let Some(writer) = &mut self.writer else { return Err(Unusable::NoHeader) };
        let duration = match self.codec {
            Some(AudioCodec::Aac) => MediaTime::from_ticks(AAC_SAMPLES, self.shape.sample_rate),
            _ => MediaTime::ZERO,
        };
        let loss = std::mem::take(&mut self.lost);
        writer.push(Frame { pts: at.dts, dts: at.dts, duration, key: true, loss, arrival: at.arrival, payload });
        Ok(())
    }
}

/// What the header of an MPEG audio layer III frame says (ISO/IEC 11172-3 §2.4.1.3).
fn mp3_shape(frame: &[u8]) -> Option<AudioShape> {
    let header = u32::from_be_bytes(*frame.first_chunk()?);
    let (sync, version, layer) = (header >> 21, header >> 19 & 3, header >> 17 & 3);
    if sync != 0x7FF || layer != 1 {
        return None;
    }
    let rate = *[44_100, 48_000, 32_000].get((header >> 10 & 3) as usize)?;
    // Version 3 is MPEG-1; 2 halves the rate, 0 (MPEG-2.5) quarters it.
    let sample_rate = match version {
        3 => rate,
        2 => rate / 2,
        0 => rate / 4,
        _ => return None,
    };
    let channels = if header >> 6 & 3 == 3 { 1 } else { 2 };
    Some(AudioShape { sample_rate, channels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mp3_headers_say_rate_and_channels() {
        assert_eq!(mp3_shape(&[0xFF, 0xFB, 0x90, 0x64]), Some(AudioShape { sample_rate: 44_100, channels: 2 }));
        assert_eq!(mp3_shape(&[0xFF, 0xF3, 0x84, 0xC4]), Some(AudioShape { sample_rate: 24_000, channels: 1 }));
        assert_eq!(mp3_shape(&[0xFF, 0xFB, 0x9C, 0x64]), None);
        assert_eq!(mp3_shape(&[0xFF]), None);
    }
}

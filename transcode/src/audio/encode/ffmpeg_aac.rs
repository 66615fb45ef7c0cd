//! AAC-LC by libavcodec's own encoder, for builds without fdk-aac.

use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::aac::{AudioSpecificConfig, OBJECT_AAC_LC};
use patchbay_media::{AudioTarget, Codec};

use super::library::{Description, LibraryEncoder};
use crate::audio::AudioEncoder;
use crate::error::CodecError;

/// Samples per AAC-LC frame.
const FRAME: usize = 1_024;

/// Opens an AAC-LC encoder with the fast coder: a third of the default's CPU.
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    let description = Description {
        codec: Codec::Aac,
        name: "aac",
        format: Sample::F32(Type::Planar),
        frame: FRAME,
        // One frame of MDCT overlap and one held back inside the encoder.
        latency: 2 * FRAME,
        bitrate_bps: target.bitrate_bps as usize,
        options: &[("aac_coder", "fast"), ("threads", "1")],
        global_header: true,
    };
    let mut encoder = LibraryEncoder::open(description, target)?;
    if AudioSpecificConfig::parse(&encoder.config).is_err() {
        let channels = target.channels.clamp(1, 2);
        let config = AudioSpecificConfig { object_type: OBJECT_AAC_LC, sample_rate: target.sample_rate, channels };
        encoder.config = config.to_bytes();
    }
    Ok(Box::new(encoder))
}

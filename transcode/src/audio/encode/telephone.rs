//! The codecs of telephony by libavcodec: G.711 (A-law and µ-law) and G.722, in frames of 20 ms.

use ffmpeg_next::format::{Sample, sample::Type};
use patchbay_media::{AudioTarget, Codec};

use super::library::{Description, LibraryEncoder};
use crate::audio::AudioEncoder;
use crate::error::CodecError;

/// Frames per second: what RTP of telephony carries in a packet (RFC 3551 §4.2).
const FRAMES_PER_SECOND: usize = 50;
/// The filter banks of G.722, encoder and decoder together.
const G722_LATENCY: usize = 22;

/// Opens an encoder; each codec has one rate, and one channel.
pub(crate) fn open(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    let (name, rate, latency) = match target.codec {
        Codec::Pcma => ("pcm_alaw", 8_000, 0),
        Codec::Pcmu => ("pcm_mulaw", 8_000, 0),
        _ => ("g722", 16_000, G722_LATENCY),
    };
    if (target.sample_rate, target.channels) != (rate, 1) {
        return Err(CodecError::Target(*target));
    }
    let description = Description {
        codec: target.codec,
        name,
        format: Sample::I16(Type::Packed),
        frame: rate as usize / FRAMES_PER_SECOND,
        latency,
        bitrate_bps: 0,
        options: &[],
        global_header: false,
    };
    Ok(Box::new(LibraryEncoder::open(description, target)?))
}

//! What a transcode is going to cost, before it runs: cores of this class of machine. The caller corrects it by what
//! the running ones take.
//!
//! Figures are nanoseconds per luma sample, or parts of a core, measured on one thread of a 2.5 GHz core with
//! camera-like pictures (docs/performance.md); other machines differ by one factor for all of them, roughly.

use patchbay_media::{Codec, Target, TrackInfo, VideoShape};

/// Assumed of pictures that are not described yet.
const USUAL: (u32, u32, f64) = (1_280, 720, 30.0);

/// Nanoseconds to decode one luma sample.
fn decode_ns(codec: Codec) -> f64 {
    match codec {
        Codec::Mpeg1 | Codec::Mpeg2 => 1.1,
        Codec::Vp8 => 1.8,
        Codec::H265 | Codec::Av1 => 3.6,
        Codec::Vp9 => 2.6,
        _ => 2.2,
    }
}

/// Nanoseconds to encode one luma sample.
fn encode_ns(codec: Codec) -> f64 {
    match codec {
        Codec::Mpeg1 | Codec::Mpeg2 => 5.5,
        _ => 8.0,
    }
}

/// Nanoseconds per luma sample of the source to bring it to another size; to exactly half costs next to nothing.
const SCALE_NS: f64 = 1.2;
const HALVE_NS: f64 = 0.1;

/// Cores that decoding a sound takes, of any codec: little, and nearly the same.
const AUDIO_DECODE: f64 = 0.0025;

fn audio_encode(codec: Codec) -> f64 {
    match codec {
        Codec::Opus | Codec::Aac => 0.0070,
        Codec::Mp2 | Codec::Mp3 => 0.0022,
        _ => 0.0005,
    }
}

fn pictures(shape: Option<&VideoShape>) -> (u32, u32, f64) {
    let shape = shape.copied().unwrap_or_default();
    let size = if shape.width == 0 || shape.height == 0 { (USUAL.0, USUAL.1) } else { (shape.width, shape.height) };
    (size.0, size.1, shape.frame_rate.filter(|r| (1.0..=240.0).contains(r)).unwrap_or(USUAL.2))
}

fn cores(size: (u32, u32), rate: f64, ns: f64) -> f64 {
    f64::from(size.0) * f64::from(size.1) * rate * ns * 1e-9
}

/// Cores that decoding `source` takes. Video is decoded once per source, whatever the number of targets.
pub fn decode_cores(source: &TrackInfo) -> f64 {
    match source.video_shape() {
        Some(shape) => {
            let (width, height, rate) = pictures(Some(shape));
            cores((width, height), rate, decode_ns(source.codec))
        }
        None => AUDIO_DECODE,
    }
}

/// Cores that making `target` of the decoded `source` takes, scaling included.
pub fn encode_cores(source: &TrackInfo, target: &Target) -> f64 {
    match target {
        Target::Audio(audio) => audio_encode(audio.codec),
        Target::Video(video) => {
            let (width, height, rate) = pictures(source.video_shape());
            let rate = video.frame_rate_max.map_or(rate, |max| rate.min(f64::from(max)));
            let size = video.size.unwrap_or((width, height));
            let scale = match size {
                _ if size == (width, height) => 0.0,
                _ if (2 * size.0, 2 * size.1) == (width, height) => HALVE_NS,
                _ => SCALE_NS,
            };
            cores(size, rate, encode_ns(video.codec)) + cores((width, height), rate, scale)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patchbay_media::{AudioShape, AudioTarget, VideoTarget};

    #[test]
    fn a_step_down_costs_less_and_sound_next_to_nothing() {
        let shape = VideoShape { width: 1_280, height: 720, frame_rate: Some(30.0), ..VideoShape::default() };
        let source = TrackInfo::video(Codec::H264, Default::default(), shape);
        let cost = |size, frame_rate_max| {
            let video = VideoTarget { codec: Codec::Mpeg1, size, frame_rate_max, bitrate_bps: 4_000_000, gop_ms: 2_000 };
            encode_cores(&source, &Target::Video(video))
        };
        let full = cost(None, None);
        assert!((0.1..0.3).contains(&full), "{full}");
        assert!((cost(None, Some(15)) / full - 0.5).abs() < 0.01);
        assert!(cost(Some((640, 360)), None) / full < 0.3);
        assert!((0.04..0.1).contains(&decode_cores(&source)));
        let sound = TrackInfo::audio(Codec::Aac, Default::default(), AudioShape { sample_rate: 44_100, channels: 2 });
        let opus = AudioTarget { codec: Codec::Opus, sample_rate: 48_000, channels: 2, bitrate_bps: 64_000 };
        assert!(encode_cores(&sound, &Target::Audio(opus)) + decode_cores(&sound) < 0.02);
    }
}

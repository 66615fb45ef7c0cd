//! Resolves what a rule wishes and a sink takes into an exact [`VideoTarget`] or [`AudioTarget`].
//!
//! Every figure is fixed here, so that two sinks with the same needs get equal targets and share one encoder.

use patchbay_media::{AudioShape, AudioTarget, Codec, H264Profile, TrackInfo, VideoShape, VideoTarget};

use crate::accept::MPEG1_RATES;
use crate::{AudioAccept, AudioWish, VideoAccept, VideoWish};

const GOP_MS: u32 = 2_000;
/// Bits per second by pixels of a picture, for H.264 at up to 40 frames per second.
const BITRATES: [(u64, u32); 8] = [
    (176 * 144, 150_000),
    (320 * 240, 300_000),
    (640 * 360, 800_000),
    (854 * 480, 1_200_000),
    (1_280 * 720, 2_000_000),
    (1_920 * 1_088, 4_000_000),
    (2_560 * 1_440, 7_000_000),
    (u64::MAX, 12_000_000),
];

/// The encode that makes `shape` what is wished for within what `accept` takes; `None` if no encoder's output would do.
pub(crate) fn video(wish: &VideoWish, shape: &VideoShape, accept: &VideoAccept) -> Option<VideoTarget> {
    let wanted = wish.size_for(shape).unwrap_or((shape.width, shape.height));
    let fitted = accept.size.unwrap_or_else(|| even(accept.side_max.map_or(wanted, |max| fit(wanted, max))));
    // Players of MPEG-1 read the size once: it must not change with the source's.
    let named = fitted != (shape.width, shape.height) || accept.codec == Codec::Mpeg1 && fitted.0 != 0;
    let size = named.then_some(fitted);
    let rate = wish.fps.map(f64::from).or(shape.frame_rate).unwrap_or(30.0);
    let target = VideoTarget {
        codec: accept.codec,
        size,
        frame_rate_max: wish.fps,
        bitrate_bps: wish.bitrate_kbps.map_or_else(|| video_bitrate(accept.codec, fitted, rate), |k| k.saturating_mul(1_000)),
        gop_ms: wish.gop_ms.unwrap_or(GOP_MS),
    };
    let output = output_shape(&target, fitted);
    accept.refuses(&output).is_none().then_some(target)
}

/// What comes out of the encoder. H.264 is constrained baseline, without B-frames; a list of profiles that has Main or
/// High takes it as well, since both contain it.
fn output_shape(target: &VideoTarget, (width, height): (u32, u32)) -> TrackInfo {
    let profile = (target.codec == Codec::H264).then_some(H264Profile { idc: 66, constraints: 0xC0, level: 31 });
    TrackInfo::video(target.codec, Default::default(), VideoShape { width, height, profile, ..VideoShape::default() })
}

/// Encoders of 4:2:0 pictures want even sides. Zero stays zero: unknown.
fn even((width, height): (u32, u32)) -> (u32, u32) {
    let side = |n: u32| if n == 0 { 0 } else { (n & !1).max(2) };
    (side(width), side(height))
}

/// Scales down into a longer and a shorter side, keeping the aspect.
fn fit((width, height): (u32, u32), (a, b): (u32, u32)) -> (u32, u32) {
    let (long_max, short_max) = (u64::from(a.max(b)), u64::from(a.min(b)));
    let (long, short) = (u64::from(width.max(height)), u64::from(width.min(height)));
    if long <= long_max && short <= short_max {
        return (width, height);
    }
    // The side that is over by more decides. Neither side is 0 here, as one of them is over a limit: guard all the same.
    let (num, den) = if long * short_max >= short * long_max { (long_max, long.max(1)) } else { (short_max, short.max(1)) };
    let scale = |side: u32| ((u64::from(side) * num / den) as u32).max(1);
    (scale(width), scale(height))
}

pub(crate) fn video_bitrate(codec: Codec, (width, height): (u32, u32), frame_rate: f64) -> u32 {
    // An unknown size is taken for 720p.
    let pixels = if width == 0 { 1_280 * 720 } else { u64::from(width) * u64::from(height) };
    let base = BITRATES.iter().find(|(max, _)| pixels <= *max).map_or(12_000_000, |(_, bps)| *bps);
    let paced = if frame_rate > 40.0 { base / 2 * 3 } else { base };
    // MPEG-1 needs about twice the bits of H.264 for the same picture.
    if matches!(codec, Codec::Mpeg1 | Codec::Mpeg2) { paced * 2 } else { paced }
}

/// What an encoder of the codec can make: sample rates and most channels.
fn audio_range(codec: Codec) -> Option<(&'static [u32], u8)> {
    Some(match codec {
        Codec::Aac => (&[8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000], 2),
        Codec::Opus => (&[48_000], 2),
        Codec::Mp2 | Codec::Mp3 => (&MPEG1_RATES, 2),
        Codec::Pcma | Codec::Pcmu => (&[8_000], 1),
        Codec::G722 => (&[16_000], 1),
        _ => return None,
    })
}

/// The encode that makes `shape` what is wished for within what `accept` takes; `None` if no encoder's output would do.
pub(crate) fn audio(wish: &AudioWish, shape: &AudioShape, accept: &AudioAccept) -> Option<AudioTarget> {
    let (rates, channels_max) = audio_range(accept.codec)?;
    let wanted = wish.rate.unwrap_or(shape.sample_rate);
    let taken = |rate: &u32| accept.sample_rates.as_ref().is_none_or(|list| list.contains(rate));
    let possible = || rates.iter().copied().filter(taken);
    let sample_rate = possible()
        .find(|r| *r == wanted)
        // A rate nobody has (or none yet): 48 kHz, else the best there is.
        .or_else(|| possible().max())?;
    let asked = wish.channels.and_then(|n| u8::try_from(n).ok()).unwrap_or(shape.channels);
    let asked = if asked == 0 { 2 } else { asked };
    let channels = asked.min(channels_max).min(accept.channels_max.unwrap_or(u8::MAX));
    if channels == 0 {
        return None;
    }
    let bitrate_bps = audio_bitrate(accept.codec, sample_rate, channels, wish.bitrate_kbps);
    Some(AudioTarget { codec: accept.codec, sample_rate, channels, bitrate_bps })
}

fn audio_bitrate(codec: Codec, rate: u32, channels: u8, wished_kbps: Option<u32>) -> u32 {
    let per_channel = u32::from(channels);
    let wished = wished_kbps.map(|k| k.saturating_mul(1_000));
    match codec {
        // G.711 and G.722 have one rate.
        Codec::Pcma | Codec::Pcmu | Codec::G722 => 64_000 * per_channel,
        Codec::Opus => wished.unwrap_or(32_000 * per_channel).min(256_000 * per_channel),
        // ISO/IEC 14496-3 allows 6144 bits per block of 1024 samples and channel; more than 4 per sample is wasted.
        Codec::Aac => wished.map_or((64_000 * per_channel).min(4 * rate * per_channel), |w| w.min(6 * rate * per_channel)),
        // Layers II and III know fixed rates only.
        _ => fixed_rate(wished.unwrap_or(if channels > 1 { 128_000 } else { 64_000 }), channels),
    }
}

/// The highest rate of MPEG-1 audio that is not above `wished`, from those every sample rate and mode has.
fn fixed_rate(wished: u32, channels: u8) -> u32 {
    let rates: &[u32] = if channels > 1 {
        &[64_000, 96_000, 112_000, 128_000, 160_000, 192_000, 224_000, 256_000, 320_000]
    } else {
        &[48_000, 56_000, 64_000, 80_000, 96_000, 112_000, 128_000, 160_000, 192_000]
    };
    rates.iter().rev().copied().find(|r| *r <= wished).unwrap_or(rates[0])
}

//! Any rate and channel count to the target's. Mono and stereo are mapped here (no gain surprises); libswresample
//! changes the rate, and down-mixes layouts with more channels.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use ffmpeg_next::format::{Sample, sample::Type};
use ffmpeg_next::software::resampling;
use ffmpeg_next::{ChannelLayout, Dictionary};

use crate::error::LibraryError;

/// Sample rate and channels.
pub(super) type Format = (u32, u8);

/// A converter for one pair of formats.
pub(super) struct Resampler {
    from: Format,
    to: Format,
    /// Converts `middle.1` channels; absent when the rate stays and no layout is down-mixed.
    swr: Option<resampling::Context>,
    /// Channels into and out of `swr`.
    middle: (u8, u8),
    scratch: Vec<f32>,
    mixed: Vec<f32>,
}

impl Resampler {
    /// Opens a converter.
    pub(super) fn new(from: Format, to: Format) -> Result<Self, LibraryError> {
        let into = if from.1 == 2 && to.1 == 1 { 1 } else { from.1 };
        let out = if into == 1 { 1 } else { to.1 };
        let swr = (from.0 != to.0 || into != out).then(|| open((from.0, into), (to.0, out))).transpose()?;
        Ok(Self { from, to, swr, middle: (into, out), scratch: Vec::new(), mixed: Vec::new() })
    }

    /// The format it takes.
    pub(super) fn from(&self) -> Format {
        self.from
    }

    /// Appends the converted `input` to `out`. Output lags input by the filter, but stays aligned: its n-th sample
    /// is at n / rate.
    pub(super) fn convert(&mut self, input: &[f32], out: &mut Vec<f32>) -> Result<(), LibraryError> {
        let mut input = input;
        if self.middle.0 < self.from.1 {
            self.mixed.clear();
            self.mixed.extend(input.chunks_exact(2).map(|s| (s[0] + s[1]) * 0.5));
            input = &self.mixed;
        }
        let Some(swr) = &mut self.swr else {
            widen(input, self.middle.1, self.to.1, out);
            return Ok(());
        };
        self.scratch.clear();
        run(swr, Some(input), self.middle, (self.from.0, self.to.0), &mut self.scratch)?;
        widen(&self.scratch, self.middle.1, self.to.1, out);
        Ok(())
    }

    /// Appends what the filter still holds.
    pub(super) fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), LibraryError> {
        let Some(swr) = &mut self.swr else { return Ok(()) };
        self.scratch.clear();
        run(swr, None, self.middle, (self.from.0, self.to.0), &mut self.scratch)?;
        widen(&self.scratch, self.middle.1, self.to.1, out);
        Ok(())
    }
}

fn open(from: Format, to: Format) -> Result<resampling::Context, LibraryError> {
    let mut options = Dictionary::new();
    // Down-mixing must not clip: scale so that the loudest sum fits.
    options.set("rematrix_maxval", "1.0");
    let float = Sample::F32(Type::Packed);
    let layout = |n: u8| ChannelLayout::default(i32::from(n));
    Ok(resampling::Context::get_with(float, layout(from.1), from.0, float, layout(to.1), to.0, options)?)
}

fn run(
    swr: &mut resampling::Context,
    input: Option<&[f32]>,
    (into, out): (u8, u8),
    (from, to): (u32, u32),
    result: &mut Vec<f32>,
) -> Result<(), LibraryError> {
    let samples = input.map_or(0, |i| i.len() / usize::from(into));
    // All of the input, what the filter may still hold, and some.
    let room = (samples as u64 * u64::from(to)).div_ceil(u64::from(from.max(1))) as usize + 4_096;
    result.resize(room * usize::from(out), 0.0);
    // SAFETY: packed formats have one plane; `result` has room for `room` samples of `out` channels, `input` holds
    // `samples` samples of `into` channels, and a null input with count 0 asks for the rest, as swr documents.
    let n = unsafe {
        let mut planes_out = [result.as_mut_ptr().cast::<u8>()];
        let mut planes_in = [input.map_or(std::ptr::null(), |i| i.as_ptr().cast::<u8>())];
        let source = if input.is_some() { planes_in.as_mut_ptr() } else { std::ptr::null_mut() };
        ffi::swr_convert(swr.as_mut_ptr(), planes_out.as_mut_ptr(), room as i32, source.cast(), samples as i32)
    };
    if n < 0 {
        result.clear();
        return Err(ffmpeg::Error::from(n).into());
    }
    result.truncate(n as usize * usize::from(out));
    Ok(())
}

/// Appends `input` of `from` channels as `to` channels: mono is copied to both sides.
fn widen(input: &[f32], from: u8, to: u8, out: &mut Vec<f32>) {
    if from == 1 && to == 2 {
        out.extend(input.iter().flat_map(|&x| [x, x]));
    } else {
        out.extend_from_slice(input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(from: Format, to: Format, input: &[f32]) -> Vec<f32> {
        let mut resampler = Resampler::new(from, to).unwrap();
        let mut out = Vec::new();
        for part in input.chunks(usize::from(from.1) * 441) {
            resampler.convert(part, &mut out).unwrap();
        }
        resampler.flush(&mut out).unwrap();
        out
    }

    #[test]
    fn every_input_format_keeps_its_duration() {
        for rate in [7_350, 8_000, 16_000, 44_100, 48_000, 96_000] {
            for channels in 1..=8 {
                let input = vec![0.1; rate as usize * usize::from(channels)];
                for to in [(48_000, 2), (48_000, 1), (44_100, 2)] {
                    let n = convert((rate, channels), to, &input).len() / usize::from(to.1);
                    assert!(n.abs_diff(to.0 as usize) <= 60, "{rate} Hz {channels} ch -> {to:?}: {n}");
                }
            }
        }
    }

    #[test]
    fn mono_and_stereo_keep_their_level_and_surround_does_not_clip() {
        assert_eq!(convert((48_000, 1), (48_000, 2), &[0.5, -0.5]), [0.5, 0.5, -0.5, -0.5]);
        assert_eq!(convert((48_000, 2), (48_000, 1), &[0.5, 0.1]), [0.3]);
        let loud = convert((48_000, 6), (48_000, 2), &vec![1.0; 6 * 4_800]);
        assert!(loud.iter().all(|x| (0.5..=1.001).contains(x)), "{:?}", loud.first());
    }
}

//! Brings pictures to the encoder's size and to 4:2:0: with libswscale, to exactly half with a loop of its own, not
//! at all when nothing is to be done.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling::{Context, Flags};

use super::Picture;
use crate::error::LibraryError;

#[derive(Default)]
pub(super) struct Scaler {
    context: Option<Context>,
}

// SAFETY: an SwsContext has no thread affinity; it must only not be used by two threads at once, which `&mut` rules
// out. ffmpeg-next says the same of its codec and resampling contexts.
unsafe impl Send for Scaler {}

impl Scaler {
    /// `picture` at `size` in 4:2:0; samples of full range stay what they are where `full_range` is allowed.
    pub(super) fn fit(&mut self, picture: Picture, size: (u32, u32), full_range: bool) -> Result<Picture, LibraryError> {
        let source = &picture.frame;
        let target = if full_range && source.format() == Pixel::YUVJ420P { Pixel::YUVJ420P } else { Pixel::YUV420P };
        if source.format() == target && (source.width(), source.height()) == size {
            return Ok(picture);
        }
        // Encoded sizes are even, so chroma halves as exactly as luma does.
        if source.format() == target && (source.width(), source.height()) == (2 * size.0, 2 * size.1) {
            let frame = halve(source);
            return Ok(Picture { frame, ..picture });
        }
        let known = self.context.as_ref().is_some_and(|c| {
            let (i, o) = (c.input(), c.output());
            (i.format, i.width, i.height) == (source.format(), source.width(), source.height())
                && (o.format, o.width, o.height) == (target, size.0, size.1)
        });
        if !known {
            let from = (source.format(), source.width(), source.height());
            self.context = Some(Context::get(from.0, from.1, from.2, target, size.0, size.1, Flags::BILINEAR)?);
        }
        let mut frame = ffmpeg::frame::Video::empty();
        match &mut self.context {
            Some(context) => context.run(source, &mut frame)?,
            None => return Err(LibraryError::Unexpected("no scaler")),
        }
        Ok(Picture { frame, ..picture })
    }
}

/// Both samples of a pair in one word: the compiler makes vectors of that, four times as fast.
fn sum(&pair: &[u8; 2]) -> u16 {
    let both = u16::from_ne_bytes(pair);
    (both & 0xff) + (both >> 8)
}

/// Each sample the mean of four: no filter does better at exactly half, and none is nearly as cheap.
fn halve(source: &ffmpeg::frame::Video) -> ffmpeg::frame::Video {
    let mut half = ffmpeg::frame::Video::new(source.format(), source.width() / 2, source.height() / 2);
    for plane in 0..half.planes() {
        let (width, stride) = (half.plane_width(plane) as usize, half.stride(plane));
        let source_stride = source.stride(plane);
        let rows = source.data(plane).chunks_exact(2 * source_stride);
        for (out, pair) in half.data_mut(plane).chunks_exact_mut(stride).zip(rows) {
            let (upper, lower) = pair.split_at(source_stride);
            for ((out, a), b) in out[..width].iter_mut().zip(upper.as_chunks().0).zip(lower.as_chunks().0) {
                *out = ((sum(a) + sum(b) + 2) / 4) as u8;
            }
        }
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use patchbay_media::MediaTime;

    /// A picture whose samples tell where they are.
    fn ramp(width: u32, height: u32) -> Picture {
        let mut frame = ffmpeg::frame::Video::new(Pixel::YUV420P, width, height);
        for plane in 0..3 {
            let stride = frame.stride(plane);
            let rows = frame.data_mut(plane).chunks_exact_mut(stride);
            rows.enumerate().for_each(|(y, row)| row.iter_mut().enumerate().for_each(|(x, s)| *s = (x + 2 * y + plane) as u8));
        }
        Picture { frame, pts: MediaTime::ZERO, arrival: MediaTime::ZERO }
    }

    #[test]
    fn exactly_half_is_the_mean_of_four_in_every_plane() {
        let half = Scaler::default().fit(ramp(72, 32), (36, 16), true).unwrap().frame;
        assert_eq!((half.width(), half.height()), (36, 16));
        for plane in 0..3 {
            let (width, stride) = (half.plane_width(plane) as usize, half.stride(plane));
            for (y, row) in half.data(plane).chunks_exact(stride).enumerate() {
                for (x, &sample) in row[..width].iter().enumerate() {
                    // Mean of x, x+1 and of 2y, 2y+2: half a step is rounded up.
                    assert_eq!(usize::from(sample), 2 * x + 4 * y + plane + 2, "plane {plane} at {x},{y}");
                }
            }
        }
    }
}

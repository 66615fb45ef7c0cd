//! Brings pictures to the encoder's size and to 4:2:0: with libswscale, to exactly half with a loop of its own, not
//! at all when nothing is to be done. A picture keeps its shape; what that leaves empty is black.

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

/// Bars thinner than this part of the picture are not worth having: sizes are rounded to even ones.
const BAR_MIN: u64 = 50;

/// The largest even size of the shape `(width, height)` within `frame`; `frame` itself if that fits well enough.
fn shaped((width, height): (u32, u32), frame: (u32, u32)) -> (u32, u32) {
    let [w, h, frame_w, frame_h] = [width, height, frame.0, frame.1].map(u64::from);
    let even = |side: u64| ((side + 1) as u32 & !1).max(2);
    let (across, down) = (w * frame_h, h * frame_w);
    if across.abs_diff(down) * BAR_MIN <= across.max(down) {
        return frame;
    }
    if across < down { (even(across / h.max(1)).min(frame.0), frame.1) } else { (frame.0, even(down / w.max(1)).min(frame.1)) }
}

/// `picture` in the middle of a black one.
fn framed(picture: &ffmpeg::frame::Video, size: (u32, u32)) -> ffmpeg::frame::Video {
    let mut out = ffmpeg::frame::Video::new(picture.format(), size.0, size.1);
    out.set_color_range(picture.color_range());
    let black = if picture.format() == Pixel::YUVJ420P { 0 } else { 16 };
    for plane in 0..out.planes() {
        let shift = u32::from(plane > 0);
        // Even, so that luma and chroma stay together.
        let at = |outer: u32, inner: u32| ((((outer - inner) / 2) & !1) >> shift) as usize;
        let (x, y) = (at(size.0, picture.width()), at(size.1, picture.height()));
        let (stride, source_stride, width) = (out.stride(plane), picture.stride(plane), picture.plane_width(plane) as usize);
        out.data_mut(plane).fill(if plane == 0 { black } else { 128 });
        let rows = out.data_mut(plane).chunks_exact_mut(stride).skip(y);
        let source = picture.data(plane).chunks_exact(source_stride).take(picture.plane_height(plane) as usize);
        rows.zip(source).for_each(|(row, from)| row[x..x + width].copy_from_slice(&from[..width]));
    }
    out
}

impl Scaler {
    /// `picture` in its own shape within `size`, and bars around it where it leaves room, in 4:2:0.
    pub(super) fn fit(&mut self, picture: Picture, size: (u32, u32), full_range: bool) -> Result<Picture, LibraryError> {
        let inner = shaped((picture.frame.width(), picture.frame.height()), size);
        let picture = self.scale(picture, inner, full_range)?;
        if inner == size {
            return Ok(picture);
        }
        let mut frame = framed(&picture.frame, size);
        frame.set_kind(picture.frame.kind());
        Ok(Picture { frame, ..picture })
    }

    /// `picture` at `size` in 4:2:0; samples of full range stay what they are where `full_range` is allowed.
    fn scale(&mut self, picture: Picture, size: (u32, u32), full_range: bool) -> Result<Picture, LibraryError> {
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
    fn a_picture_keeps_its_shape_in_the_middle_of_a_black_one() {
        for (source, frame, inner) in [
            ((640, 360), (426, 240), (426, 240)),
            ((426, 240), (640, 360), (640, 360)),
            ((854, 480), (1_280, 720), (1_280, 720)),
            ((641, 361), (640, 360), (640, 360)),
            ((360, 640), (640, 360), (202, 360)),
            ((640, 480), (320, 180), (240, 180)),
            ((1_920, 800), (320, 180), (320, 134)),
            ((2, 4_000), (320, 180), (2, 180)),
        ] {
            assert_eq!(shaped(source, frame), inner, "{source:?} in {frame:?}");
        }
        let upright = Scaler::default().fit(ramp(36, 72), (64, 36), true).unwrap().frame;
        assert_eq!((upright.width(), upright.height()), (64, 36));
        let stride = upright.stride(0);
        let row = &upright.data(0)[10 * stride..][..64];
        // 18 of 64 columns, from column 22 on.
        assert!(row[..22].iter().chain(&row[40..]).all(|s| *s == 16) && row[22..40].iter().all(|s| *s > 20), "{row:?}");
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

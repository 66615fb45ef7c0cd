//! Brings pictures to the encoder's size and to 4:2:0, with libswscale; does nothing when nothing is to be done.

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
    /// `picture` at `size`, in a format the encoder takes.
    pub(super) fn fit(&mut self, picture: Picture, size: (u32, u32)) -> Result<Picture, LibraryError> {
        let source = &picture.frame;
        let planar = matches!(source.format(), Pixel::YUV420P | Pixel::YUVJ420P);
        if planar && (source.width(), source.height()) == size {
            return Ok(picture);
        }
        let target = if source.format() == Pixel::YUVJ420P { Pixel::YUVJ420P } else { Pixel::YUV420P };
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

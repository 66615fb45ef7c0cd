//! Pictures: the two traits every video codec implements, and the pictures that pass between them.

pub(crate) mod decode;
mod decoding;
pub(crate) mod encode_h264;
pub(crate) mod encode_mpeg1;
pub(crate) mod pipeline;
mod scale;
pub(crate) mod share;

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::format::Pixel;
use patchbay_media::{Frame, MediaTime, TrackInfo};

use crate::error::CodecError;

/// A decoded picture in presentation order.
pub(crate) struct Picture {
    pub(crate) frame: ffmpeg::frame::Video,
    pub(crate) pts: MediaTime,
    /// When the packet it came in reached patchbay.
    pub(crate) arrival: MediaTime,
}

impl Picture {
    /// The same samples for another reader; `None` without memory.
    fn share(&self) -> Option<Self> {
        let mut frame = ffmpeg::frame::Video::empty();
        // SAFETY: both frames are live and the new one holds nothing yet. The samples are shared by an atomic count
        // and written by nobody: encoders and scaler only read pictures.
        let rc = unsafe { ffmpeg::ffi::av_frame_ref(frame.as_mut_ptr(), self.frame.as_ptr()) };
        (rc >= 0).then_some(Self { frame, ..*self })
    }
}

/// What an encoder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Form {
    format: Pixel,
    width: u32,
    height: u32,
}

impl Form {
    fn of(picture: &Picture) -> Self {
        Self { format: picture.frame.format(), width: picture.frame.width(), height: picture.frame.height() }
    }
}

/// Into how many slices pictures are cut so that each thread has at most `samples_per_thread` luma samples a second.
fn slice_threads(form: Form, frame_rate: f64, samples_per_thread: f64) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let samples_per_second = f64::from(form.width) * f64::from(form.height) * frame_rate;
    ((samples_per_second / samples_per_thread).ceil() as usize).clamp(1, cores.min(8))
}

/// Packets to pictures.
pub(crate) trait VideoDecoder: Send {
    /// Takes one packet; afterwards [`Self::receive`] must be called until it has nothing more.
    ///
    /// # Errors
    /// [`CodecError::Packet`] when only this packet is bad.
    fn send(&mut self, frame: &Frame) -> Result<(), CodecError>;

    /// The next picture, if there is one now.
    fn receive(&mut self) -> Result<Option<Picture>, CodecError>;

    /// No packet follows: the rest can be received.
    fn drain(&mut self);

    /// While `on`, pictures that no other needs may be left out: nobody is going to see them.
    fn hurry(&mut self, on: bool);
}

/// One coded picture.
pub(crate) struct Encoded {
    /// In the bus's layout.
    pub(crate) payload: Bytes,
    pub(crate) key: bool,
}

/// Pictures to packets, without delay and in the order given.
pub(crate) trait VideoEncoder: Send {
    /// Encodes a picture of the size and format it was opened for, as a key picture if `key`.
    fn encode(&mut self, picture: &mut Picture, key: bool) -> Result<Option<Encoded>, CodecError>;

    /// The track that comes out.
    fn track_info(&self) -> &TrackInfo;

    /// Whether it was opened for pictures like this one.
    fn fits(&self, picture: &Picture) -> bool;
}

//! [`Frame`]: one access unit or one codec frame, shared and never copied.

use bytes::Bytes;

use crate::MediaTime;

/// One access unit (video) or one codec frame (audio). Cloning shares the payload.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When to present it, bus time.
    pub pts: MediaTime,
    /// When to decode it, bus time; never decreases within a track.
    pub dts: MediaTime,
    /// How long it lasts; zero when the source does not say.
    pub duration: MediaTime,
    /// Whether decoding can begin here. Every audio frame is a key frame.
    pub key: bool,
    /// Frames known to be missing just before this one (lost on the wire or dropped).
    pub loss: u32,
    /// When its last byte reached patchbay, bus time: the origin of every delay that is reported.
    pub arrival: MediaTime,
    /// The coded bytes in the layout of the crate's table.
    pub payload: Bytes,
}

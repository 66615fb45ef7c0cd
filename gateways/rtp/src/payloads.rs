//! [`Payloads`]: the RTP payloads of one frame in one allocation.

use bytes::Bytes;

/// The RTP payloads of one frame, in order; the marker bit belongs to the last one. Cloning shares the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads {
    bytes: Bytes,
    /// Where each payload ends in `bytes`.
    ends: Vec<usize>,
}

impl Payloads {
    /// A frame that is its own payload: Opus (RFC 7587 §4.2), G.711, G.722.
    pub fn whole(frame: Bytes) -> Self {
        let ends = vec![frame.len()];
        Self { bytes: frame, ends }
    }

    pub(crate) fn new(bytes: Bytes, ends: Vec<usize>) -> Self {
        debug_assert!(ends.last().is_none_or(|&e| e == bytes.len()));
        Self { bytes, ends }
    }

    /// How many packets the frame takes.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all payloads together.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The payloads, sharing the frame's allocation.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Bytes> + '_ {
        self.ends.iter().enumerate().map(|(i, &end)| {
            let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
            self.bytes.slice(start..end)
        })
    }
}

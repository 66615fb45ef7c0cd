//! The default matrix, as data: which symbol stands where.

use std::fmt;

use patchbay_media::Codec;

use crate::EndpointKind::{self, Cdn, H5, Miniprogram, Mix, Rtmp, Sip, Udp, Webrtc};
use crate::{AudioWish, Policy, VideoWish};

/// What the matrix says of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// `=`
    Pass,
    /// `A`
    Audio,
    /// `V`
    Video,
    /// `?`
    Decide,
}

use Symbol::{Audio as A, Decide as D, Pass as P, Video as V};

impl Symbol {
    /// Every symbol.
    pub const ALL: [Self; 4] = [P, A, V, D];

    /// As it is printed.
    pub const fn sign(self) -> char {
        match self {
            P => '=',
            A => 'A',
            V => 'V',
            D => '?',
        }
    }

    /// One line for documents.
    pub const fn about(self) -> &'static str {
        match self {
            P => "video and audio pass through",
            A => "video passes through, audio is transcoded to the first codec the sink names (Opus or AAC)",
            V => "video is transcoded (H.264 to MPEG-1 or back), and the audio that goes with it",
            D => "decided from what the source really carries and the sink really takes",
        }
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sign())
    }
}

/// Rows in the order of [`EndpointKind::SOURCES`], columns in that of [`EndpointKind::SINKS`].
const TABLE: [(EndpointKind, [Symbol; 8]); 8] = [
    //            webrtc h5 mini rtmp udp cdn sip file
    (Webrtc, [P, V, A, A, D, A, D, P]),
    (H5, [V, P, V, V, V, V, V, P]),
    (Miniprogram, [A, V, P, P, D, P, D, P]),
    (Rtmp, [A, V, P, P, D, P, D, P]),
    (Udp, [D, V, D, D, P, D, D, P]),
    (Cdn, [A, V, P, P, D, P, D, P]),
    // G.711 phones and Opus room systems are both SIP: only the call itself can say what has to be done.
    (Sip, [D, V, D, D, D, D, P, P]),
    // A mix is made as WebRTC rooms want it.
    (Mix, [P, V, A, A, D, A, D, P]),
];

/// The symbol of a pair; a pair that is not in the matrix is decided by what both can do.
pub fn symbol(from: EndpointKind, to: EndpointKind) -> Symbol {
    let row = TABLE.iter().find(|(kind, _)| *kind == from);
    let column = EndpointKind::SINKS.iter().position(|kind| *kind == to);
    row.zip(column).map_or(D, |((_, cells), column)| cells[column])
}

/// The policies that the symbol of a pair stands for.
pub(crate) fn policies(from: EndpointKind, to: EndpointKind) -> (Policy<VideoWish>, Policy<AudioWish>) {
    let (video, audio) = (VideoWish::default(), AudioWish::default());
    match symbol(from, to) {
        P => (Policy::Pass, Policy::Pass),
        A => (Policy::Pass, Policy::Transcode(audio)),
        // The native protocol can carry MPEG-1, but what its clients are to get is H.264 with Opus.
        V if (from, to) == (H5, Udp) => (
            Policy::Transcode(VideoWish { codec: Some(Codec::H264), ..video }),
            Policy::Transcode(AudioWish { codec: Some(Codec::Opus), ..audio }),
        ),
        V => (Policy::Transcode(video), Policy::Transcode(audio)),
        D => (Policy::Auto, Policy::Auto),
    }
}

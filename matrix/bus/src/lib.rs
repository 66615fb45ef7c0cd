//! The frame bus: streams made of tracks, tracks made of groups of frames, and the hand-off from one publisher
//! to many readers.
//!
//! Owns: the bounded window of each track, late joining, lag policy, merged keyframe requests, and the
//! re-pointing of a live subscription. Refuses: to know protocols or codecs' internals, to spawn, to do I/O, to
//! make a publisher wait.
//!
//! A *group* begins with a key frame and decodes from its first frame. In an audio track every frame is a group.

mod clock;
mod feed;
mod keyframe;
mod name;
mod registry;
mod ring;
mod signal;
mod subscription;
mod sync;
mod track;

pub use clock::now;
pub use feed::{Feed, FeedReader, FeedValue, Point};
pub use keyframe::KeyframeGate;
pub use name::{BadName, StreamName};
pub use registry::{AlreadyLive, Bus, Change, Observer, Publisher, Stream};
pub use signal::Signal;
pub use subscription::{Event, Subscription};
pub use track::{EndReason, Item, Lag, Limits, Reader, Start, Track, TrackUid, TrackWriter};

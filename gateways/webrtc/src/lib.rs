//! WebRTC over WHIP (RFC 9725) and WHEP: browsers publish onto the bus and play from it, all on one UDP port, or on one TCP
//! port where UDP does not get through.
//!
//! Owns: the sockets and their workers, ICE-lite, DTLS-SRTP and RTCP sessions (by str0m), offer inspection, the
//! HTTP signalling, and the fan-out of a track to its viewers. Refuses: to transcode, to authorise (the hub does),
//! to name streams.
//!
//! # Shape
//! `signalling` turns an offer into a session and hands it to one `worker`, which owns it from then on: no lock is
//! taken per packet. A worker reads every bus track once (`lane`), packetises each frame once, and gives the
//! packets to its `viewer`s; `peer` is the only file that drives str0m.

mod answer;
mod clock;
mod config;
mod directory;
#[doc(hidden)]
pub mod fuzz_entry;
mod gateway;
mod ice_servers;
mod identity;
mod ingest;
mod interfaces;
mod lane;
mod pace;
mod peer;
mod queue;
mod repeat;
mod resource;
mod sdp;
mod sender;
mod session;
mod signalling;
mod smoother;
mod socket;
mod stun;
mod stun_server;
mod tcp;
mod viewer;
mod worker;

pub use config::Config;
pub use gateway::{BindError, Gateway};
pub use ice_servers::IceServer;

//! What the benches share: the server as a process of its own, its figures, and clients that cost next to nothing.
#![allow(dead_code, reason = "no bench uses all of it")]

pub mod hub;
pub mod process;
pub mod rtmp;
pub mod webrtc;

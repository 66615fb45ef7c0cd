//! The RTP floor that WebRTC, SIP and native UDP stand on: payload formats.
//!
//! Owns: turning frames in the bus's layout into RTP payloads, once per frame however many peers get them.
//! Refuses: sockets, SRTP, sequence numbers, timestamps (they differ per peer).

#[doc(hidden)]
pub mod fuzz_entry;
pub mod h264;
pub mod opus;
mod payloads;

pub use payloads::Payloads;

/// Largest RTP payload that is made. With header, extensions and SRTP tag a packet stays below 1,232 bytes of UDP
/// payload, which fits the smallest MTU of IPv6 (RFC 8200 §5) and every tunnel seen in practice.
pub const PAYLOAD_MAX: usize = 1_180;

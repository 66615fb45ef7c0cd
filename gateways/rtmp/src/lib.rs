//! RTMP and HTTP-FLV gateway.
//!
//! - [`proto`] is the protocol core: handshake, chunk stream, AMF0, typed messages, and the two
//!   session state machines. It does no I/O and reads no clock.
//! - [`flv`] reads and writes FLV tag bodies (which RTMP audio and video messages are) and frames
//!   them into an FLV byte stream.
//!
//! What it refuses: RTMPE, RTMPT, AMF3 values (AMF3 *command messages* that carry AMF0 are fine),
//! shared objects, and multitrack enhanced RTMP.

pub mod flv;
#[doc(hidden)]
pub mod fuzz_entry;
pub mod proto;

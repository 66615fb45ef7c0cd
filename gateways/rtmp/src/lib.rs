//! RTMP and HTTP-FLV gateway.
//!
//! - [`proto`] is the protocol core: handshake, chunk stream, AMF0, typed messages, and the two
//!   session state machines. It does no I/O and reads no clock.
//! - [`flv`] reads and writes FLV tag bodies (which RTMP audio and video messages are) and frames
//!   them into an FLV byte stream.
//! - `ingest` turns a publisher's tags into frames on the bus, `fanout` turns frames into bytes that
//!   all viewers of the same tracks share.
//! - [`Gateway`] binds the ports, RTMP and RTMPS; `connection` serves RTMP peers, `http_flv` HTTP and WebSocket viewers.
//! - [`push`] sends streams to other servers, [`pull`] fetches them there; what both do alike is in `outgoing`.
//!
//! What it refuses: RTMPE, RTMPT, AMF3 values (AMF3 *command messages* that carry AMF0 are fine),
//! shared objects, and of several tracks in enhanced RTMP all but the default one.

mod accept;
mod config;
mod connection;
mod fanout;
pub mod flv;
#[doc(hidden)]
pub mod fuzz_entry;
mod gateway;
mod http_flv;
mod ingest;
mod naming;
mod outgoing;
pub mod proto;
pub mod pull;
pub mod push;

mod socket;
mod wire;

pub use config::Config;
pub use gateway::Gateway;

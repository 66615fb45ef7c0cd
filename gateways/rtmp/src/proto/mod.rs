//! The RTMP wire protocol without sockets or clocks.
//!
//! Bytes go in, events and bytes come out; whoever owns the socket decides when. Everything here
//! treats its input as hostile: each parser has limits and answers with a typed error.

pub mod amf0;
pub mod chunk;
pub mod client;
mod error;
pub mod fourcc;
pub mod handshake;
mod link;
pub mod message;
pub mod server;
mod server_event;
pub mod url;

pub use error::Error;

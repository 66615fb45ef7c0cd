//! H5 gateway: any browser watches with stock jsmpeg, and anything that writes MPEG transport streams publishes.
//!
//! - [`ts`] reads and writes transport streams. It does no I/O and reads no clock.
//! - `ingest` turns a publisher's transport stream into frames on the bus.
//! - `fanout` turns MPEG-1 video and MP2 audio into a transport stream that all viewers of the same tracks share.
//! - [`Gateway`] is what the hub sees; `http` has its routes, `play` and `publish` serve one session each.
//!
//! What it refuses: to serve viewers over anything but WebSocket, H.264 towards viewers, and a second programme.

mod config;
mod fanout;
#[doc(hidden)]
pub mod fuzz_entry;
mod gateway;
mod http;
mod ingest;
mod naming;
mod pace;
mod play;
mod publish;
pub mod ts;

pub use config::Config;
pub use gateway::Gateway;

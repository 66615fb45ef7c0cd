//! Connections that patchbay opens itself: to servers it pushes to or pulls from.
//!
//! - [`address`]: which addresses belong to the public Internet;
//! - [`policy`]: which hosts may be dialled, and the dialling, to the very address that was checked;
//! - [`tls`]: what makes a TLS connection out of one.
//!
//! Refuses: protocols. It knows hosts and ports, and hands out sockets.

pub mod address;
pub mod policy;
pub mod tls;

pub use policy::{Config, DialError, Policy};

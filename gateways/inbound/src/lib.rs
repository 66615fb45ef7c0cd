//! Connections that others open: TCP ports, with and without TLS, and the certificate they show.
//!
//! - [`port`]: one port;
//! - [`ports`]: a plain port and perhaps one for TLS, as one source of connections;
//! - [`certificate`]: a chain and its key, read again when the files change.
//!
//! Refuses: protocols, and handshakes. It hands out sockets, and what to do TLS with.

pub mod certificate;
pub mod port;
pub mod ports;

pub use certificate::Certificate;
pub use ports::{Accepted, BindError, Listen, Ports, Tls};

//! The gateway in process over loopback, with str0m as the other peer.

mod hostile;
mod media;
mod signalling;
mod support;
mod tcp;

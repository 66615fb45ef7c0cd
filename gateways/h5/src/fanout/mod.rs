//! Fan-out: tracks are made into a transport stream once, and every viewer sends the same bytes.
//!
//! - [`mux`]: one task per pair of tracks, filling a ring of batches.
//! - [`ring`]: that ring, and the cursors of viewers into it.
//! - [`viewer`]: one viewer's place: follows its feed from mux to mux and says what to send next.
//!
//! Refuses: to wait for a viewer.

mod mux;
mod ring;
mod viewer;

pub(crate) use mux::Muxes;
pub(crate) use viewer::{Ready, Viewer};

#[cfg(test)]
mod tests;

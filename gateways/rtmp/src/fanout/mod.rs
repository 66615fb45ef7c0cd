//! Fan-out: tracks are serialised once per wire form, and every viewer sends the same bytes.
//!
//! - [`mux`]: one task per pair of tracks and wire form, filling a ring of batches.
//! - [`ring`]: that ring, and the cursors of viewers into it.
//! - [`lane`]: the sockets of viewers that keep up, which the mux writes to itself.
//! - [`viewer`]: one viewer's place: follows its feed from mux to mux and says what to send next.
//!
//! Refuses: to wait for a viewer.

mod lane;
mod mux;
mod ring;
mod viewer;

pub(crate) use mux::{Form, Muxes};
pub(crate) use viewer::{Ready, Viewer, lonely_and_young};

#[cfg(test)]
mod tests;

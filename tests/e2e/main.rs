//! End-to-end: patchbay as users run it, between real clients and servers (tests/clients/README.md).
//!
//! Tests that need a peer take turns; a failing one prints patchbay's log.

mod changing;
mod socket;
mod support;

mod auth;
mod budget;
mod codecs;
mod demo;
mod h5;
mod half_open;
mod hostile;
mod https;
mod impaired;
mod interop;
mod ledger;
mod miniprogram;
mod pages;
mod pulls;
mod refusals;
mod reload;
mod replan;
mod rtmp;
mod rules;
mod secrets;
mod slow;
mod sources;
mod timestamps;
mod whep;
mod whip;
mod without_udp;

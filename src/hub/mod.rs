//! The hub behind the gateways: who publishes and plays what, by which plan, through which renditions.
//!
//! Owns: the ledger (every live session and pair), the switchboard (plan → pass or rendition → feed), stream
//! grace. Refuses: protocol details, codec work, any await while the ledger is locked.

mod ledger;
mod renditions;
mod routes;
mod switchboard;
pub mod view;

pub use routes::{Route, Routes};
pub use switchboard::{HubHandle, Settings, Switchboard};

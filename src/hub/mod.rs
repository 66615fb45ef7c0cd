//! The hub behind the gateways: who publishes and plays what, by which plan, through which renditions.
//!
//! Owns: the ledger (every live session and pair), the switchboard (plan → pass or rendition → feed), stream
//! grace. Refuses: protocol details, codec work, any await while the ledger is locked.

mod budget;
mod candidate;
mod layers;
mod ledger;
mod planning;
mod refusals;
mod renditions;
mod routes;
mod sessions;
mod source;
mod switchboard;
pub mod view;

pub use budget::LoadView;
pub use candidate::RulesPlan;
pub use refusals::RefusalCount;
pub use routes::{Route, Routes, SecondPublisher};
pub use switchboard::{HubHandle, Settings, Switchboard};

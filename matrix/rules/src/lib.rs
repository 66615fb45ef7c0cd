//! The rule table and the planner: for every source and sink, what happens to each track, and why.
//!
//! Owns: endpoint kinds ([`EndpointKind`]), what a sink takes ([`Sink`]), rules and the default matrix ([`RuleTable`]),
//! and [`plan`], which is pure and total: every input gets a verdict with a reason, nothing is ever passed that the sink
//! refuses, and every target it names is one the sink takes. Refuses: I/O, the bus, codec libraries, state.

mod accept;
mod explain;
mod glob;
mod kinds;
mod ladder;
mod plan;
mod render;
mod rule;
mod table;
mod target;

pub use accept::{AudioAccept, Refuses, Sink, VideoAccept};
pub use explain::{Explained, SpecError, explain, parse_track, typical_tracks};
pub use glob::{BadPattern, Pattern};
pub use kinds::{EndpointKind, UnknownKind};
pub use ladder::{Ladder, Step};
pub use plan::{Abilities, Action, Bounds, CodecSet, Plan, ReasonCode, RuleRef, RuleTable, Source, Verdict, plan};
pub use render::{docs_page, markdown_table, measured_section, text_table, with_measured_section};
pub use rule::{AudioWish, Policy, Rule, Size, VideoWish};
pub use table::{Symbol, symbol};

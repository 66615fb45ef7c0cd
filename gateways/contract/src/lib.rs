//! The seam between gateways and the hub: what a gateway may ask for, and what it is asked to do.
//!
//! Owns: [`Hub`], [`Credentials`], [`Publication`], [`Leg`], [`Refusal`], [`Gateway`], [`HalfOpen`], [`Secret`]. Refuses: to know
//! any one protocol, to do I/O, to decide anything.

mod credentials;
#[doc(hidden)]
pub mod fuzz_entry;
mod gateway;
mod half_open;
mod hub;
mod refusal;
mod secret;
mod session;

pub use credentials::Credentials;
pub use gateway::{Claim, Gateway, GatewayFuture, Transport};
pub use half_open::{HalfOpen, HalfOpenPlace, network};
pub use hub::{Answer, Caller, Hub, Place, PlayRequest, PublishRequest};
pub use refusal::{Code, Refusal};
pub use secret::{BadSecret, Secret};
pub use session::{Cause, Closer, Counters, LAYER_SILENT_MAX, Leg, Publication, SessionId, Side};

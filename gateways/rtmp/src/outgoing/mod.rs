//! Connections that we open to other servers, to push to them or to pull from them: what both do alike.
//!
//! - [`target`]: which server, and how;
//! - [`provider`]: addresses signed as services want them;
//! - [`peer`]: one connection, up to the server's yes, and why one fails;
//! - [`pauses`]: how long to wait after that;
//! - [`status`]: what others see of it.
//!
//! Refuses: to follow a server to a host that the policy does not allow, and to show a stream key to anybody but the server.

mod pauses;
mod peer;
mod provider;
mod status;
mod target;

pub(crate) use pauses::{Next, Pauses, after, rest};
pub(crate) use peer::{Failure, Peer};
pub use provider::{Provider, Signer};
pub(crate) use status::{Board, Task};
pub use status::{State, Status};
pub use target::{Destination, Target};

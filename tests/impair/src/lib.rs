//! A bad network in user space: a proxy for UDP and TCP that loses, delays, reorders, doubles and throttles by a seed.
//!
//! Owns: [`Link`], the pure model of one direction of one client's path, and the sockets around it. Refuses: to look into
//! what it carries, and to judge what a bad network does to it.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use patchbay_impair::{Profile, Proxy, Setting};
//! let bad: Profile = "loss=5 delay=40 jitter=20".parse().unwrap();
//! let proxy = Proxy::udp("127.0.0.1:0".parse().unwrap(), "127.0.0.1:8000".parse().unwrap(), Setting::both(bad), 1).await?;
//! println!("send to {} and you reach port 8000", proxy.addr());
//! proxy.set(Setting::both(Profile::default()));
//! println!("{:?}", proxy.stats().up);
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod link;
mod profile;
mod proxy;
mod schedule;
mod stats;
mod tcp;
mod udp;

pub use link::{Fate, Link};
pub use profile::{BadProfile, Profile};
pub use proxy::{Proxy, Setting};
pub use schedule::{Action, Schedule};
pub use stats::{DirectionStats, Stats};

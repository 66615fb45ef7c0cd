//! [`Config`]: the `[h5]` section.
//!
//! Owns the keys and their bounds. Refuses: to know what is done with them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Playing with jsmpeg over WebSocket; publishing MPEG transport streams over HTTP and WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most publishers and viewers at a time; further ones are refused as `too_many`.
    #[schemars(range(min = 1, max = 100_000))]
    pub sessions_max: u32,
    /// How long a publisher may stay silent, seconds.
    #[schemars(range(min = 1, max = 600))]
    pub idle_timeout_s: u32,
    /// How long sound may wait to leave in one message with what follows, milliseconds. A picture leaves at once.
    #[schemars(range(min = 0, max = 250))]
    pub coalesce_ms: u32,
    /// A viewer for whom data has waited longer than this goes on with the newest group of pictures, milliseconds.
    #[schemars(range(min = 100, max = 10_000))]
    pub lag_max_ms: u32,
    /// How much media may be on its way to a viewer beyond the round trip, milliseconds. Bounds what waits in sockets and
    /// proxies, where it could not be skipped.
    #[schemars(range(min = 50, max = 10_000))]
    pub in_flight_max_ms: u32,
    /// A viewer that takes nothing for this long is disconnected, seconds.
    #[schemars(range(min = 1, max = 600))]
    pub slow_cut_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { sessions_max: 8_192, idle_timeout_s: 15, coalesce_ms: 20, lag_max_ms: 400, in_flight_max_ms: 200, slow_cut_s: 10 }
    }
}

impl Config {
    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s.into())
    }

    pub(crate) fn coalesce(&self) -> Duration {
        Duration::from_millis(self.coalesce_ms.into())
    }

    pub(crate) fn lag_max(&self) -> Duration {
        Duration::from_millis(self.lag_max_ms.into())
    }

    pub(crate) fn in_flight_max(&self) -> Duration {
        Duration::from_millis(self.in_flight_max_ms.into())
    }

    pub(crate) fn slow_cut(&self) -> Duration {
        Duration::from_secs(self.slow_cut_s.into())
    }
}

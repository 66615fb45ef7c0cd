//! The process's one clock, as bus time.

use std::sync::OnceLock;
use std::time::Instant;

use patchbay_media::MediaTime;

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Monotonic time since the first call in this process. Timestamps on the bus are on this scale, so that
/// `now() - frame.arrival` is the time a frame has spent inside.
pub fn now() -> MediaTime {
    MediaTime::from(ORIGIN.get_or_init(Instant::now).elapsed())
}

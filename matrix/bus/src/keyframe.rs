//! [`KeyframeGate`]: many readers ask for a key frame, the source is asked once.

use std::sync::Arc;

use patchbay_media::MediaTime;

use crate::Signal;
use crate::sync::{Mutex, lock};

/// Shortest time between two requests that reach a source. A PLI storm ruins the sender's picture; half a second
/// is what receivers of live video tolerate without one.
const INTERVAL_MIN: MediaTime = MediaTime::from_millis(500);

#[derive(Default)]
struct State {
    wanted: bool,
    /// When the last request went out or the last key frame came in.
    quiet_since: Option<MediaTime>,
    listener: Option<Arc<Signal>>,
    asked: u64,
    forwarded: u64,
}

/// Merges and budgets the keyframe requests of one track.
#[derive(Default)]
pub struct KeyframeGate {
    state: Mutex<State>,
}

impl KeyframeGate {
    /// A reader cannot decode before the next key frame.
    pub fn request(&self) {
        let listener = {
            let mut state = lock(&self.state);
            state.asked += 1;
            if state.wanted {
                return;
            }
            state.wanted = true;
            state.listener.clone()
        };
        if let Some(listener) = listener {
            listener.notify();
        }
    }

    /// The publisher's side: wake this signal when a request arrives.
    pub fn listen(&self, signal: Arc<Signal>) {
        lock(&self.state).listener = Some(signal);
    }

    /// The publisher's side: whether to ask the source now. At most once per half second; a request that comes
    /// too early stays wanted.
    pub fn take(&self, now: MediaTime) -> bool {
        let mut state = lock(&self.state);
        let early = state.quiet_since.is_some_and(|at| now - at < INTERVAL_MIN);
        if !state.wanted || early {
            return false;
        }
        state.wanted = false;
        state.quiet_since = Some(now);
        state.forwarded += 1;
        true
    }

    /// Whether the source answers requests at all; an RTMP encoder does not.
    pub fn is_answered(&self) -> bool {
        lock(&self.state).listener.is_some()
    }

    /// Whether a request is waiting for its budget.
    pub fn is_wanted(&self) -> bool {
        lock(&self.state).wanted
    }

    /// A key frame came in: whatever was wanted is satisfied.
    pub(crate) fn satisfied(&self, now: MediaTime) {
        let mut state = lock(&self.state);
        state.wanted = false;
        state.quiet_since = Some(now);
    }

    /// Requests received from readers, and those passed on to the source.
    pub fn counts(&self) -> (u64, u64) {
        let state = lock(&self.state);
        (state.asked, state.forwarded)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_requests_reaches_the_source_once_per_half_second() {
        let gate = KeyframeGate::default();
        let mut passed = 0;
        for ms in 0..2_000 {
            gate.request();
            passed += u32::from(gate.take(MediaTime::from_millis(ms)));
        }
        assert_eq!(passed, 4);
        assert_eq!(gate.counts(), (2_000, 4));
    }

    #[test]
    fn a_key_frame_satisfies_a_waiting_request() {
        let gate = KeyframeGate::default();
        gate.request();
        gate.satisfied(MediaTime::ZERO);
        assert!(!gate.take(MediaTime::from_secs(1)));
    }
}

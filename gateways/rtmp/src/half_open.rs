//! [`HalfOpen`]: the connections that neither publish nor play yet. One too many costs the oldest its place: whoever means it
//! is through within a few round trips, so a flood of silent connections keeps nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// See the module.
pub(crate) struct HalfOpen {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// The oldest is first.
    by_age: BTreeMap<u64, CancellationToken>,
}

/// One connection's place; given back on drop.
pub(crate) struct Place {
    owner: Arc<HalfOpen>,
    number: u64,
    lost: CancellationToken,
    /// What it takes up of what its address may have.
    _address: Option<patchbay_contract::Place>,
}

impl HalfOpen {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, waiting: Mutex::default() })
    }

    /// A place for a new connection, the oldest one's if there is no other.
    pub(crate) fn enter(self: &Arc<Self>, address: Option<patchbay_contract::Place>) -> Place {
        let lost = CancellationToken::new();
        let (number, oldest) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let number = waiting.next;
            waiting.next += 1;
            waiting.by_age.insert(number, lost.clone());
            (number, if waiting.by_age.len() > self.max { waiting.by_age.pop_first() } else { None })
        };
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Place { owner: self.clone(), number, lost, _address: address }
    }
}

impl Place {
    /// Makes it nobody else's any more: the peer has said what it wants, and waits for the answer.
    pub(crate) fn keep(&self) {
        self.owner.waiting.lock().unwrap_or_else(PoisonError::into_inner).by_age.remove(&self.number);
    }

    /// Waits until it is somebody else's.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.owner.waiting.lock().unwrap_or_else(PoisonError::into_inner).by_age.remove(&self.number);
    }
}

//! [`Signal`]: "something changed", from any number of writers to one waiting task.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, lock};

#[derive(Default)]
struct State {
    set: bool,
    waker: Option<Waker>,
}

/// A level-triggered flag with one waiter. Notifications that arrive while nobody waits are kept (as one).
#[derive(Default)]
pub struct Signal {
    state: Mutex<State>,
}

impl Signal {
    /// A signal that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag and wakes the waiter.
    pub fn notify(&self) {
        let waker = {
            let mut state = lock(&self.state);
            if state.set {
                return;
            }
            state.set = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Clears the flag; returns whether it was set.
    pub fn take(&self) -> bool {
        std::mem::take(&mut lock(&self.state).set)
    }

    /// Ready (and cleared) once the flag is set; otherwise keeps the waker of `cx`.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.set) {
            return Poll::Ready(());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits until the flag is set, and clears it.
    pub async fn wait(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

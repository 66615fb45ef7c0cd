//! [`Refusals`]: how many peers were refused, and why.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use patchbay_contract::Code;
use serde::Serialize;
use utoipa::ToSchema;

/// Counts since the start, by what was wanted and the reason. Both are closed sets.
#[derive(Default)]
pub struct Refusals(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

/// One count.
#[derive(Serialize, ToSchema)]
pub struct RefusalCount {
    /// `connect`, `publish` or `play`.
    pub wanted: &'static str,
    /// Reason code.
    pub code: &'static str,
    /// How many since the start.
    pub count: u64,
}

impl Refusals {
    pub fn note(&self, wanted: &'static str, code: Code) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((wanted, code.as_str())).or_default() += 1;
    }

    pub fn all(&self) -> Vec<RefusalCount> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|((wanted, code), count)| RefusalCount { wanted, code, count: *count }).collect()
    }
}

//! [`Revoked`]: the numbers of tokens that are good for nothing any more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use patchbay_contract::{Code, Refusal};

/// Most tokens revoked at a time.
const REVOKED_MAX: usize = 10_000;

/// Those that were revoked while this process runs; the configuration's are with the keys.
#[derive(Default)]
pub struct Revoked(Mutex<HashMap<String, Option<u64>>>);

impl Revoked {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Option<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn contains(&self, id: &str) -> bool {
        self.all().contains_key(id)
    }

    /// Revokes a token, for good or until it would have expired anyway (Unix time).
    ///
    /// # Errors
    /// Too many are revoked.
    pub fn add(&self, id: &str, expires: Option<u64>, now: u64) -> Result<(), Refusal> {
        let mut all = self.all();
        all.retain(|_, expires| expires.is_none_or(|at| at > now));
        if all.len() >= REVOKED_MAX && !all.contains_key(id) {
            let why = format!("{REVOKED_MAX} tokens are revoked already; give `exp` so that each is forgotten in time, or change the key");
            return Err(Refusal::new(Code::TooMany, why));
        }
        all.insert(id.to_owned(), expires);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded_and_forgets_what_has_expired() {
        let revoked = Revoked::default();
        revoked.add("a", None, 50).unwrap();
        for n in 1..REVOKED_MAX {
            revoked.add(&n.to_string(), Some(100), 50).unwrap();
        }
        assert_eq!(revoked.add("b", None, 99).unwrap_err().code, Code::TooMany);
        assert!(revoked.add("7", None, 99).is_ok() && revoked.contains("8"));
        revoked.add("b", None, 100).unwrap();
        assert!(revoked.contains("a") && revoked.contains("b") && revoked.contains("7") && !revoked.contains("8"));
    }
}

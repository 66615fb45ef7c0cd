//! [`Directory`]: which worker owns which session. Written when sessions come and go, read by signalling and for
//! STUN from an address that is not known yet; never per media packet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use patchbay_contract::{Code, Refusal};

/// Unguessable name of a session; its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionKey(u128);

impl SessionKey {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What signalling knows of a session.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) worker: usize,
    pub(crate) ufrag: String,
    pub(crate) remote_ufrag: String,
    /// ICE restarts so far: what the entity tag tells apart.
    pub(crate) restarts: u32,
    /// What the creator brought; whoever brings another one later is refused.
    pub(crate) token: Option<String>,
}

#[derive(Default)]
struct Tables {
    sessions: HashMap<SessionKey, Card>,
    ufrags: HashMap<String, (usize, SessionKey)>,
}

/// All sessions of the gateway.
#[derive(Default)]
pub(crate) struct Directory {
    tables: RwLock<Tables>,
    sessions: AtomicUsize,
    half_open: AtomicUsize,
}

impl Directory {
    /// Counts a new session in, or refuses it.
    pub(crate) fn admit(self: &Arc<Self>, sessions_max: usize, half_open_max: usize) -> Result<Admission, Refusal> {
        let admission = Admission { directory: self.clone(), half_open: true };
        let sessions = self.sessions.fetch_add(1, Ordering::Relaxed);
        let half_open = self.half_open.fetch_add(1, Ordering::Relaxed);
        if sessions >= sessions_max {
            return Err(Refusal::new(
                Code::TooMany,
                format!("{sessions_max} WebRTC sessions are open (webrtc.sessions_max); try again later"),
            ));
        }
        if half_open >= half_open_max {
            return Err(Refusal::new(
                Code::TooMany,
                format!("{half_open_max} WebRTC sessions are connecting (webrtc.half_open_max); try again in a moment"),
            ));
        }
        Ok(admission)
    }

    pub(crate) fn insert(&self, key: SessionKey, card: Card) {
        let mut tables = self.tables.write().unwrap_or_else(|p| p.into_inner());
        tables.ufrags.insert(card.ufrag.clone(), (card.worker, key));
        tables.sessions.insert(key, card);
    }

    pub(crate) fn remove(&self, key: SessionKey) {
        let mut tables = self.tables.write().unwrap_or_else(|p| p.into_inner());
        if let Some(card) = tables.sessions.remove(&key) {
            tables.ufrags.remove(&card.ufrag);
        }
    }

    /// The session has new credentials. Returns its card, if it is still there.
    pub(crate) fn restarted(&self, key: SessionKey, ufrag: String, remote_ufrag: String) -> Option<Card> {
        let mut tables = self.tables.write().unwrap_or_else(|p| p.into_inner());
        let Tables { sessions, ufrags } = &mut *tables;
        let card = sessions.get_mut(&key)?;
        ufrags.remove(&card.ufrag);
        ufrags.insert(ufrag.clone(), (card.worker, key));
        (card.ufrag, card.remote_ufrag, card.restarts) = (ufrag, remote_ufrag, card.restarts.wrapping_add(1));
        Some(card.clone())
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<Card> {
        self.tables.read().unwrap_or_else(|p| p.into_inner()).sessions.get(&key).cloned()
    }

    pub(crate) fn by_ufrag(&self, ufrag: &str) -> Option<(usize, SessionKey)> {
        self.tables.read().unwrap_or_else(|p| p.into_inner()).ufrags.get(ufrag).copied()
    }
}

/// One session's place in the counts; given back on drop.
pub(crate) struct Admission {
    directory: Arc<Directory>,
    half_open: bool,
}

impl Admission {
    /// The session has connected.
    pub(crate) fn connected(&mut self) {
        if std::mem::take(&mut self.half_open) {
            self.directory.half_open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.connected();
        self.directory.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_open_sessions_are_capped_and_given_back() {
        let directory = Arc::new(Directory::default());
        let mut first = directory.admit(3, 1).ok().unwrap();
        assert_eq!(directory.admit(3, 1).err().unwrap().code, Code::TooMany);
        first.connected();
        let second = directory.admit(3, 1).ok().unwrap();
        drop((first, second));
        assert_eq!(directory.sessions.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_session_name_round_trips_and_nothing_else_parses() {
        let key = SessionKey::random();
        assert_eq!(SessionKey::parse(&key.to_string()), Some(key));
        for bad in ["", "1", "zz", "+0000000000000000000000000000000", "000000000000000000000000000000000"] {
            assert_eq!(SessionKey::parse(bad), None, "{bad}");
        }
    }
}

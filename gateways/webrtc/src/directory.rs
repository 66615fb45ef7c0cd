//! [`Directory`]: which worker owns which session. Written when sessions come and go, read by signalling and for
//! STUN from an address that is not known yet; never per media packet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use patchbay_contract::{Code, HalfOpen, HalfOpenPlace, Refusal};

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
pub(crate) struct Directory {
    tables: RwLock<Tables>,
    sessions: AtomicUsize,
    half_open: Arc<HalfOpen>,
}

impl Directory {
    /// With room for so many sessions that have not connected yet.
    pub(crate) fn new(half_open_max: usize) -> Arc<Self> {
        Arc::new(Self { tables: RwLock::default(), sessions: AtomicUsize::new(0), half_open: HalfOpen::new(half_open_max) })
    }

    /// Counts a new session in, or refuses it.
    pub(crate) fn admit(self: &Arc<Self>, sessions_max: usize) -> Result<Admission, Refusal> {
        let sessions = self.sessions.fetch_add(1, Ordering::Relaxed);
        let admission = Admission { directory: self.clone(), half_open: None };
        if sessions >= sessions_max {
            return Err(Refusal::new(
                Code::TooMany,
                format!("{sessions_max} WebRTC sessions are open (webrtc.sessions_max); try again later"),
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
    /// From its answer until it has connected.
    half_open: Option<HalfOpenPlace>,
}

impl Admission {
    /// The session is answered, and it is the turn of `peer` now.
    pub(crate) fn answered(&mut self, peer: Option<IpAddr>) {
        self.half_open = Some(self.directory.half_open.enter(peer, None));
    }

    /// The session has connected.
    pub(crate) fn connected(&mut self) {
        self.half_open = None;
    }

    /// Whether it has made room for another one before it has connected.
    pub(crate) fn is_lost(&self) -> bool {
        self.half_open.as_ref().is_some_and(HalfOpenPlace::is_lost)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.directory.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_open_sessions_make_room_and_all_are_capped_and_given_back() {
        let directory = Directory::new(1);
        let [mut first, mut second, mut third, waiting] = [(); 4].map(|()| directory.admit(4).ok().unwrap());
        first.answered(None);
        first.connected();
        second.answered(None);
        assert!(!second.is_lost(), "who waits for its answer takes nobody's place");
        third.answered(None);
        assert_eq!([&first, &second, &third, &waiting].map(Admission::is_lost), [false, true, false, false]);
        assert_eq!(directory.admit(4).err().unwrap().code, Code::TooMany);
        drop((first, second, third, waiting));
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

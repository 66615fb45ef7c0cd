//! [`Links`]: the TCP connections of one session.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Connection;

/// Connections of a session.
const LINKS_MAX: usize = 4;

/// A connection that has proved itself; closed when it is let go.
struct Link(Arc<Connection>);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Links {
    proved: SmallVec<[Link; 1]>,
    /// Its check is being worked on.
    arriving: Option<Arc<Connection>>,
}

impl Links {
    /// Whether something that came over a connection is looked at: all of one that has proved itself; of another one only what
    /// `may_prove` it.
    pub(crate) fn admit(&mut self, connection: &Arc<Connection>, may_prove: bool) -> bool {
        if self.proved.iter().any(|link| Arc::ptr_eq(&link.0, connection)) {
            return true;
        }
        self.arriving = may_prove.then(|| connection.clone());
        may_prove
    }

    /// The check of the connection that is arriving was valid, if it came from `remote`. Returns whether that is news.
    pub(crate) fn adopt(&mut self, remote: SocketAddr) -> bool {
        let Some(connection) = self.arriving.take_if(|connection| connection.remote == remote) else { return false };
        connection.prove();
        self.proved.retain(|link| link.0.remote != remote);
        self.proved.push(Link(connection));
        true
    }

    /// Ends the oldest connection but the one to `used` if there is one too many. Returns where it led.
    pub(crate) fn evict(&mut self, used: Option<SocketAddr>) -> Option<SocketAddr> {
        if self.proved.len() <= LINKS_MAX {
            return None;
        }
        let oldest = self.proved.iter().position(|link| Some(link.0.remote) != used)?;
        Some(self.proved.remove(oldest).0.remote)
    }

    /// The connection to `remote`.
    pub(crate) fn to(&self, remote: SocketAddr) -> Option<&Connection> {
        self.proved.iter().find(|link| link.0.remote == remote).map(|link| &*link.0)
    }

    /// The connection has ended. Returns whether it had proved itself.
    pub(crate) fn remove(&mut self, connection: &Arc<Connection>) -> bool {
        let before = self.proved.len();
        self.proved.retain(|link| !Arc::ptr_eq(&link.0, connection));
        self.proved.len() < before
    }

    /// All datagrams of a turn have been pushed.
    pub(crate) fn flush(&mut self) {
        self.arriving = None;
        self.proved.iter().for_each(|link| link.0.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_media_does_not_use_makes_room() {
        let mut links = Links::default();
        let remotes: Vec<SocketAddr> = (1..=6).map(|port| ([192, 0, 2, 1], port).into()).collect();
        let mut arrive = |remote: SocketAddr, used| {
            links.admit(&Connection::new(remote, ([192, 0, 2, 2], 1).into()), true);
            assert!(links.adopt(remote));
            links.evict(used)
        };
        let evicted: Vec<_> = remotes.iter().map(|remote| arrive(*remote, Some(remotes[0]))).collect();
        assert_eq!(evicted, [None, None, None, None, Some(remotes[1]), Some(remotes[2])]);
        assert!(links.to(remotes[0]).is_some() && links.to(remotes[1]).is_none());
    }
}

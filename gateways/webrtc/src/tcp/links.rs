//! [`Links`]: the TCP connections of one session.

use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Connection;

/// Connections of a session; the oldest makes room.
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
        if self.proved.len() == LINKS_MAX {
            self.proved.remove(0);
        }
        self.proved.push(Link(connection));
        true
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

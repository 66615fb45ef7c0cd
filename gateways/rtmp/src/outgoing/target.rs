//! [`Target`] and [`Destination`]: which server a push or a pull dials, and how.
//!
//! Refuses: to show a stream key to anybody but the server.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use patchbay_outbound::Policy;

use super::provider::{self, Signer};
use crate::proto::url::{RtmpUrl, UrlError};

/// A server and what it calls the stream.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(RtmpUrl);

impl Target {
    /// Parses `rtmp://HOST[:PORT]/APP/STREAM[?QUERY]`, or the same with `rtmps`.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        RtmpUrl::parse(text).map(Self)
    }

    /// Server and application from a URL, and a stream key that may hold slashes.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn with_key(url: &str, key: &str) -> Result<Self, UrlError> {
        RtmpUrl::with_stream(url, key).map(Self)
    }

    /// Host and port that are dialled.
    pub fn host(&self) -> (&str, u16) {
        (&self.0.host, self.0.port)
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.0.tls
    }

    /// Where the server sends the stream; see [`RtmpUrl::moved`].
    pub(crate) fn moved(&self, tc_url: &str) -> Result<Self, UrlError> {
        self.0.moved(tc_url).map(Self)
    }

    /// A server's words may repeat the stream's name, which is the key. What is shorter than a key can be is left alone.
    fn conceal(&self, words: &str) -> String {
        const KEY_MIN: usize = 6;
        let (key, query) = self.0.stream.split_once('?').unwrap_or((&self.0.stream, ""));
        let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
        let secrets = [self.0.stream.as_str(), key, query].into_iter().chain(values).filter(|secret| secret.len() >= KEY_MIN);
        secrets.fold(words.to_owned(), |words, secret| words.replace(secret, "***"))
    }
}

impl fmt::Display for Target {
    /// Without the stream key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/***", self.0.tc_url)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which server is dialled, and how.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The server.
    pub primary: Target,
    /// Where to when that fails again and again.
    pub backup: Option<Target>,
    /// How long to stay with the backup before the primary is tried again.
    pub backup_hold: Duration,
    /// How long to wait after a failure: anything from half of the first, up to a bound that grows from it to the second. A
    /// server that is down is looked for in the meantime, every second.
    pub pauses: RangeInclusive<Duration>,
    /// Signs the address of every connection, for services that want that.
    pub signer: Option<Signer>,
    /// Whether the servers above may be dialled.
    pub policy: Policy,
    /// Which other hosts may be, that a server sends us to.
    pub elsewhere: Policy,
    /// Certificates that vouch for an rtmps server, instead of the machine's.
    pub ca_file: Option<PathBuf>,
}

impl Destination {
    /// One server, verified by the machine's certificates; those it sends us to are never taken for the operator's.
    pub fn new(primary: Target, policy: Policy) -> Self {
        let elsewhere = policy.for_others();
        let pauses = Duration::from_secs(1)..=Duration::from_secs(30);
        let backup_hold = Duration::from_secs(300);
        Self { primary, backup: None, backup_hold, pauses, signer: None, policy, elsewhere, ca_file: None }
    }

    pub(crate) fn of(&self, backup: bool) -> &Target {
        self.backup.as_ref().filter(|_| backup).unwrap_or(&self.primary)
    }

    /// What decides whether `target` may be dialled: who names a host does not speak for another.
    pub(crate) fn policy(&self, target: &Target) -> &Policy {
        let mut named = [Some(&self.primary), self.backup.as_ref()].into_iter().flatten();
        if named.any(|one| one.0.host == target.0.host) { &self.policy } else { &self.elsewhere }
    }

    /// What to say to the server this time.
    pub(crate) fn url(&self, target: &Target) -> RtmpUrl {
        self.signer.as_ref().map_or_else(|| target.0.clone(), |signer| signer.sign(&target.0))
    }

    pub(crate) fn conceal(&self, words: &str) -> String {
        let words = self.primary.conceal(words);
        let words = self.backup.as_ref().map_or(words.clone(), |backup| backup.conceal(&words));
        provider::conceal(&words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hide_their_key() {
        let target = Target::parse("rtmp://cdn.example.org:1936/live/secret?txSecret=abc").unwrap();
        assert_eq!(format!("{target} {target:?}"), "rtmp://cdn.example.org:1936/live/*** rtmp://cdn.example.org:1936/live/***");
    }

    #[test]
    fn no_key_of_either_server_is_repeated() {
        let [primary, backup] = ["rtmp://a/live/first-key?k=1", "rtmps://b/live/second-key"].map(|url| Target::parse(url).unwrap());
        let to = Destination { backup: Some(backup), ..Destination::new(primary, Policy::ALL) };
        assert_eq!(to.conceal("no first-key?k=1, no first-key, no second-key"), "no ***, no ***, no ***");
    }
}

//! [`Signer`]: push addresses that are good for a while only, signed the way a service wants it, anew for every connection.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};

use crate::proto::url::RtmpUrl;

/// How long an address is good. A server that asks again in between, as after a reconnect, must still be satisfied.
const GOOD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Query parameters that signatures come in.
const PARAMETERS: [&str; 2] = ["txSecret=", "auth_key="];

/// A service, and how it wants addresses signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Tencent Cloud: `txSecret` (MD5 of key, stream and time) and `txTime`.
    Tencent,
    /// Alibaba Cloud: `auth_key` of type A.
    Aliyun,
}

/// Signs addresses with the key of an account.
#[derive(Clone)]
pub struct Signer {
    provider: Provider,
    key: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}(***)", self.provider)
    }
}

impl Signer {
    /// For a service, with the key that it shows in its console.
    pub fn new(provider: Provider, key: impl Into<String>) -> Self {
        Self { provider, key: key.into() }
    }

    /// The address as it is good from now on.
    pub(super) fn sign(&self, url: &RtmpUrl) -> RtmpUrl {
        let until = SystemTime::now() + GOOD_FOR;
        let until = until.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.sign_until(url, until, &format!("{:016x}", rand::random::<u64>()))
    }

    fn sign_until(&self, url: &RtmpUrl, until: u64, random: &str) -> RtmpUrl {
        let name = url.stream.split('?').next().unwrap_or_default();
        let parameters = match self.provider {
            Provider::Tencent => {
                let time = format!("{until:X}");
                format!("txSecret={}&txTime={time}", md5(&format!("{}{name}{time}", self.key)))
            }
            Provider::Aliyun => {
                let what = format!("{until}-{random}-0");
                format!("auth_key={what}-{}", md5(&format!("/{}/{name}-{what}-{}", url.app, self.key)))
            }
        };
        let joint = if url.stream.contains('?') { '&' } else { '?' };
        RtmpUrl { stream: format!("{}{joint}{parameters}", url.stream), ..url.clone() }
    }
}

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Blackens signatures that a server repeats.
pub(super) fn conceal(words: &str) -> String {
    let mut out = words.to_owned();
    for parameter in PARAMETERS {
        let mut from = 0;
        while let Some(at) = out[from..].find(parameter) {
            let begin = from + at + parameter.len();
            let rest = &out[begin..];
            let size = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            out.replace_range(begin..begin + size, "***");
            from = begin;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(provider: Provider, url: &str) -> String {
        let signer = Signer::new(provider, "a-key");
        assert!(!format!("{signer:?}").contains("a-key"));
        signer.sign_until(&RtmpUrl::parse(url).unwrap(), 0x6926_0000, "0123").stream
    }

    /// The sums are those of md5sum(1).
    #[test]
    fn addresses_are_signed_as_each_service_wants() {
        for (provider, url, stream) in [
            (Provider::Tencent, "rtmp://h/live/cam", "cam?txSecret=b3baa2b42916822c9ebf6a20b65bd10b&txTime=69260000"),
            (Provider::Tencent, "rtmp://h/live/cam?a=1", "cam?a=1&txSecret=b3baa2b42916822c9ebf6a20b65bd10b&txTime=69260000"),
            (Provider::Aliyun, "rtmp://h/live/cam", "cam?auth_key=1764098048-0123-0-88b3c93da07105343aae7be3efd12ed2"),
        ] {
            assert_eq!(signed(provider, url), stream, "{url}");
        }
    }

    #[test]
    fn signatures_that_are_repeated_are_blackened() {
        let words = "no cam?txSecret=0af3&txTime=69, no auth_key=1-2-0-ff, txSecret=";
        assert_eq!(conceal(words), "no cam?txSecret=***&txTime=69, no auth_key=***, txSecret=***");
    }
}

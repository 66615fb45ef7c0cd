//! The patchbay under test: where it is, how its API is asked, and an instance of our own where none is given.
//!
//! Refuses: TLS, and to judge what the API says.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use patchbay_rules::EndpointKind;
use serde::de::DeserializeOwned;
use url::Url;

use super::process::{Process, Workspace};
use super::{Error, Target};

/// How long one answer of the API may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long an instance of our own may take to be ready.
const READY_MAX: Duration = Duration::from_secs(15);
/// Ports of an instance of our own: below those that the system gives to clients.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A patchbay that can be reached.
pub struct Deployment {
    http: Url,
    rtmp: String,
    token: Option<String>,
    key: Option<String>,
    agent: ureq::Agent,
    /// Ours; it ends with this value.
    instance: Option<Process>,
}

impl Deployment {
    /// Somebody's, or one that is started for this.
    ///
    /// # Errors
    /// When it cannot be reached or started.
    pub fn open(target: &Target, key: Option<String>, space: &Workspace) -> Result<Self, Error> {
        match target {
            Target::Running { url, rtmp, token } => Self::running(url.clone(), rtmp.clone(), token.clone(), key),
            Target::Own { file, set, token } => Self::own(file.as_ref(), set, token.clone(), key, space),
        }
    }

    fn running(http: Url, rtmp: Option<Url>, token: Option<String>, key: Option<String>) -> Result<Self, Error> {
        let mut this = Self { http, rtmp: String::new(), token, key, agent: agent(), instance: None };
        let info: Info = this.get("/v1/info").map_err(Error::Deployment)?;
        this.rtmp = match rtmp {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => format!("rtmp://{}:{}", this.http.host_str().unwrap_or_default(), info.rtmp_port),
        };
        Ok(this)
    }

    fn own(file: Option<&PathBuf>, set: &[String], token: Option<String>, key: Option<String>, space: &Workspace) -> Result<Self, Error> {
        let [http, rtmp, udp] = free_ports()?;
        let mut command = Command::new(std::env::current_exe().map_err(Error::Io)?);
        command.arg("run");
        if let Some(file) = file {
            command.arg("--config").arg(file);
        }
        let listen = [("http", http), ("rtmp", rtmp), ("webrtc", udp)].map(|(key, port)| format!("{key}.listen=127.0.0.1:{port}"));
        // The servers that pushes go to are on this machine too; a setting of the caller comes later and wins.
        command.args(["--set", "outbound.allow=127.0.0.1"]);
        set.iter().chain(&listen).for_each(|pair| _ = command.arg("--set").arg(pair));
        let mut instance = Process::start(&mut command, space).map_err(Error::Deployment)?;
        let address = format!("http://127.0.0.1:{http}");
        let until = Instant::now() + READY_MAX;
        let agent = agent();
        while agent.get(format!("{address}/readyz")).call().is_err() {
            if !instance.is_running() || Instant::now() > until {
                return Err(Error::Deployment(format!("patchbay did not start: {}", instance.complaints().trim())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let http = Url::parse(&address).map_err(|e| Error::Deployment(e.to_string()))?;
        Ok(Self { http, rtmp: format!("rtmp://127.0.0.1:{rtmp}"), token, key, agent, instance: Some(instance) })
    }

    /// For people.
    pub fn name(&self) -> String {
        let base = self.http.as_str().trim_end_matches('/');
        if self.instance.is_some() { format!("an instance of its own ({base})") } else { base.to_owned() }
    }

    /// The key streams are published and played with.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether it runs on this machine, and so can reach what listens on loopback.
    pub fn is_here(&self) -> bool {
        match self.http.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(url::Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            None => false,
        }
    }

    /// The URL of `path`, with `query` behind the key.
    pub fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.http.clone();
        url.set_path(&format!("{}{path}", self.http.path().trim_end_matches('/')));
        self.ask(&mut url, query);
        url
    }

    /// The same over RTMP; a client says there what it is.
    pub fn rtmp_url(&self, path: &str, kind: EndpointKind) -> String {
        // rtmp:// is a scheme whose queries the url crate leaves alone: it is put together as text.
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("kind", kind.name());
        if let Some(key) = &self.key {
            query.append_pair("key", key);
        }
        format!("{}/{path}?{}", self.rtmp, query.finish())
    }

    fn ask(&self, url: &mut Url, query: &[(&str, &str)]) {
        let key = self.key.as_deref().map(|key| ("key", key));
        let pairs: Vec<_> = query.iter().copied().chain(key).collect();
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
    }

    fn api(&self, path: &str) -> String {
        format!("{}{path}", self.http.as_str().trim_end_matches('/'))
    }

    fn authorised<Body>(&self, request: ureq::RequestBuilder<Body>) -> ureq::RequestBuilder<Body> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Asks the API.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let url = self.api(path);
        let answer = self.authorised(self.agent.get(&url)).call();
        read(&url, answer)?.body_mut().read_json().map_err(|e| format!("{url}: the answer is not understood: {e}"))
    }

    /// Starts a push of `stream` to `to`, called `name`.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub fn push(&self, name: &str, stream: &str, to: &str) -> Result<(), String> {
        let url = self.api("/v1/pushes");
        let body = serde_json::json!({ "name": name, "stream": stream, "url": to });
        let answer = self.authorised(self.agent.post(&url)).send_json(body);
        read(&url, answer).map(drop)
    }

    /// Stops a push; one that is gone already is as good.
    pub fn stop_push(&self, name: &str) {
        let url = self.api(&format!("/v1/pushes/{name}"));
        _ = self.authorised(self.agent.delete(&url)).call();
    }
}

type Answer = ureq::http::Response<ureq::Body>;

/// An answer that says yes, or why not.
fn read(url: &str, answer: Result<Answer, ureq::Error>) -> Result<Answer, String> {
    let mut answer = answer.map_err(|e| format!("{url}: {e}"))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let problem: serde_json::Value = answer.body_mut().read_json().unwrap_or_default();
    let hint = if status == 401 { "; give --token" } else { "" };
    Err(format!("{url}: {status}: {}{hint}", problem["detail"].as_str().unwrap_or("no reason given")))
}

#[derive(serde::Deserialize)]
struct Info {
    rtmp_port: u16,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(ANSWER_MAX)).http_status_as_error(false).build().into()
}

/// Ports of loopback that nobody listens on, TCP and UDP.
///
/// # Errors
/// When none is free.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let free =
        |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    // Two that run at once should not look at the same ports first, nor one twice.
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    let start = std::process::id() as usize * 37 + LOOKS.fetch_add(N, Ordering::Relaxed);
    let len = PORTS.len();
    let found: Vec<u16> = (0..len).map(|i| PORTS.start + ((start + i) % len) as u16).filter(free).take(N).collect();
    found.try_into().map_err(|_| Error::Deployment("no port of loopback is free".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(http: &str, key: Option<&str>) -> Deployment {
        let key = key.map(str::to_owned);
        Deployment { http: Url::parse(http).unwrap(), rtmp: "rtmp://h:1935".into(), token: None, key, agent: agent(), instance: None }
    }

    #[test]
    fn urls_carry_kind_and_key() {
        let plain = at("http://h:8080", None);
        assert_eq!(plain.url("/whip/a/b", &[]).as_str(), "http://h:8080/whip/a/b");
        assert_eq!(plain.rtmp_url("a/b", EndpointKind::Cdn), "rtmp://h:1935/a/b?kind=cdn");
        let keyed = at("http://h/base/", Some("s&t"));
        assert_eq!(keyed.url("/flv/a/b.flv", &[("kind", "rtmp")]).as_str(), "http://h/base/flv/a/b.flv?kind=rtmp&key=s%26t");
        assert_eq!(keyed.rtmp_url("a/b", EndpointKind::Rtmp), "rtmp://h:1935/a/b?kind=rtmp&key=s%26t");
    }

    #[test]
    fn loopback_is_here() {
        let here = |url| at(url, None).is_here();
        assert!(here("http://127.0.0.1:8080") && here("http://localhost") && here("http://[::1]:80"));
        assert!(!here("http://10.0.0.1") && !here("http://example.org"));
    }

    #[test]
    fn free_ports_are_different_and_below_those_of_clients() {
        let [a, b] = free_ports().unwrap();
        assert!(a != b && PORTS.contains(&a) && PORTS.contains(&b));
    }
}

//! The CDN's side: an RTMP server that streams are pushed to and played from, and that relays a source to the deployment.
//!
//! nginx-rtmp started here, or a server that is given. Refuses: to push by itself, the deployment does.

use std::time::{Duration, Instant};

use patchbay_rules::EndpointKind;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::deployment::{Deployment, free_ports};
use super::process::{Process, Workspace};
use super::tools::{Found, Script};

/// How long nginx may take to listen.
const READY_MAX: Duration = Duration::from_secs(10);
/// After this long nginx ends by itself, seconds.
const LIFE_MAX: &str = "900";

/// An RTMP server.
pub struct Origin {
    /// Where streams are pushed to and played from, without their name.
    pub application: String,
    /// Where a source publishes to be relayed to the deployment, without its name; only ours relays.
    pub relay: Option<String>,
    server: Option<Process>,
}

impl Origin {
    /// A server that is given.
    pub fn given(url: &Url) -> Self {
        Self { application: url.as_str().trim_end_matches('/').to_owned(), relay: None, server: None }
    }

    /// nginx on ports of loopback, relaying to `application` of the deployment.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(script: &Script, deployment: &Deployment, application: &str, space: &Workspace, stop: &CancellationToken) -> Found<Self> {
        let [rtmp, http] = free_ports().map_err(|e| e.to_string())?;
        let mut command = script.command();
        command.args([&rtmp.to_string(), &http.to_string(), LIFE_MAX, &deployment.rtmp_url(application, EndpointKind::Cdn)]);
        let mut server = Process::start(&mut command, space)?;
        let until = Instant::now() + READY_MAX;
        while !server.printed().contains("listening") {
            if server.ended_by(Instant::now(), stop) || Instant::now() > until {
                return Err(format!("nginx-rtmp did not start: {}", server.last_words(space)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let base = format!("rtmp://127.0.0.1:{rtmp}");
        Ok(Self { application: format!("{base}/live"), relay: Some(format!("{base}/relay")), server: Some(server) })
    }

    /// Whether it listens on loopback of this machine only.
    pub fn is_ours(&self) -> bool {
        self.server.is_some()
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        if self.is_ours() { "nginx-rtmp" } else { "the given RTMP server" }
    }
}

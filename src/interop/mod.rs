//! `patchbay interop`: the matrix driven by real clients, cell by cell.
//!
//! One row at a time, because two cores carry one source and one browser: its source starts, its viewers play, and each is
//! judged by what it saw and heard and by its row of the ledger. Refuses: to know the deployment by anything but its
//! addresses and its API.

mod deployment;
mod judge;
mod origin;
mod player;
mod process;
mod report;
mod row;
mod script;
mod source;
mod stamp;
mod tools;
mod witness;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use patchbay_rules::{Abilities, EndpointKind, RuleTable};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use url::Url;

use deployment::Deployment;
use origin::Origin;
use process::Workspace;
use stamp::Stamps;
use tools::{Found, Tools};

pub use report::Report;
pub use tools::WebrtcClient;

/// The kinds that exist so far, in the order of the matrix.
pub const KINDS: [EndpointKind; 5] =
    [EndpointKind::Webrtc, EndpointKind::H5, EndpointKind::Miniprogram, EndpointKind::Rtmp, EndpointKind::Cdn];

/// Size and rate of every source's picture.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;
const FPS: u32 = 30;
/// What a viewer sees in its first seconds is not judged: it may be given the group so far, and hurry through it.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a viewer may wait for its first picture.
const FIRST_PICTURE_MAX: Duration = Duration::from_secs(10);

/// Which patchbay is asked.
#[derive(Clone, Debug)]
pub enum Target {
    /// One that runs.
    Running {
        /// Of its HTTP listener.
        url: Url,
        /// Of its RTMP listener; without it, the port the API tells, on the same host.
        rtmp: Option<Url>,
        /// For its API.
        token: Option<String>,
    },
    /// One that is started for this, on free ports of loopback.
    Own {
        /// Its configuration.
        file: Option<PathBuf>,
        /// Keys set over it.
        set: Vec<String>,
        /// For its API.
        token: Option<String>,
    },
}

/// What is to be done.
pub struct Options {
    /// Which patchbay.
    pub target: Target,
    /// Key to publish and to play with.
    pub key: Option<String>,
    /// First part of the streams' names.
    pub application: String,
    /// Sources.
    pub from: Vec<EndpointKind>,
    /// Sinks.
    pub to: Vec<EndpointKind>,
    /// How long each viewer is judged.
    pub seconds: Duration,
    /// Where the script clients are.
    pub clients: PathBuf,
    /// Whose WebRTC.
    pub webrtc: Option<WebrtcClient>,
    /// An RTMP server that pushes go to, instead of one started here.
    pub origin: Option<Url>,
    /// Rules and abilities that predict every plan; only for an instance of our own.
    pub predicted: Option<(RuleTable, Abilities)>,
}

/// Why there is no grid at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The deployment cannot be used.
    #[error("interop: {0}")]
    Deployment(String),
    /// It was asked to stop.
    #[error("interop: stopped before the end")]
    Stopped,
    /// This machine refuses something.
    #[error("interop: {0}")]
    Io(#[from] std::io::Error),
}

/// Why there is nothing to judge.
#[derive(Clone, Debug)]
enum Fault {
    /// A client is not installed.
    Missing(String),
    /// It was tried in vain.
    Failed(String),
}

impl Fault {
    fn missing(words: impl Into<String>) -> Self {
        Self::Missing(words.into())
    }
}

/// What a viewer saw and heard.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Observed {
    /// Who, for people.
    client: String,
    /// Codec of the pictures on the wire.
    video: Option<String>,
    /// Codec of the sound on the wire.
    audio: Option<String>,
    /// Pictures in all.
    pictures: u64,
    /// Those that were judged.
    stamps: Stamps,
    /// Judged pictures that the client presented, but was too slow to read.
    unread: u64,
    /// How long there might have been sound, seconds.
    listened_s: f64,
    /// How much there was, seconds.
    sound_s: f64,
    /// From 0 to 1.
    loudness: f64,
    /// What the client says went wrong.
    complaint: Option<String>,
}

impl Observed {
    /// Judged pictures that got to the client.
    fn shown(&self) -> u64 {
        (self.stamps.distinct + self.unread).min(self.stamps.expected)
    }

    /// Their share of those there were, percent.
    fn shown_percent(&self) -> f64 {
        100.0 * self.shown() as f64 / self.stamps.expected.max(1) as f64
    }
}

/// What every row is driven with.
struct Bench {
    deployment: Arc<Deployment>,
    tools: Tools,
    space: Workspace,
    origin: Found<Origin>,
    application: String,
    seconds: Duration,
    predicted: Option<(RuleTable, Abilities)>,
    stop: CancellationToken,
}

impl Bench {
    /// Name of the stream of a kind's source inside the application: nobody else's, also on a deployment in use.
    fn name(&self, kind: EndpointKind) -> String {
        format!("{kind}-{}", std::process::id())
    }

    fn stream(&self, kind: EndpointKind) -> String {
        format!("{}/{}", self.application, self.name(kind))
    }
}

/// Drives the cells; `told` is given every cell as it is decided. `stop` ends it early.
///
/// # Errors
/// When the deployment cannot be used, so that there is nothing to test, or it was stopped.
pub fn run(options: Options, stop: CancellationToken, told: impl Fn(&report::Cell)) -> Result<Report, Error> {
    let secrets = options.key.iter().cloned().collect();
    let space = Workspace::new(secrets)?;
    let deployment = Arc::new(Deployment::open(&options.target, options.key.clone(), &space)?);
    let tools = Tools::find(&options.clients, options.webrtc);
    let about_cdn = options.from.contains(&EndpointKind::Cdn) || options.to.contains(&EndpointKind::Cdn);
    let origin = match (&options.origin, &tools.nginx) {
        (Some(url), _) => Ok(Origin::given(url)),
        (None, Ok(script)) if about_cdn => Origin::start(script, &deployment, &options.application, &space, &stop),
        (None, Ok(_)) => Err("there is no cell for it".into()),
        (None, Err(missing)) => Err(missing.clone()),
    };
    let Options { application, seconds, predicted, .. } = options;
    let bench = Bench { deployment, tools, space, origin, application, seconds, predicted, stop };
    let mut report = Report::new(bench.deployment.name(), options.from.clone(), options.to.clone());
    for from in options.from {
        let cells = row::drive(&bench, from, &options.to);
        if bench.stop.is_cancelled() {
            // What was broken off says nothing.
            return Err(Error::Stopped);
        }
        for cell in cells {
            told(&cell);
            report.cells.push(cell);
        }
    }
    Ok(report)
}

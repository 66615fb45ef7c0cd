//! `patchbay interop`: its flags, and what is printed and written of its result.
//!
//! Refuses: to drive anything; `crate::interop` does.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use patchbay_rules::{EndpointKind, RuleTable};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::args::key_value;
use crate::config::{self, LoadError, Override};
use crate::interop::{self, Options, Report, Target, WebrtcClient};

/// Flags of `interop`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchbay interop                                        starts an instance of its own
  patchbay interop --set transcode.threads=1 --from rtmp --to webrtc --to h5
  patchbay interop --url http://192.0.2.7:8080 --token T --key K --json grid.json

Publishes a stamped picture with beeps as every kind of source, and plays it as every kind of sink, with FFmpeg, Chromium,
stock jsmpeg, aiortc and nginx-rtmp, as far as they are installed. A cell is green when its viewers saw 95 % of the
pictures without a gap, heard the beeps, and got the codecs that their rows of the ledger (/v1/pairs) name.

Exit codes: 0 no cell is red; 1 one is, none could be tested, or it failed; 2 wrong usage.")]
pub struct InteropArgs {
    /// Test this running patchbay.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    pub url: Option<Url>,
    /// Its RTMP address; without it, the port that its API tells.
    #[arg(long, value_name = "URL", value_parser = rtmp_url, requires = "url")]
    pub rtmp: Option<Url>,
    /// Its `api.token`.
    #[arg(long, env = "PATCHBAY_API_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Key to publish and to play with, where routes ask for one.
    #[arg(long)]
    pub key: Option<String>,
    /// First part of the streams' names.
    #[arg(long, value_name = "NAME", default_value = "interop")]
    pub app: patchbay_bus::StreamName,
    /// Configuration of the instance that is started.
    #[arg(short, long, value_name = "FILE", conflicts_with = "url")]
    pub config: Option<PathBuf>,
    /// Set one key of the instance that is started; may be given again.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, conflicts_with = "url")]
    pub set: Vec<Override>,
    /// Only this kind of source; may be given again.
    #[arg(long, value_name = "KIND", value_parser = super::matrix::one_of(&interop::KINDS))]
    pub from: Vec<EndpointKind>,
    /// Only this kind of sink; may be given again.
    #[arg(long, value_name = "KIND", value_parser = super::matrix::one_of(&interop::KINDS))]
    pub to: Vec<EndpointKind>,
    /// Seconds that each viewer is judged.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=60))]
    pub seconds: u64,
    /// Folder of the clients that are scripts.
    #[arg(long, value_name = "DIR", default_value = "tests/clients")]
    pub clients: PathBuf,
    /// Which of two clients: webrtc=chromium or webrtc=aiortc.
    #[arg(long, value_name = "KIND=CLIENT")]
    pub client: Option<WebrtcClient>,
    /// RTMP server that pushes go to, with its application; without it nginx-rtmp is started.
    #[arg(long, value_name = "URL", value_parser = rtmp_url)]
    pub origin: Option<Url>,
    /// A cell whose client is missing counts as red.
    #[arg(long)]
    pub strict: bool,
    /// Write everything that was measured.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Rewrite the grid of a page between its markers, such as docs/matrix.md.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
}

fn http_url(text: &str) -> Result<Url, String> {
    url_of(text, "http", "an http:// address; https is not spoken yet")
}

fn rtmp_url(text: &str) -> Result<Url, String> {
    url_of(text, "rtmp", "an rtmp:// address")
}

fn url_of(text: &str, scheme: &str, wanted: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{e}; expected {wanted}"))?;
    if url.scheme() == scheme && url.has_host() { Ok(url) } else { Err(format!("expected {wanted}")) }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error(transparent)]
    Interop(#[from] interop::Error),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: there are no markers `<!-- interop: begin -->` and `<!-- interop: end -->` to write between", .0.display())]
    Markers(PathBuf),
    #[error("the result cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Drives the matrix, prints the grid, and gives the exit code.
pub fn execute(args: InteropArgs) -> ExitCode {
    let (strict, stop) = (args.strict, CancellationToken::new());
    stop_on_signal(stop.clone());
    match drive(args, stop) {
        Err(error) => super::failed(&error),
        Ok(report) if report.is_good(strict) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    }
}

/// So that a signal ends the clients with us.
fn stop_on_signal(stop: CancellationToken) {
    std::thread::spawn(move || {
        // Without a runtime there is no signal to wait for, and the clients end by themselves.
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            runtime.block_on(crate::app::stop_signal());
            stop.cancel();
        }
    });
}

fn drive(args: InteropArgs, stop: CancellationToken) -> Result<Report, Error> {
    let (json, markdown) = (args.json.clone(), args.markdown.clone());
    let report = interop::run(options(args)?, stop, |cell| println!("{}", cell.line()))?;
    println!("\n{}", report.text().trim_end());
    if let Some(path) = json {
        write(&path, &format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    }
    if let Some(path) = markdown {
        let page = std::fs::read_to_string(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let page = patchbay_rules::with_measured_section(&page, &report.markdown()).ok_or_else(|| Error::Markers(path.clone()))?;
        write(&path, &page)?;
    }
    Ok(report)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn options(args: InteropArgs) -> Result<Options, Error> {
    let all_when_empty = |kinds: Vec<EndpointKind>| if kinds.is_empty() { interop::KINDS.to_vec() } else { kinds };
    let (target, predicted) = match args.url {
        Some(url) => (Target::Running { url, rtmp: args.rtmp, token: args.token }, None),
        None => {
            let config = config::load(args.config.as_deref(), &args.set)?;
            let token = config.api.token.as_ref().map(|token| token.reveal().to_owned());
            let able = config.transcode.abilities();
            let predicted = Some((RuleTable::new(config.rules), able));
            // As it was typed: the instance reads it again.
            let set = args.set.iter().map(|set| format!("{}={}", set.keys.join("."), set.text.as_deref().unwrap_or_default()));
            (Target::Own { file: args.config, set: set.collect(), token }, predicted)
        }
    };
    Ok(Options {
        target,
        key: args.key,
        application: args.app.to_string(),
        from: all_when_empty(args.from),
        to: all_when_empty(args.to),
        seconds: Duration::from_secs(args.seconds),
        clients: args.clients,
        webrtc: args.client,
        origin: args.origin,
        predicted,
    })
}

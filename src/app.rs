//! Assembly: from a checked configuration to running gateways, and back to nothing on a signal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use patchbay_contract::{Gateway, Hub};
use patchbay_inbound::Ports;
use patchbay_outbound::Policy;
use patchbay_rules::RuleTable;
use patchbay_transcode::{Engine, EngineConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{BadKey, Gate};
use crate::cli::{DemoArgs, RunArgs};
use crate::config::{self, Config};
use crate::hub::{HubHandle, Switchboard};
use crate::logging::SetLevel;
use crate::pulls::Pulls;
use crate::pushes::Pushes;
use crate::reload::{Load, Reload};
use crate::{demo, http, logging};

/// Why patchbay did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was started.
    #[error(transparent)]
    Config(#[from] config::LoadError),
    /// A port of HTTP or RTMP could not be opened.
    #[error(transparent)]
    Ports(#[from] patchbay_inbound::BindError),
    /// The WebRTC gateway could not be opened.
    #[error("webrtc.listen: {0}")]
    Webrtc(#[from] patchbay_webrtc::BindError),
    /// Keys or webhook cannot be used.
    #[error("{}: {}", .0.0, .0.1)]
    Auth(BadKey),
    /// The metrics could not be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The runtime failed.
    #[error("the runtime failed: {0}")]
    Io(#[from] std::io::Error),
}

impl From<BadKey> for Error {
    fn from(bad: BadKey) -> Self {
        Self::Auth(bad)
    }
}

/// `patchbay run`: until SIGINT or SIGTERM.
pub fn run(args: &RunArgs) -> Result<(), Error> {
    let (file, flags) = (args.config.clone(), args.set.clone());
    let load = move || config::load(file.as_deref(), &flags);
    start(load()?, None, Arc::new(load), args.config.clone())
}

/// `patchbay demo`: the same with a built-in picture, on loopback unless told otherwise.
pub fn demo(args: &DemoArgs) -> Result<(), Error> {
    let flags = args.overrides();
    let load = move || config::load(None, &flags);
    start(load()?, Some(demo::Demo::default()), Arc::new(load), None)
}

fn start(config: Config, demo: Option<demo::Demo>, load: Load, file: Option<PathBuf>) -> Result<(), Error> {
    let set_level = logging::to_stderr(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("control").build()?;
    runtime.block_on(serve(config, demo, load, file, set_level))
}

/// The hub as the configuration wants it.
fn switchboard(config: &Config, gate: Arc<Gate>) -> Arc<Switchboard> {
    let engine =
        Engine::new(EngineConfig { threads: config.transcode.threads.into(), nice: config.transcode.nice, ..EngineConfig::default() });
    let rules = RuleTable::new(config.rules.clone());
    Switchboard::new(engine, config.transcode.abilities(), rules, config.hub_routes(), gate, config.hub_settings())
}

async fn serve(config: Config, demo: Option<demo::Demo>, load: Load, file: Option<PathBuf>, set_level: SetLevel) -> Result<(), Error> {
    let (shutdown, draining) = (CancellationToken::new(), CancellationToken::new());
    // Before anything else: without it a hangup ends the process.
    let hangup = signal(SignalKind::hangup())?;
    let gate = Arc::new(Gate::new(&config.auth)?);
    let board = switchboard(&config, gate.clone());
    let hub: Arc<dyn Hub> = Arc::new(HubHandle(board.clone()));
    let ports = Ports::bind(config.http.ports()).await?;
    let rtmp = patchbay_rtmp::Gateway::bind(config.rtmp.clone(), hub.clone()).await?;
    let webrtc = patchbay_webrtc::Gateway::bind(config.webrtc.clone(), hub.clone())?;
    let h5 = patchbay_h5::Gateway::new(config.h5.clone(), hub.clone());
    // One line per gateway.
    let gateways: [Arc<dyn Gateway>; 3] = [rtmp, webrtc, h5];

    let pushes = Pushes::new(hub.clone(), &config.outbound);
    config.pushes.iter().filter(|p| p.enabled).for_each(|push| pushes.start_configured(push));
    let pulls = Pulls::new(hub.clone(), board.clone(), Policy::checked(&config.outbound), config.pulls.clone());
    board.pull_with(pulls.clone());
    let reload = Arc::new(Reload {
        load,
        file,
        board: board.clone(),
        gate: gate.clone(),
        pushes: pushes.clone(),
        pulls: pulls.clone(),
        set_level,
        config: Mutex::new(config.clone()),
    });
    let state = http::State {
        hub: board.clone(),
        pushes: pushes.clone(),
        pulls: pulls.clone(),
        reload: reload.clone(),
        info: info(&config, demo.is_some()),
        gate,
        api_token: config.api.token.as_ref().map(|t| t.reveal().into()),
        draining: draining.clone(),
        recorder: PrometheusBuilder::new().install_recorder()?,
    };
    let router = http::router(state, &config.http, gateways.iter().map(|g| g.clone().routes()));

    let tasks = TaskTracker::new();
    tasks.spawn(board.clone().run(shutdown.clone()));
    tasks.spawn(pulls.clone().run(shutdown.clone()));
    for gateway in &gateways {
        let (name, run) = (gateway.name(), gateway.clone().run(shutdown.clone()));
        tasks.spawn(async move {
            if let Err(error) = run.await {
                tracing::error!(gateway = name, %error, "gateway failed");
            }
        });
    }
    tasks.spawn(http::serve(ports, router, shutdown.clone()));
    if let Some(demo) = demo {
        demo.publish(hub, shutdown.clone());
        println!("{}", demo::welcome(&config));
    }
    for claim in config.claims() {
        tracing::info!(key = claim.owner, transport = %claim.transport.as_str(), address = %claim.address, "listening");
    }
    tokio::select! {
        () = stop_signal() => {}
        () = reload.run(hangup) => {}
    }
    pulls.stop_all();
    drain(&config, &board, &pushes, &draining, &shutdown, &tasks).await;
    Ok(())
}

fn info(config: &Config, demo: bool) -> http::Info {
    http::Info {
        version: env!("CARGO_PKG_VERSION"),
        rtmp_port: config.rtmp.listen.port(),
        http_port: config.http.listen.port(),
        webrtc_port: config.webrtc.listen.port(),
        demo,
    }
}

/// SIGINT or SIGTERM.
pub async fn stop_signal() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}

/// Ask, wait, then break off: `limits.drain_s`, or at once on a second signal.
async fn drain(
    config: &Config,
    board: &Arc<Switchboard>,
    pushes: &Pushes,
    draining: &CancellationToken,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) {
    tracing::info!(seconds = config.limits.drain_s, "stopping: no new sessions, asking the live ones to end");
    draining.cancel();
    board.drain();
    pushes.stop_all();
    let idle = async {
        while !board.is_idle() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = idle => {}
        () = tokio::time::sleep(Duration::from_secs(config.limits.drain_s.into())) => {
            tracing::warn!(sessions = board.sessions().len(), "sessions are broken off");
        }
        () = stop_signal() => {}
    }
    shutdown.cancel();
    tasks.close();
    if tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
}

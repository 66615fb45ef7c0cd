//! `patchbay-impair`: the proxy for scripts. Prints the address it listens on, then, at its end, its counters as JSON.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use patchbay_impair::{BadProfile, Profile, Proxy, Schedule, Setting};

/// A bad network in user space: loses, delays, reorders, doubles and throttles what passes through it, by a seed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    carries: Carries,
}

#[derive(Subcommand)]
enum Carries {
    /// Datagrams; the server sees every client come from a port of its own.
    Udp(Options),
    /// Connections: delay, jitter, rate, stall and reset.
    Tcp(Options),
}

#[derive(Args)]
struct Options {
    /// Where clients send to.
    #[arg(long)]
    listen: SocketAddr,
    /// Where it goes.
    #[arg(long)]
    to: SocketAddr,
    /// What chance starts from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Percent lost, both ways.
    #[arg(long)]
    loss: Option<f64>,
    /// Mean length of a loss, packets.
    #[arg(long)]
    burst: Option<f64>,
    /// Milliseconds every packet takes.
    #[arg(long)]
    delay: Option<f64>,
    /// Milliseconds it takes longer at most.
    #[arg(long)]
    jitter: Option<f64>,
    /// Percent that is overtaken.
    #[arg(long)]
    reorder: Option<f64>,
    /// Percent that comes twice.
    #[arg(long)]
    duplicate: Option<f64>,
    /// Bottleneck, kbit/s.
    #[arg(long)]
    rate: Option<f64>,
    /// Milliseconds that may wait for the bottleneck.
    #[arg(long)]
    queue: Option<f64>,
    /// From client to server, instead of what is said for both: `loss=5,delay=40`.
    #[arg(long)]
    up: Option<Profile>,
    /// From server to client.
    #[arg(long)]
    down: Option<Profile>,
    /// Changes on the way: `10s: loss=30; 20s: up stall / down loss=1; 25s: break; 30s: clear`.
    #[arg(long, default_value = "")]
    schedule: Schedule,
    /// Ends after so long; else with Ctrl-C or SIGTERM.
    #[arg(long)]
    seconds: Option<u64>,
}

impl Options {
    fn setting(&self) -> Result<Setting, BadProfile> {
        let mut both = Profile::default();
        let given = [
            ("loss", self.loss),
            ("burst", self.burst),
            ("delay", self.delay),
            ("jitter", self.jitter),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("rate", self.rate),
            ("queue", self.queue),
        ];
        for (key, value) in given {
            value.map_or(Ok(()), |value| both.apply(&format!("{key}={value}")))?;
        }
        Ok(Setting { up: self.up.unwrap_or(both), down: self.down.unwrap_or(both) })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().carries).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("patchbay-impair: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(carries: Carries) -> Result<(), Box<dyn std::error::Error>> {
    let (Carries::Udp(options) | Carries::Tcp(options)) = &carries;
    let (listen, to, seed, setting) = (options.listen, options.to, options.seed, options.setting()?);
    let proxy = match carries {
        Carries::Udp(_) => Proxy::udp(listen, to, setting, seed).await,
        Carries::Tcp(_) => Proxy::tcp(listen, to, setting, seed).await,
    };
    let proxy = proxy.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    println!("{}", proxy.addr());
    tokio::select! {
        () = end(options.seconds)? => {}
        () = async { proxy.follow(&options.schedule).await; std::future::pending().await } => {}
    }
    println!("{}", serde_json::to_string(&proxy.stats())?);
    Ok(())
}

/// The given time, Ctrl-C or SIGTERM.
fn end(seconds: Option<u64>) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        let given = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = given => {}
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    })
}

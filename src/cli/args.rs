//! What can be typed: subcommands, their flags and their help.
//!
//! Refuses: to do anything. Help texts stay under 60 lines each; a test counts.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Override;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, or the configuration has problems
  2  the command line is wrong";

/// Media protocol gateway and transcoding hub: RTMP, HTTP-FLV and WebRTC, each to each.
#[derive(Debug, Parser)]
#[command(
    name = "patchbay",
    version,
    after_help = format!("Examples:\n  patchbay demo                      a moving test picture, playable at once\n  patchbay run --config patchbay.toml\n\n{EXIT_CODES}"),
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until it is told to stop.
    Run(RunArgs),
    /// Run with a built-in test picture and print every URL to publish and to watch.
    Demo(DemoArgs),
    #[command(flatten)]
    Tool(Tool),
}

/// Subcommands that find something out, print it and are done.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Check a configuration file and name every problem; start nothing.
    Check(CheckArgs),
    /// Print which endpoint kinds are passed through and which transcoded, or explain one pair.
    Matrix(MatrixArgs),
    /// Drive every cell of the matrix with real clients and print which are good.
    Interop(Box<super::interop::InteropArgs>),
    /// Print the configuration's documentation, JSON schema or a sample.
    Config(ConfigArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
}

/// Flags of `run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchbay run                                   every key at its default
  patchbay run --config /etc/patchbay.toml
  patchbay run --set http.listen=127.0.0.1:9000 --set log.format=json

A value is taken from --set, else the environment (PATCHBAY__HTTP__LISTEN), else the file, else the default.
`patchbay config docs` lists every key.

SIGHUP, POST /v1/reload and a changed file have the configuration read again: all of it, or nothing when anything is
wrong. Routes, rules, pushes, pulls, limits and log.level take effect at once and touch no live session whose verdict stays.
SIGTERM and SIGINT stop it: sessions get `limits.drain_s` seconds to end. A second signal ends it at once.
Exit codes: 0 stopped as asked; 1 the configuration has problems, a port is taken, or it failed; 2 wrong usage.")]
pub struct RunArgs {
    /// Configuration file (TOML).
    #[arg(short, long, value_name = "FILE", env = "PATCHBAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one key over file and environment; may be given again.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<Override>,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchbay demo                          reachable from this machine only
  patchbay demo --lan                    reachable from the whole network: no keys are asked for
  patchbay demo --http-port 9080 --rtmp-port 11935

Publishes live/demo (clock, frame counter, tone), made in process, and prints the URLs to publish and to watch.
Exit codes: 0 stopped as asked; 1 a port is taken, or it failed; 2 wrong usage.")]
pub struct DemoArgs {
    /// Listen on every address of this machine, not on loopback alone.
    #[arg(long, conflicts_with = "bind")]
    pub lan: bool,
    /// Listen on this address.
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind: IpAddr,
    /// TCP port of pages, WHIP, WHEP, FLV and the API.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub http_port: u16,
    /// TCP port of RTMP.
    #[arg(long, value_name = "PORT", default_value_t = 1935)]
    pub rtmp_port: u16,
    /// UDP port of WebRTC media.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub webrtc_port: u16,
    /// Set one more key; may be given again.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<Override>,
}

impl DemoArgs {
    /// The address everything listens on.
    pub fn address(&self) -> IpAddr {
        if self.lan { Ipv4Addr::UNSPECIFIED.into() } else { self.bind }
    }

    /// The flags as configuration; `--set` comes last and wins.
    pub fn overrides(&self) -> Vec<Override> {
        let listen = |key: &str, port| Override::flag(key, std::net::SocketAddr::new(self.address(), port).to_string());
        let mut all =
            vec![listen("http.listen", self.http_port), listen("rtmp.listen", self.rtmp_port), listen("webrtc.listen", self.webrtc_port)];
        all.push(Override::flag("auth.open", "true"));
        all.extend_from_slice(&self.set);
        all
    }
}

pub(super) fn key_value(text: &str) -> Result<Override, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as rtmp.listen=0.0.0.0:1936")?;
    Ok(Override::flag(key.trim(), value))
}

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  patchbay check patchbay.toml

Looks at the file and at PATCHBAY__… variables of the environment, as `run` does.
Exit codes: 0 it can be run; 1 it has problems, all of which are printed; 2 wrong usage.")]
pub struct CheckArgs {
    /// Configuration file (TOML).
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Flags of `matrix`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  patchbay matrix
  patchbay matrix explain --from rtmp --to webrtc --video h264:high:bframes=2 --audio aac

Exit codes: 0 done; 1 the configuration has problems; 2 wrong usage."
)]
pub struct MatrixArgs {
    #[command(subcommand)]
    pub command: Option<MatrixCommand>,
}

/// What to do with the matrix.
#[derive(Debug, Subcommand)]
pub enum MatrixCommand {
    /// Say which rule decides a pair, the verdict for each track, and why.
    Explain(super::matrix::ExplainArgs),
}

/// Flags of `config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchbay config example > patchbay.toml
  patchbay config schema > patchbay.schema.json      # for editors
  patchbay config docs | less

Exit codes: 0 done; 2 wrong usage.")]
pub struct ConfigArgs {
    /// What to print.
    #[arg(value_enum)]
    pub what: ConfigDocument,
}

/// The documents of the configuration.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ConfigDocument {
    /// Every key with type, default and meaning, as Markdown.
    Docs,
    /// JSON schema, for editors.
    Schema,
    /// A TOML file with every key at its default.
    Example,
}

/// Flags of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchbay completions bash > /etc/bash_completion.d/patchbay
  patchbay completions zsh > \"${fpath[1]}/_patchbay\"

Exit codes: 0 done; 2 wrong usage.")]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

//! The command line: parsed into [`Command`]; tools that print are done here, `run` and `demo` are the caller's.
//!
//! Exit codes of every subcommand: 0 done, 1 it failed or the configuration has problems, 2 wrong usage.

mod args;
mod interop;
mod matrix;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::config;

use args::{Cli, ConfigDocument, MatrixCommand};
pub use args::{Command, DemoArgs, RunArgs, Tool};

/// Reads the process's arguments. Ends the process with 0 after `--help` and `--version`, with 2 on wrong usage.
pub fn parse() -> Command {
    Cli::parse().command
}

/// Does what needs no running gateway.
pub fn execute(tool: Tool) -> ExitCode {
    let text = match tool {
        Tool::Check(args) => match config::check(&args.file) {
            Ok(()) => format!("{}: ok\n", args.file.display()),
            Err(e) => return failed(&e),
        },
        Tool::Matrix(args) => match args.command {
            None => matrix::table(),
            Some(MatrixCommand::Explain(args)) => match matrix::explain(&args) {
                Ok(text) => text,
                Err(e) => return failed(&e),
            },
        },
        Tool::Interop(args) => return interop::execute(*args),
        Tool::Config(args) => match args.what {
            ConfigDocument::Docs => config::markdown(),
            ConfigDocument::Schema => config::schema_text(),
            ConfigDocument::Example => config::example(),
        },
        Tool::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "patchbay", &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    };
    print(&text)
}

/// Says why it failed, for people, and gives the exit code.
pub fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

/// Standard output may be a pipe that was closed, as by `| head`; that is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => failed(&e),
        _ => ExitCode::SUCCESS,
    }
}

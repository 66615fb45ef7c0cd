//! patchbay: media protocol gateway and transcoding interop hub.
//!
//! This file owns the way in: parse the command line, hand over to [`app`] or print.

mod app;
mod auth;
mod cli;
mod config;
mod demo;
mod http;
mod hub;
mod interop;
mod logging;
mod pulls;
mod pushes;
mod reload;
mod secrets;

use std::process::ExitCode;

use crate::cli::Command;

fn main() -> ExitCode {
    match cli::parse() {
        Command::Run(args) => finish(app::run(&args)),
        Command::Demo(args) => finish(app::demo(&args)),
        Command::Tool(tool) => cli::execute(tool),
    }
}

fn finish(result: Result<(), app::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failed(&error),
    }
}

//! Log lines on standard error, and the level they can be set to later.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use crate::config::{Log, LogFormat};

/// Sets which lines are logged from now on.
pub type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

/// Opens the log of the process.
pub fn to_stderr(log: &Log) -> SetLevel {
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(terminal);
    if json {
        let lines = lines.json().flatten_event(true).with_env_filter(filter(&log.level)).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        setter(handle)
    } else {
        let lines = lines.with_env_filter(filter(&log.level)).with_filter_reloading();
        let handle = lines.reload_handle();
        lines.init();
        setter(handle)
    }
}

fn setter<S: 'static>(handle: Handle<EnvFilter, S>) -> SetLevel {
    Box::new(move |level| {
        if let Err(error) = handle.reload(filter(level)) {
            tracing::error!(%error, "log level not changed");
        }
    })
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}

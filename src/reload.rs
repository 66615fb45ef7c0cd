//! The configuration is read again while everything runs: on SIGHUP, by the API, and when its file has changed.
//!
//! It is checked first and taken as a whole or not at all. Live sessions are not touched: routes and limits decide on
//! those that come, and rules only lead those pairs elsewhere whose verdict changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use patchbay_rules::RuleTable;
use serde::Serialize;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::auth::Gate;
use crate::config::{Config, LoadError, Push};
use crate::hub::Switchboard;
use crate::logging::SetLevel;
use crate::pulls::Pulls;
use crate::pushes::Pushes;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads the configuration from where it came from.
pub type Load = Arc<dyn Fn() -> Result<Config, LoadError> + Send + Sync>;

/// What reading it again changed.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Outcome {
    /// Sections that are in force as they are read now.
    pub applied: Vec<&'static str>,
    /// Sections that have changed and take effect at the next start.
    pub at_next_start: Vec<&'static str>,
}

/// Reads the configuration again.
pub struct Reload {
    pub load: Load,
    /// Is watched.
    pub file: Option<PathBuf>,
    pub board: Arc<Switchboard>,
    pub gate: Arc<Gate>,
    pub pushes: Arc<Pushes>,
    pub pulls: Arc<Pulls>,
    pub set_level: SetLevel,
    /// What is in force, but for sections that wait for the next start. Also keeps two reloads apart.
    pub config: Mutex<Config>,
}

impl Reload {
    /// Reads it now.
    ///
    /// # Errors
    /// Everything that is wrong with it; nothing has changed then.
    pub async fn now(&self) -> Result<Outcome, LoadError> {
        let mut config = self.config.lock().await;
        let load = self.load.clone();
        let new =
            tokio::task::spawn_blocking(move || load()).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let outcome = self.apply(&mut config, new);
        let in_words = |sections: &[&str]| if sections.is_empty() { "nothing".into() } else { sections.join(", ") };
        tracing::info!(applied = in_words(&outcome.applied), at_next_start = in_words(&outcome.at_next_start), "configuration read again");
        Ok(outcome)
    }

    fn apply(&self, old: &mut Config, new: Config) -> Outcome {
        let mut outcome = Outcome::default();
        let mut applied = |section, changed: bool| {
            if changed {
                outcome.applied.push(section);
            }
            changed
        };
        if applied("routes", old.routes != new.routes) {
            self.board.set_routes(new.hub_routes());
        }
        if applied("limits", old.limits != new.limits) {
            // What is about transcoding waits for the next start.
            let transcode = old.transcode.clone();
            self.board.set_settings(Config { transcode, ..new.clone() }.hub_settings());
        }
        if applied("auth", old.auth != new.auth)
            && let Err((key, why)) = self.gate.set(&new.auth)
        {
            tracing::error!(key, why, "stays as it was");
        }
        // The API may have replaced them since.
        if applied("rules", self.board.rules_now() != new.rules) {
            self.board.set_rules(RuleTable::new(new.rules.clone()));
        }
        if applied("outbound", old.outbound != new.outbound) {
            self.pushes.set_outbound(&new.outbound);
            old.outbound = new.outbound.clone();
        }
        if applied("pushes", old.pushes != new.pushes) {
            self.follow_pushes(&old.pushes, &new.pushes);
        }
        if applied("pulls", old.pulls != new.pulls) {
            self.pulls.set(new.pulls.clone());
            old.pulls.clone_from(&new.pulls);
        }
        if applied("log.level", old.log.level != new.log.level) {
            (self.set_level)(&new.log.level);
        }
        (old.routes, old.limits, old.rules, old.pushes) = (new.routes.clone(), new.limits.clone(), new.rules.clone(), new.pushes.clone());
        old.auth.clone_from(&new.auth);
        old.log.level.clone_from(&new.log.level);
        let waiting = [
            ("http", old.http != new.http),
            ("api", old.api != new.api),
            ("rtmp", old.rtmp != new.rtmp),
            ("webrtc", old.webrtc != new.webrtc),
            ("h5", old.h5 != new.h5),
            ("transcode", old.transcode != new.transcode),
            ("log.format", old.log.format != new.log.format),
        ];
        outcome.at_next_start = waiting.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect();
        outcome
    }

    /// Stops the pushes that are gone or different, and starts those that are new or different; the others go on.
    fn follow_pushes(&self, old: &[Push], new: &[Push]) {
        let stays = |push: &Push, list: &[Push]| push.enabled && list.contains(push);
        for push in old.iter().filter(|push| push.enabled && !stays(push, new)) {
            self.pushes.stop(&push.name);
        }
        for push in new.iter().filter(|push| push.enabled && !stays(push, old)) {
            self.pushes.start_configured(push);
        }
    }

    /// Answers hangups, and looks after the file. Never ends.
    pub async fn run(&self, mut hangup: Signal) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut read = self.signature().await;
        let mut seen = read;
        loop {
            tokio::select! {
                _ = hangup.recv() => {}
                _ = look.tick() => {
                    let before = std::mem::replace(&mut seen, self.signature().await);
                    // Somebody may still be writing until it looks the same twice.
                    if seen.is_none() || seen == read || seen != before {
                        continue;
                    }
                }
            }
            read = seen;
            if let Err(error) = self.now().await {
                tracing::error!(%error, "configuration not read again; all stays as it is");
            }
        }
    }

    /// What changes whenever the file is written.
    async fn signature(&self) -> Option<(SystemTime, u64)> {
        let meta = tokio::fs::metadata(self.file.as_ref()?).await.ok()?;
        Some((meta.modified().ok()?, meta.len()))
    }
}

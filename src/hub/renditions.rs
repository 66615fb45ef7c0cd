//! Renditions by source track and exact target: whoever asks for the same bits gets the same encoder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use patchbay_bus::{Track, TrackUid, now};
use patchbay_media::{MediaTime, Target};
use patchbay_transcode::{Engine, Rendition, RenditionStats, StartError};

use super::budget::{Demand, Load, estimate};
use patchbay_rules::Ladder;

/// A rendition younger than this counts by estimate: its first seconds hold the catch-up of a group.
const SETTLED: MediaTime = MediaTime::from_secs(2);
/// Each look at a rendition weighs this much against those before it.
const WEIGHT: f64 = 0.3;
/// A rendition that loses more pictures than this many times those it makes is not taken at its word.
const BEHIND_MAX: f64 = 4.0;

/// One running encoder. It stops when the last pair that holds it lets go.
pub struct Handle {
    /// `<source track>>target`, unique among live renditions.
    pub id: String,
    /// What it makes.
    pub target: Target,
    /// What was asked for, before any step down.
    demand: Demand,
    rendition: Rendition,
    meter: Mutex<Meter>,
}

impl Handle {
    /// The derived track.
    pub fn track(&self) -> &Arc<Track> {
        self.rendition.track()
    }

    /// Figures of the engine.
    pub fn rendition(&self) -> &Rendition {
        &self.rendition
    }

    /// The track it is made from.
    pub fn source(&self) -> TrackUid {
        self.demand.source
    }

    /// Cores it takes and needs; `None` while it is too young to tell.
    fn cores(&self) -> Option<f64> {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.look(&self.rendition.stats(), now());
        meter.cores.filter(|_| now() - meter.since > SETTLED)
    }
}

/// Follows what a rendition takes.
struct Meter {
    since: MediaTime,
    last: MediaTime,
    cpu_ns: u64,
    frames_in: u64,
    dropped: u64,
    cores: Option<f64>,
}

impl Meter {
    fn new() -> Self {
        Self { since: now(), last: now(), cpu_ns: 0, frames_in: 0, dropped: 0, cores: None }
    }

    fn look(&mut self, stats: &RenditionStats, time: MediaTime) {
        let passed = time - self.last;
        if passed < MediaTime::from_millis(200) {
            return;
        }
        let step = |new: u64, old: u64| new.saturating_sub(old) as f64;
        let (read, dropped) = (step(stats.frames_in, self.frames_in), step(stats.dropped, self.dropped));
        // One that loses pictures for want of time would take more if it could.
        let behind = (read / (read - dropped).max(1.0)).clamp(1.0, BEHIND_MAX);
        let seen = step(stats.cpu_ns, self.cpu_ns) / passed.as_nanos() as f64 * behind;
        self.cores = Some(self.cores.map_or(seen, |cores| cores + (seen - cores) * WEIGHT));
        (self.last, self.cpu_ns, self.frames_in, self.dropped) = (time, stats.cpu_ns, stats.frames_in, stats.dropped);
    }
}

/// Why no rendition was started.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The configured number runs already.
    #[error("the limit of {0} transcodes (transcode.jobs_max) is reached")]
    TooMany(usize),
    /// The engine cannot do it.
    #[error(transparent)]
    Engine(#[from] StartError),
}

type Live = HashMap<(TrackUid, Target), Weak<Handle>>;

/// All live renditions.
pub struct Renditions {
    engine: Arc<Engine>,
    limit: usize,
    live: Mutex<Live>,
}

impl Renditions {
    pub fn new(engine: Arc<Engine>, limit: usize) -> Self {
        Self { engine, limit, live: Mutex::default() }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, handle| handle.strong_count() > 0);
        live
    }

    /// The running rendition of `source` as `target`.
    pub fn running(&self, source: TrackUid, target: Target) -> Option<Arc<Handle>> {
        let handle = self.live().get(&(source, target))?.upgrade()?;
        handle.track().ended().is_none().then_some(handle)
    }

    /// Starts a rendition of `source` as `target`, which is what became of `demand`.
    ///
    /// # Errors
    /// When too many run already, or the engine cannot start it.
    pub fn start(&self, source: &Arc<Track>, target: Target, demand: Demand) -> Result<Arc<Handle>, Refused> {
        let mut live = self.live();
        if live.len() >= self.limit {
            return Err(Refused::TooMany(self.limit));
        }
        let rendition = self.engine.start(source, &target)?;
        let id = format!("{}>{target}", source.uid());
        tracing::info!(rendition = %id, "rendition starts");
        let handle = Arc::new(Handle { id, target, demand, rendition, meter: Mutex::new(Meter::new()) });
        live.insert((source.uid(), target), Arc::downgrade(&handle));
        Ok(handle)
    }

    /// All live renditions, by id.
    pub fn list(&self) -> Vec<Arc<Handle>> {
        let mut all: Vec<_> = self.live().values().filter_map(Weak::upgrade).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// What the live renditions were asked for.
    pub fn demands(&self) -> Vec<Demand> {
        self.list().iter().map(|handle| handle.demand.clone()).collect()
    }

    /// What the live renditions take. `young`: cores for what is too young to be measured.
    pub fn load(&self, young: impl Fn(&[Demand]) -> f64) -> Load {
        let (mut settled, mut unsettled, mut measured) = (Vec::new(), Vec::new(), 0.0);
        for handle in self.list() {
            let as_made = Demand { base: handle.target, ..handle.demand.clone() };
            match handle.cores() {
                Some(cores) => {
                    measured += cores;
                    settled.push(as_made);
                }
                None => unsettled.push(handle.demand.clone()),
            }
        }
        let estimated = estimate(&settled, &Ladder::new(Vec::new()), 0);
        Load { cores: measured + young(&unsettled), measured, estimated }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        tracing::info!(rendition = %self.id, "rendition stops");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use patchbay_transcode::RenditionState;

    fn stats(frames_in: u64, dropped: u64, cpu_ms: u64) -> RenditionStats {
        RenditionStats {
            frames_in,
            frames_out: frames_in - dropped,
            cpu_ns: cpu_ms * 1_000_000,
            added_delay_p50_ns: 0,
            added_delay_last_ns: 0,
            restarts: 0,
            dropped,
            state: RenditionState::Running,
        }
    }

    #[test]
    fn one_that_falls_behind_is_taken_to_need_what_it_lacks() {
        let mut meter = Meter { since: MediaTime::ZERO, last: MediaTime::ZERO, ..Meter::new() };
        meter.look(&stats(30, 0, 400), MediaTime::from_secs(1));
        assert_eq!(meter.cores, Some(0.4));
        // Half the pictures lost: twice the need, by its weight.
        meter.look(&stats(60, 15, 800), MediaTime::from_secs(2));
        assert!((meter.cores.unwrap() - (0.4 + 0.4 * WEIGHT)).abs() < 1e-9);
        // Too early to look again.
        meter.look(&stats(61, 15, 900), MediaTime::from_millis(2_100));
        assert_eq!(meter.frames_in, 60);
    }
}

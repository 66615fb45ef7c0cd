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

    /// Whether its source goes on.
    fn is_live(&self) -> bool {
        self.track().ended().is_none()
    }

    /// What it takes; `None` while it is too young to tell.
    fn measured(&self) -> Option<Measured> {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.look(&self.rendition.stats(), now());
        let old_enough = now() - meter.since > SETTLED;
        meter.seen.filter(|_| old_enough)
    }

    /// Pictures per second that the estimate of it assumes.
    fn assumed_rate(&self) -> Option<f64> {
        let Target::Video(video) = self.target else { return None };
        let rate = self.demand.info.video_shape().and_then(|shape| shape.frame_rate).unwrap_or(30.0);
        Some(video.frame_rate_max.map_or(rate, |max| rate.min(f64::from(max))))
    }
}

/// What a rendition was seen to take, smoothed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Measured {
    /// Cores it takes.
    cores: f64,
    /// Cores it would take if it had the time for the pictures it loses.
    needed: f64,
    /// Frames it makes, per second.
    rate: f64,
}

/// Follows what a rendition takes.
struct Meter {
    since: MediaTime,
    last: MediaTime,
    cpu_ns: u64,
    frames_out: u64,
    shed: u64,
    seen: Option<Measured>,
}

impl Meter {
    fn new() -> Self {
        Self { since: now(), last: now(), cpu_ns: 0, frames_out: 0, shed: 0, seen: None }
    }

    fn look(&mut self, stats: &RenditionStats, time: MediaTime) {
        let passed = time - self.last;
        if passed < MediaTime::from_millis(200) {
            return;
        }
        let step = |new: u64, old: u64| new.saturating_sub(old) as f64;
        let (made, shed) = (step(stats.frames_out, self.frames_out), step(stats.shed, self.shed));
        let behind = ((made + shed) / made.max(1.0)).clamp(1.0, BEHIND_MAX);
        let cores = step(stats.cpu_ns, self.cpu_ns) / passed.as_nanos() as f64;
        let fresh = Measured { cores, needed: cores * behind, rate: made / passed.as_secs_f64() };
        let mix = |old: f64, new: f64| old + (new - old) * WEIGHT;
        self.seen = Some(self.seen.map_or(fresh, |old| Measured {
            cores: mix(old.cores, fresh.cores),
            needed: mix(old.needed, fresh.needed),
            rate: mix(old.rate, fresh.rate),
        }));
        (self.last, self.cpu_ns, self.frames_out, self.shed) = (time, stats.cpu_ns, stats.frames_out, stats.shed);
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

    /// Whether one more may run.
    ///
    /// # Errors
    /// When the configured number runs already.
    pub fn check_room(&self) -> Result<(), Refused> {
        match self.list().iter().filter(|handle| handle.is_live()).count() {
            n if n >= self.limit => Err(Refused::TooMany(self.limit)),
            _ => Ok(()),
        }
    }

    /// Starts a rendition of `source` as `target`, which is what became of `demand`.
    ///
    /// # Errors
    /// When the engine cannot start it.
    pub fn start(&self, source: &Arc<Track>, target: Target, demand: Demand) -> Result<Arc<Handle>, Refused> {
        let mut live = self.live();
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
        self.list().iter().filter(|handle| handle.is_live()).map(|handle| handle.demand.clone()).collect()
    }

    /// What the live renditions take. `young`: cores for what is too young to be measured.
    pub fn load(&self, young: impl Fn(&[Demand]) -> f64) -> Load {
        let (mut typical, mut unsettled, mut load) = (Vec::new(), Vec::new(), Load::default());
        for handle in self.list().iter().filter(|handle| handle.is_live()) {
            let Some(seen) = handle.measured() else {
                unsettled.push(handle.demand.clone());
                continue;
            };
            load.cores += seen.needed;
            // A source that stands still says nothing of what pictures cost, and sound says little.
            if handle.assumed_rate().is_some_and(|rate| seen.rate > rate / 2.0) {
                load.measured += seen.cores;
                typical.push(Demand { base: handle.target, ..handle.demand.clone() });
            }
        }
        load.cores += young(&unsettled);
        load.estimated = estimate(&typical, &Ladder::new(Vec::new()), 0);
        load
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

    fn stats(frames_out: u64, shed: u64, cpu_ms: u64) -> RenditionStats {
        RenditionStats {
            frames_in: 0,
            frames_out,
            cpu_ns: cpu_ms * 1_000_000,
            added_delay_p50_ns: 0,
            added_delay_last_ns: 0,
            restarts: 0,
            dropped: shed,
            shed,
            state: RenditionState::Running,
        }
    }

    #[test]
    fn one_that_falls_behind_is_taken_to_need_what_it_lacks() {
        let mut meter = Meter { since: MediaTime::ZERO, last: MediaTime::ZERO, ..Meter::new() };
        meter.look(&stats(30, 0, 400), MediaTime::from_secs(1));
        assert_eq!(meter.seen, Some(Measured { cores: 0.4, needed: 0.4, rate: 30.0 }));
        // Half the pictures lost: twice the need, by its weight.
        meter.look(&stats(45, 15, 800), MediaTime::from_secs(2));
        let seen = meter.seen.unwrap();
        assert!((seen.needed - (0.4 + 0.4 * WEIGHT)).abs() < 1e-9 && (seen.cores - 0.4).abs() < 1e-9, "{seen:?}");
        // Nothing made and all of it lost: as much as is believed.
        meter.look(&stats(45, 45, 1_200), MediaTime::from_secs(3));
        assert!(meter.seen.unwrap().needed > seen.needed);
        // Too early to look again.
        meter.look(&stats(46, 45, 1_300), MediaTime::from_millis(3_100));
        assert_eq!(meter.frames_out, 45);
    }
}

//! [`Budget`]: how much of the machine transcoding may take, and how far down the ladder it stands.
//!
//! Owns: the level, the figures it is decided from, the decision. Refuses: to start or stop anything (the planner
//! does), and to know of pairs that pass through: they are never degraded.
//!
//! Two things lead down. A new video transcode that does not fit takes all of them down as far as there are pictures,
//! or is refused when even that is too much. A load above the budget that lasts takes them down step by step, to the
//! ladder's end. One way leads up: what runs now would fit a step higher, with room to spare, for a while.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use patchbay_bus::TrackUid;
use patchbay_media::{MediaTime, Target, TrackInfo};
use patchbay_rules::{Ladder, Step};
use patchbay_transcode::{decode_cores, encode_cores};
use serde::Serialize;
use utoipa::ToSchema;

/// A load above the budget by this much…
const OVER: f64 = 1.05;
/// …for this long leads one step down. Shorter peaks are what queues are for.
const OVER_FOR: MediaTime = MediaTime::from_millis(1_500);
/// What a step up would cost must be below this part of the budget (all of it, where the step brings pictures back)…
const ROOM: f64 = 0.85;
/// …for this long, so that the picture does not change size every few seconds…
const ROOM_FOR: MediaTime = MediaTime::from_secs(5);
/// …and for twice as long after each step up that did not hold for this long, up to the limit.
const HELD: MediaTime = MediaTime::from_secs(20);
const ROOM_FOR_MAX: MediaTime = MediaTime::from_secs(80);
/// Part of the way back to the built-in estimate with each look that learns nothing: a minute or so.
const FORGET: f64 = 1.0 / 240.0;
/// How far this machine may differ from the one the estimates were made on.
const SPEED: std::ops::RangeInclusive<f64> = 0.2..=4.0;

/// A transcode somebody wants: from this source to this, before any step down.
#[derive(Clone, Debug)]
pub struct Demand {
    pub source: TrackUid,
    pub info: Arc<TrackInfo>,
    pub base: Target,
    /// Who watches it cannot follow a change of size.
    pub keeps_size: bool,
}

impl Demand {
    /// The same, made as `target` for somebody who keeps that size from now on.
    pub fn begun_as(mut self, target: Target) -> Self {
        if let (Target::Video(base), Target::Video(made)) = (&mut self.base, target) {
            base.size = made.size;
        }
        Self { keeps_size: true, ..self }
    }

    /// What is made of it at `level`; `None` where there are no pictures.
    fn at(&self, ladder: &Ladder, level: usize) -> Option<Target> {
        match self.base {
            Target::Audio(_) => Some(self.base),
            Target::Video(video) => {
                let source = self.info.video_shape().copied().unwrap_or_default();
                ladder.apply(level, video, &source, self.keeps_size).map(Target::Video)
            }
        }
    }
}

/// Estimated cores for `demands` at `level`: each source's pictures are decoded once, equal targets encoded once.
pub fn estimate<'a>(demands: impl IntoIterator<Item = &'a Demand>, ladder: &Ladder, level: usize) -> f64 {
    let (mut decoded, mut encoded) = (HashSet::new(), HashSet::new());
    let mut cores = 0.0;
    for demand in demands {
        let Some(target) = demand.at(ladder, level) else { continue };
        if !encoded.insert((demand.source, target)) {
            continue;
        }
        cores += encode_cores(&demand.info, &target);
        // Sounds are decoded by each rendition of its own.
        if matches!(target, Target::Audio(_)) || decoded.insert(demand.source) {
            cores += decode_cores(&demand.info);
        }
    }
    cores
}

/// Where transcoding stands, as the API shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LoadView {
    /// Cores that transcoding may take (`transcode.cpu_budget`).
    pub budget_cores: f64,
    /// Cores it takes now.
    pub used_cores: f64,
    /// Steps of the ladder in force: 0 is none.
    pub level: usize,
    /// The steps in force, in the order they were taken.
    #[schema(value_type = Vec<String>)]
    pub steps: Vec<Step>,
    /// Times since the start that a pair went without a track because the budget was spent.
    pub refused: u64,
    /// Steps taken down since the start.
    pub steps_down: u64,
    /// Steps taken up since the start.
    pub steps_up: u64,
    /// What a transcode takes here, as a multiple of the built-in estimate; learned from those that run.
    pub speed: f64,
}

struct State {
    level: usize,
    used: f64,
    speed: f64,
    over_since: Option<MediaTime>,
    room_since: Option<MediaTime>,
    /// How long there must be room now.
    room_for: MediaTime,
    /// The last step up.
    up_at: Option<MediaTime>,
    refused: u64,
    steps_down: u64,
    steps_up: u64,
}

/// What one look at the running transcodes found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Cores they need together; those too young to tell count by estimate.
    pub cores: f64,
    /// Cores that video transcodes at their usual rate take, and the estimate for the same ones.
    pub measured: f64,
    pub estimated: f64,
}

/// The answer to a new video transcode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admission {
    /// It fits at the level of now.
    Fits,
    /// It fits after these many steps, which are taken now: everything must be planned again.
    AtLevel(usize),
    /// It does not fit at any level with pictures.
    Refused,
}

/// See the module.
pub struct Budget {
    cores: f64,
    ladder: Ladder,
    state: Mutex<State>,
}

impl Budget {
    pub fn new(cores: f64, ladder: Ladder) -> Self {
        let state = State {
            level: 0,
            used: 0.0,
            speed: 1.0,
            over_since: None,
            room_since: None,
            room_for: ROOM_FOR,
            up_at: None,
            refused: 0,
            steps_down: 0,
            steps_up: 0,
        };
        Self { cores, ladder, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cores(&self) -> f64 {
        self.cores
    }

    /// Cores that `demands` would take here at the level of now.
    pub fn predict<'a>(&self, demands: impl IntoIterator<Item = &'a Demand>) -> f64 {
        let state = self.state();
        estimate(demands, &self.ladder, state.level) * state.speed
    }

    /// Cores that `demands` would take here if there were no ladder.
    pub fn cores_without_steps<'a>(&self, demands: impl IntoIterator<Item = &'a Demand>) -> f64 {
        estimate(demands, &self.ladder, 0) * self.state().speed
    }

    /// What is made now for what is wanted; `None`: no pictures.
    pub fn step_down(&self, wanted: &Demand) -> Option<Target> {
        wanted.at(&self.ladder, self.state().level)
    }

    /// The steps in force, in words for a reason.
    pub fn steps_in_words(&self) -> String {
        let level = self.state().level;
        self.ladder.taken(level).iter().map(|s| s.name()).collect::<Vec<_>>().join(", ")
    }

    /// Whether `new` may start beside `running`, and at which level. Takes the steps that it needs, if it `may_step`.
    /// Sound costs so little that it always fits; the ladder makes room for it.
    pub fn admit(&self, running: &[Demand], new: &Demand, may_step: bool) -> Admission {
        let is_video = |demand: &Demand| matches!(demand.base, Target::Video(_));
        // With no pictures beside it there is nothing to step down, and nothing to be too much beside.
        if !is_video(new) || !running.iter().any(is_video) && self.alone_fits(new) {
            return Admission::Fits;
        }
        let mut state = self.state();
        let with = |level| estimate(running.iter().chain([new]), &self.ladder, level) * state.speed;
        let without = |level| estimate(running, &self.ladder, level) * state.speed;
        let fits = |level: usize| match level == state.level {
            // What runs is known better than by estimate.
            true => state.used.max(without(level)) + with(level) - without(level) <= self.cores,
            false => with(level) <= self.cores,
        };
        let lowest = if may_step { self.ladder.last_with_pictures().max(state.level) } else { state.level };
        let Some(level) = (state.level..=lowest).find(|level| fits(*level)) else {
            return Admission::Refused;
        };
        if level == state.level {
            return Admission::Fits;
        }
        state.go_to(level);
        Admission::AtLevel(level)
    }

    /// Whether a transcode fits by the built-in estimate alone: what was learned from others must not keep the first one
    /// out.
    fn alone_fits(&self, new: &Demand) -> bool {
        estimate([new], &self.ladder, self.state().level) <= self.cores
    }

    /// A pair goes without a track because of an [`Admission::Refused`].
    pub fn note_refusal(&self) {
        self.state().refused += 1;
    }

    /// Takes note of the load, and a step when it is time for one; `true`: everything must be planned again.
    /// `wanted`: what runs, and what would if there were pictures.
    pub fn govern(&self, load: Load, wanted: &[Demand], now: MediaTime) -> bool {
        let mut state = self.state();
        state.used = load.cores;
        state.learn(load);
        let over = load.cores > self.cores * OVER && state.level < self.ladder.bottom();
        let higher = state.level.checked_sub(1);
        // Who was admitted fits as a whole; who lost its pictures to a short peak gets them back.
        let part = if state.level > self.ladder.last_with_pictures() { 1.0 } else { ROOM };
        let room = higher.is_some_and(|level| estimate(wanted, &self.ladder, level) * state.speed <= self.cores * part);
        let over_for = lasted(&mut state.over_since, over, now);
        let room_for = lasted(&mut state.room_since, room && !over, now);
        if over_for >= Some(OVER_FOR) {
            let level = state.level + 1;
            state.did_not_hold(now);
            state.go_to(level);
            tracing::warn!(used = load.cores, budget = self.cores, step = %self.ladder.taken(level)[level - 1], "transcoding takes too much: one step down");
        } else if room_for >= Some(state.room_for) {
            let level = state.level - 1;
            tracing::info!(used = load.cores, budget = self.cores, step = %self.ladder.taken(level + 1)[level], "room for transcoding again: one step up");
            state.go_to(level);
            state.up_at = Some(now);
        } else {
            return false;
        }
        true
    }

    pub fn view(&self) -> LoadView {
        let state = self.state();
        let round = |cores: f64| (cores * 1e3).round() / 1e3;
        LoadView {
            budget_cores: round(self.cores),
            used_cores: round(state.used),
            level: state.level,
            steps: self.ladder.taken(state.level).to_vec(),
            refused: state.refused,
            steps_down: state.steps_down,
            steps_up: state.steps_up,
            speed: round(state.speed),
        }
    }
}

impl State {
    fn learn(&mut self, load: Load) {
        if load.estimated > 0.0 {
            let seen = (load.measured / load.estimated).clamp(*SPEED.start(), *SPEED.end());
            self.speed += (seen - self.speed) / 4.0;
        } else {
            self.speed += (1.0 - self.speed) * FORGET;
        }
    }

    /// A step down comes: if it takes back a step up of just now, the next one waits longer.
    fn did_not_hold(&mut self, now: MediaTime) {
        let hasty = self.up_at.is_some_and(|up| now - up < HELD);
        self.room_for = if hasty { (self.room_for + self.room_for).min(ROOM_FOR_MAX) } else { ROOM_FOR };
    }

    fn go_to(&mut self, level: usize) {
        self.steps_down += level.saturating_sub(self.level) as u64;
        self.steps_up += self.level.saturating_sub(level) as u64;
        self.level = level;
        (self.over_since, self.room_since) = (None, None);
    }
}

/// How long `holds` has held.
fn lasted(since: &mut Option<MediaTime>, holds: bool, now: MediaTime) -> Option<MediaTime> {
    *since = if holds { Some(since.unwrap_or(now)) } else { None };
    since.map(|since| now - since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use patchbay_media::{Codec, VideoShape, VideoTarget};

    fn demand(source: TrackUid, codec: Codec) -> Demand {
        let shape = VideoShape { width: 1_280, height: 720, frame_rate: Some(30.0), ..VideoShape::default() };
        let info = Arc::new(TrackInfo::video(Codec::H264, Default::default(), shape));
        let base = Target::Video(VideoTarget { codec, size: None, frame_rate_max: None, bitrate_bps: 2_000_000, gop_ms: 2_000 });
        Demand { source, info, base, keeps_size: false }
    }

    fn ladder() -> Ladder {
        Ladder::new(vec![Step::Fps, Step::Size, Step::AudioOnly])
    }

    /// A budget of what `n` such transcodes take.
    fn for_transcodes(n: f64) -> Budget {
        Budget::new(estimate(&[demand(1, Codec::Mpeg1)], &ladder(), 0) * n, ladder())
    }

    fn load_of(budget: &Budget, wanted: &[Demand]) -> Load {
        let cores = budget.predict(wanted);
        Load { cores, measured: cores, estimated: cores }
    }

    #[test]
    fn one_decode_per_source_and_one_encode_per_target() {
        let ladder = ladder();
        let one = estimate(&[demand(1, Codec::Mpeg1)], &ladder, 0);
        assert_eq!(estimate(&[demand(1, Codec::Mpeg1), demand(1, Codec::Mpeg1)], &ladder, 0), one);
        let two_targets = estimate(&[demand(1, Codec::Mpeg1), demand(1, Codec::H264)], &ladder, 0);
        let two_sources = estimate(&[demand(1, Codec::Mpeg1), demand(2, Codec::H264)], &ladder, 0);
        assert!(one < two_targets && two_targets < two_sources);
        assert_eq!(estimate(&[demand(1, Codec::Mpeg1)], &ladder, 3), 0.0);
    }

    #[test]
    fn what_does_not_fit_takes_all_down_and_at_the_end_is_refused() {
        let budget = for_transcodes(1.4);
        let mut running = Vec::new();
        let mut seen = Vec::new();
        for source in 1..=20 {
            let new = demand(source, Codec::Mpeg1);
            seen.push(budget.admit(&running, &new, true));
            if seen[seen.len() - 1] == Admission::Refused {
                break;
            }
            running.push(new);
            budget.govern(load_of(&budget, &running), &running, MediaTime::ZERO);
        }
        assert_eq!(seen[..2], [Admission::Fits, Admission::AtLevel(1)]);
        assert!(seen.contains(&Admission::AtLevel(2)), "{seen:?}");
        assert_eq!(seen.last(), Some(&Admission::Refused), "{seen:?}");
        assert!(!seen.contains(&Admission::AtLevel(3)), "a new one never takes the pictures of others");
        assert_eq!(budget.view().level, 2);
    }

    #[test]
    fn a_lasting_overload_leads_down_to_the_end_and_room_leads_up_again() {
        let budget = for_transcodes(1.0);
        let wanted = [demand(1, Codec::Mpeg1)];
        let (mut time, mut levels) = (MediaTime::ZERO, Vec::new());
        let mut pass = |over: f64, times: usize| {
            for _ in 0..times {
                time += MediaTime::from_millis(250);
                let load = Load { cores: over * budget.cores(), ..Load::default() };
                if budget.govern(load, &wanted, time) {
                    levels.push(budget.view().level);
                }
            }
        };
        pass(1.5, 4);
        pass(0.5, 1);
        pass(1.5, 30);
        pass(0.1, 80);
        // A single full step would not fit with room to spare: 15 frames are as much as there is room for.
        assert_eq!(levels, [1, 2, 3, 2, 1]);
        assert_eq!((budget.view().steps_down, budget.view().steps_up), (3, 2));
    }

    #[test]
    fn sound_and_the_first_picture_always_get_in() {
        let budget = for_transcodes(1.0);
        let sound = patchbay_media::AudioTarget { codec: Codec::Opus, sample_rate: 48_000, channels: 2, bitrate_bps: 64_000 };
        let sound = Demand { base: Target::Audio(sound), ..demand(1, Codec::H264) };
        let first = demand(1, Codec::Mpeg1);
        // A machine that seemed four times as slow once.
        let slow = Load { cores: 4.0, measured: 4.0, estimated: 1.0 };
        (0..40).for_each(|_| _ = budget.govern(slow, &[], MediaTime::ZERO));
        assert_eq!(budget.admit(std::slice::from_ref(&first), &sound, true), Admission::Fits);
        assert_eq!(budget.admit(&[sound], &first, true), Admission::Fits);
        assert_eq!(budget.admit(&[first], &demand(2, Codec::Mpeg1), true), Admission::Refused);
        let before = budget.view().speed;
        (0..400).for_each(|_| _ = budget.govern(Load::default(), &[], MediaTime::ZERO));
        assert!(before > 3.5 && budget.view().speed < 2.0, "{before}, then {}", budget.view().speed);
    }

    #[test]
    fn a_step_up_that_does_not_hold_is_waited_for_longer() {
        let budget = for_transcodes(1.0);
        let wanted = [demand(1, Codec::Mpeg1)];
        let (mut time, mut steps) = (MediaTime::ZERO, Vec::new());
        // Half the load whenever it has stepped down, twice the budget when it has not.
        for _ in 0..400 {
            time += MediaTime::from_millis(250);
            let cores = if budget.view().level == 0 { 2.0 } else { 0.1 } * budget.cores();
            let estimated = budget.cores() * 4.0;
            if budget.govern(Load { cores, measured: estimated / 4.0, estimated }, &wanted, time) {
                steps.push((time.as_secs_f64(), budget.view().level));
            }
        }
        let ups: Vec<f64> = steps.iter().filter(|(_, level)| *level == 0).map(|(at, _)| *at).collect();
        let waits: Vec<f64> = ups.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(waits.len() >= 2 && waits.windows(2).all(|w| w[1] > 1.5 * w[0]), "{steps:?}");
    }

    #[test]
    fn the_estimate_follows_what_is_seen() {
        let budget = for_transcodes(10.0);
        let wanted = [demand(1, Codec::Mpeg1)];
        let before = budget.predict(&wanted);
        for _ in 0..40 {
            budget.govern(Load { cores: 2.0 * before, measured: 2.0 * before, estimated: before }, &wanted, MediaTime::ZERO);
        }
        assert!((budget.predict(&wanted) / before - 2.0).abs() < 0.01);
    }
}

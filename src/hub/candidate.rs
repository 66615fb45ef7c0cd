//! A rule table that may come: what it would change on the live pairs, and the change itself.
//!
//! Both look at what is wanted, before any step down of the ladder: what a table asks for is compared with what the
//! other asks for, not with what the machine has room for at the moment.

use std::collections::{BTreeMap, HashSet};

use patchbay_contract::SessionId;
use patchbay_media::Target;
use patchbay_rules::{Action, Plan, Rule, RuleTable};
use serde::Serialize;
use utoipa::ToSchema;

use super::budget::Demand;
use super::source::{Offer, SourceTrack, SourceTracks, decide};
use super::switchboard::Switchboard;

/// What a table would do to the live pairs.
#[derive(Serialize, ToSchema)]
pub struct RulesPlan {
    /// Pairs that would get something else.
    pub changed: Vec<ChangedPair>,
    /// Pairs that would not notice.
    pub unchanged: usize,
    /// Encoders that would start.
    pub start: Vec<PlannedTranscode>,
    /// Encoders that would stop.
    pub stop: Vec<PlannedTranscode>,
    /// Estimated cores for everything the table of now wants transcoded.
    pub cores_now: f64,
    /// The same for the table that was asked about.
    pub cores_then: f64,
    /// Cores that transcoding may take (`transcode.cpu_budget`).
    pub budget_cores: f64,
    /// Whether the table's transcodes fit into the budget without a step down.
    pub fits: bool,
}

/// A pair that would get something else.
#[derive(Serialize, ToSchema)]
pub struct ChangedPair {
    /// Session of the sink.
    pub id: SessionId,
    /// Stream name.
    pub stream: String,
    /// Kind of the source.
    pub from: String,
    /// Kind of the sink.
    pub to: String,
    /// Name of the rule that would decide.
    pub rule: String,
    /// Video now and then.
    pub video: Change,
    /// Audio now and then.
    pub audio: Change,
}

/// What happens to a track, and what would: `pass`, `drop`, `absent` or the target of a transcode.
#[derive(Serialize, ToSchema, PartialEq, Eq)]
pub struct Change {
    /// By the table of now.
    pub now: String,
    /// By the other one.
    pub then: String,
    /// Why, by the other one.
    pub reason: String,
}

/// A transcode that would start or stop.
#[derive(Serialize, ToSchema, PartialEq, Debug)]
pub struct PlannedTranscode {
    /// Stream it is made from.
    pub stream: String,
    /// What it makes.
    pub target: String,
    /// Estimated cores it takes, its share in a decoder not included.
    pub cores: f64,
}

/// The transcodes that some plans call for, by stream and target; each once.
#[derive(Default)]
struct Wanted(BTreeMap<(String, String), Demand>);

impl Wanted {
    fn add(&mut self, stream: &str, source: Option<&SourceTrack>, action: Action) {
        let (Some(source), Action::Transcode(base)) = (source, action) else { return };
        let demand = Demand { source: source.track.uid(), info: source.info.clone(), base, keeps_size: false };
        self.0.insert((stream.to_owned(), base.to_string()), demand);
    }

    fn add_plan(&mut self, stream: &str, tracks: &SourceTracks, plan: &Plan) {
        self.add(stream, tracks.video.as_ref(), plan.video.action);
        self.add(stream, tracks.audio.as_ref(), plan.audio.action);
    }

    /// Those that `other` does not want.
    fn without(&self, other: &Self, speed: f64) -> Vec<PlannedTranscode> {
        let others: HashSet<_> = other.0.keys().collect();
        let mine = self.0.iter().filter(|(key, _)| !others.contains(key));
        mine.map(|((stream, target), demand)| PlannedTranscode {
            stream: stream.clone(),
            target: target.clone(),
            cores: round(patchbay_transcode::encode_cores(&demand.info, &demand.base) * speed),
        })
        .collect()
    }
}

fn round(cores: f64) -> f64 {
    (cores * 1e3).round() / 1e3
}

fn outcome(action: Action) -> String {
    match action {
        Action::Transcode(target) => Target::to_string(&target),
        other => other.name().to_owned(),
    }
}

impl Switchboard {
    /// The user's rules in force, in their order.
    pub fn rules_now(&self) -> Vec<Rule> {
        self.rules.load().rules().cloned().collect()
    }

    /// What `candidate` would change. Starts and stops nothing.
    pub fn plan_rules(&self, candidate: &RuleTable) -> RulesPlan {
        let rules = self.rules.load();
        let (mut now, mut then) = (Wanted::default(), Wanted::default());
        let (mut changed, mut unchanged) = (Vec::new(), 0);
        let ledger = self.ledger();
        for (name, ids) in &ledger.legs_of {
            let Some(stream) = self.bus().get(name) else { continue };
            let Some(origin) = ledger.publication_of(name).map(|(_, row)| row.origin()) else { continue };
            for (id, row) in ids.iter().filter_map(|id| Some((*id, ledger.legs.get(id)?))) {
                let offer = Offer { stream: &stream, origin, below: row.descent.below() };
                let (tracks_now, of_now) = decide(&rules, offer, &row.sink, &self.abilities);
                let (tracks_then, of_then) = decide(candidate, offer, &row.sink, &self.abilities);
                now.add_plan(name.as_str(), &tracks_now, &of_now);
                then.add_plan(name.as_str(), &tracks_then, &of_then);
                if (of_now.video.action, of_now.audio.action) == (of_then.video.action, of_then.audio.action) {
                    unchanged += 1;
                    continue;
                }
                let change =
                    |a: Action, b: &patchbay_rules::Verdict| Change { now: outcome(a), then: outcome(b.action), reason: b.reason.clone() };
                changed.push(ChangedPair {
                    id,
                    stream: name.to_string(),
                    from: origin.kind.to_string(),
                    to: row.sink.kind.to_string(),
                    rule: of_then.rule.id.to_string(),
                    video: change(of_now.video.action, &of_then.video),
                    audio: change(of_now.audio.action, &of_then.audio),
                });
            }
        }
        drop(ledger);
        changed.sort_by_key(|pair| pair.id);
        let (cores_now, cores_then) = (self.budget.cores_without_steps(now.0.values()), self.budget.cores_without_steps(then.0.values()));
        let speed = self.budget.view().speed;
        RulesPlan {
            changed,
            unchanged,
            start: then.without(&now, speed),
            stop: now.without(&then, speed),
            cores_now: round(cores_now),
            cores_then: round(cores_then),
            budget_cores: round(self.budget.cores()),
            fits: cores_then <= self.budget.cores(),
        }
    }

    /// Puts `table` in force: every pair is planned again, and those whose verdict stays are not touched.
    pub fn set_rules(&self, table: RuleTable) {
        let rules = table.rules().count();
        self.rules.store(std::sync::Arc::new(table));
        tracing::info!(rules, "rules replaced");
        self.replan_all();
    }
}

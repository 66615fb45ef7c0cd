//! Plans: what every pair is to get now, and the tracks its feed points at for that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use patchbay_bus::{EndReason, FeedValue, Point, Stream, StreamName, now};
use patchbay_contract::SessionId;
use patchbay_media::{Kind, MediaTime};
use patchbay_rules::{Action, EndpointKind, ReasonCode, Verdict};

use super::budget::{Admission, Demand};
use super::ledger::{Ledger, LegRow, Planned};
use super::renditions::Handle;
use super::source::{self, Offer, Origin, SourceTrack, decide};
use super::switchboard::Switchboard;

/// Longest group of a source that answers keyframe requests while a player of the RTMP family reads it untouched:
/// such players, and the servers behind a push, can begin only at a key frame, and most services ask for two seconds.
const GROUP_MAX: MediaTime = MediaTime::from_secs(2);

/// How often a transcode that was refused is tried again.
const RETRY_EVERY: MediaTime = MediaTime::from_secs(1);
/// How long an encoder runs beside the one that takes its place: until every reader has gone over at a key frame.
const REPLACED_GRACE: Duration = Duration::from_secs(1);

/// What matters of a pair for its transcodes.
#[derive(Clone, Copy)]
struct Wish {
    /// It cannot follow a change of size once it has begun.
    is_rigid: bool,
    /// It has begun.
    is_settled: bool,
    /// It has a transcode of this kind already: this one comes in its place, and not on top.
    replaces: bool,
    /// Others may step down for it.
    may_step: bool,
}

/// Where a verdict leads.
#[derive(Default)]
struct Destination {
    point: Option<Point>,
    handle: Option<Arc<Handle>>,
    /// A transcode that is called for does not run; it is tried again.
    refused: bool,
    /// A transcode that runs again once there are pictures.
    parked: Option<Demand>,
}

impl Switchboard {
    /// Plans the pairs of a stream again.
    pub(super) fn replan(&self, name: &StreamName) {
        // The ledger first: no publisher comes or goes in it between this look at the bus and the new plans.
        let mut ledger = self.ledger();
        let Some(stream) = self.bus().get(name) else { return };
        let Some(origin) = ledger.publication_of(name).map(|(_, row)| row.origin()) else { return };
        ledger.vanished.remove(name);
        if let Some(row) = ledger.publications.values_mut().find(|row| Arc::ptr_eq(&row.source, &stream)) {
            row.layers = source::layers(&stream);
        }
        for id in ledger.legs_of.get(name).cloned().unwrap_or_default() {
            if let Some(row) = ledger.legs.get_mut(&id) {
                self.plan_leg(id, row, &stream, origin);
            }
        }
    }

    /// Plans one pair from what is live now, and points its feed. A pair whose plan leads where it led before is not
    /// touched.
    pub(super) fn plan_leg(&self, id: SessionId, row: &mut LegRow, stream: &Stream, origin: Origin) {
        let (source, mut decided) =
            decide(&self.rules.load(), Offer { stream, origin, below: row.descent.below() }, &row.sink, &self.abilities);
        let described = source.described(origin, stream);
        let before = |kind| row.plan.as_ref().map(|plan| if kind == Kind::Video { plan.video.code } else { plan.audio.code });
        let wish = |kind, replaces| Wish {
            is_rigid: row.sink.is_rigid,
            is_settled: row.sink.is_settled(),
            replaces,
            // It could not be started at the last attempt: nobody steps down for another one.
            may_step: before(kind) != Some(ReasonCode::TranscodeRefused),
        };
        let replaces = row.video.is_some() || row.parked.is_some();
        let video = self.lead(source.video.as_ref(), &mut decided.video, wish(Kind::Video, replaces));
        let audio = self.lead(source.audio.as_ref(), &mut decided.audio, wish(Kind::Audio, row.audio.is_some()));
        row.retry_at = (video.refused || audio.refused).then(|| now() + RETRY_EVERY);
        row.parked = video.parked;
        let changed = row.plan.as_ref() != Some(&decided);
        let spent = |verdict: &Verdict| verdict.code == ReasonCode::BudgetSpent;
        if changed && (spent(&decided.video) || spent(&decided.audio)) {
            self.budget.note_refusal();
        }
        row.planned_for = Planned {
            kind: Some(origin.kind),
            video: described.video.map(ToString::to_string),
            audio: described.audio.map(ToString::to_string),
        };
        let released = [std::mem::replace(&mut row.video, video.handle), std::mem::replace(&mut row.audio, audio.handle)];
        row.feed.set_if_changed(FeedValue { video: video.point, audio: audio.point, ended: None });
        if changed {
            tracing::info!(
                session = id, stream = %stream.name(), from = %origin.kind, to = %row.sink.kind, rule = %decided.rule.id,
                video = %decided.video.reason, audio = %decided.audio.reason, "pair planned"
            );
        }
        row.sink.settle(&decided, &described);
        row.plan = Some(decided);
        let kept = [&row.video, &row.audio];
        for (old, new) in released.into_iter().zip(kept) {
            if let Some(old) = old.filter(|old| new.as_ref().is_none_or(|new| !Arc::ptr_eq(old, new))) {
                self.release_after(old, self.settings().rendition_grace.min(REPLACED_GRACE));
            }
        }
    }

    /// Lets go of a rendition after its grace.
    pub(super) fn release(&self, handle: Arc<Handle>) {
        self.release_after(handle, self.settings().rendition_grace);
    }

    fn release_after(&self, handle: Arc<Handle>, grace: Duration) {
        self.runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            drop(handle);
        });
    }

    /// Where a verdict leads. A transcode that cannot start turns into a drop, with the reason.
    fn lead(&self, source: Option<&SourceTrack>, verdict: &mut Verdict, wish: Wish) -> Destination {
        let Some(source) = source else { return Destination::default() };
        match verdict.action {
            Action::Pass => Destination { point: Some(Point { track: source.track.clone(), epoch: source.epoch }), ..Default::default() },
            Action::Transcode(base) => {
                let demand = Demand { source: source.track.uid(), info: source.info.clone(), base, keeps_size: wish.is_settled };
                self.lead_to_rendition(source, demand, verdict, wish)
            }
            Action::Drop | Action::Absent => Destination::default(),
        }
    }

    fn lead_to_rendition(&self, source: &SourceTrack, demand: Demand, verdict: &mut Verdict, wish: Wish) -> Destination {
        let base = demand.base;
        let drop = |verdict: &mut Verdict, code, why: String| {
            *verdict = Verdict { action: Action::Drop, code, reason: format!("{} is left out: {why}", base.kind()) };
        };
        if let Err((code, why)) = self.make_room(&demand, wish) {
            drop(verdict, code, why);
            return Destination { refused: true, ..Default::default() };
        }
        let Some(target) = self.budget.step_down(&demand) else {
            let why = format!("transcoding takes more than its budget of {} cores (transcode.cpu_budget)", self.budget.cores());
            drop(verdict, ReasonCode::AudioOnly, why);
            return Destination { parked: Some(demand), ..Default::default() };
        };
        let running = self.renditions().running(demand.source, target);
        let as_counted = || if wish.is_rigid { demand.clone().begun_as(target) } else { demand.clone() };
        match running.map_or_else(|| self.renditions().start(&source.track, target, as_counted()), Ok) {
            Ok(handle) => {
                if target != base {
                    verdict.reason +=
                        &format!("; stepped down ({}) to {target}: the transcode budget is spent", self.budget.steps_in_words());
                    verdict.action = Action::Transcode(target);
                }
                Destination { point: Some(Point::rendition(handle.track().clone())), handle: Some(handle), ..Default::default() }
            }
            Err(error) => {
                tracing::debug!(%target, %error, "rendition refused");
                drop(verdict, ReasonCode::TranscodeRefused, error.to_string());
                Destination { refused: true, ..Default::default() }
            }
        }
    }

    /// Sees to it that a transcode may start if it does not run: others may have to step down for it.
    ///
    /// # Errors
    /// Why it may not.
    fn make_room(&self, demand: &Demand, wish: Wish) -> Result<(), (ReasonCode, String)> {
        let Some(target) = self.budget.step_down(demand) else { return Ok(()) };
        if wish.replaces || self.renditions().running(demand.source, target).is_some() {
            return Ok(());
        }
        self.renditions().check_room().map_err(|e| (ReasonCode::TranscodeRefused, e.to_string()))?;
        match self.budget.admit(&self.renditions().demands(), demand, wish.may_step) {
            Admission::Fits => Ok(()),
            Admission::AtLevel(level) => {
                tracing::warn!(level, steps = self.budget.steps_in_words(), "a new transcode fits only if all step down");
                self.replan_all();
                Ok(())
            }
            Admission::Refused => {
                let cores = self.budget.cores();
                // No figures that change by themselves: the plan would count as another one at each retry.
                let why = format!("the transcode budget of {cores} cores is spent (transcode.cpu_budget; /v1/load shows on what)");
                Err((ReasonCode::BudgetSpent, why))
            }
        }
    }

    /// Asks for key frames where a group grows too long for who reads it.
    pub(super) fn bound_groups(&self) {
        let begins_at_key_frames = |kind| !matches!(kind, EndpointKind::Webrtc | EndpointKind::Sip | EndpointKind::Udp);
        let ledger = self.ledger();
        for row in ledger.legs.values().filter(|row| begins_at_key_frames(row.sink.kind)) {
            let Some(Point { track, .. }) = row.feed.get().video else { continue };
            if row.video.is_none() && track.keyframes().is_answered() && track.group_age().is_some_and(|age| age > GROUP_MAX) {
                track.keyframes().request();
            }
        }
    }

    /// Has the pairs of a simulcast planned again when one of its layers stops or comes back (a sender with little bandwidth
    /// leaves out the largest ones), and when a sink needs a smaller one or may try a larger one.
    pub(super) fn follow_layers(&self) {
        let time = now();
        let mut ledger = self.ledger();
        let Ledger { publications, legs, legs_of, .. } = &mut *ledger;
        for row in publications.values().filter(|row| row.source.is_live() && source::is_layered(&row.source)) {
            let layers = source::layers(&row.source);
            let smaller = layers.len().saturating_sub(1);
            let mut changed = layers != row.layers;
            for leg in legs_of.get(&row.stream).into_iter().flatten() {
                // One that must keep its size would get the smaller layer enlarged.
                let Some(leg) = legs.get_mut(leg).filter(|leg| !leg.sink.is_settled()) else { continue };
                changed |= leg.descent.look(leg.counters.skipped.load(Ordering::Relaxed), smaller, time);
            }
            if changed {
                self.replan_later(&row.stream);
            }
        }
    }

    /// Plans again where an encoder gave up or was refused: its pair would stay without that track.
    pub(super) fn retry_transcodes(&self) {
        let time = now();
        let mut ledger = self.ledger();
        let gave_up = |slot: &Option<Arc<Handle>>| slot.as_ref().is_some_and(|handle| handle.track().ended() == Some(EndReason::Failed));
        let due = |row: &LegRow| row.retry_at.is_some_and(|at| at <= time) || gave_up(&row.video) || gave_up(&row.audio);
        let ids: Vec<_> = ledger.legs.iter().filter(|(_, row)| due(row)).map(|(id, row)| (*id, row.stream.clone())).collect();
        for (id, name) in ids {
            let Some(stream) = self.bus().get(&name) else { continue };
            let Some(origin) = ledger.publication_of(&name).map(|(_, row)| row.origin()) else { continue };
            if let Some(row) = ledger.legs.get_mut(&id) {
                self.plan_leg(id, row, &stream, origin);
            }
        }
    }

    /// Looks at what transcoding takes, and takes a step when it is time for one.
    pub(super) fn govern(&self) {
        let load = self.renditions().load(|young| self.budget.predict(young));
        let mut wanted = self.renditions().demands();
        wanted.extend(self.ledger().legs.values().filter_map(|row| row.parked.clone()));
        if self.budget.govern(load, &wanted, now()) {
            self.replan_all();
        }
    }
}

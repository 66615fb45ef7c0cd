//! Plans: what every pair is to get now, and the tracks its feed points at for that.

use std::sync::Arc;

use patchbay_bus::{EndReason, FeedValue, Point, Stream, StreamName, Track, now};
use patchbay_contract::SessionId;
use patchbay_media::{Kind, MediaTime, TrackInfo};
use patchbay_rules::{Action, EndpointKind, ReasonCode, Source, Verdict, plan};

use super::budget::{Admission, Demand};
use super::ledger::{LegRow, Planned};
use super::renditions::Handle;
use super::switchboard::Switchboard;

/// Longest group of a source that answers keyframe requests while a player of the RTMP family reads it untouched:
/// such players, and the servers behind a push, can begin only at a key frame, and most services ask for two seconds.
const GROUP_MAX: MediaTime = MediaTime::from_secs(2);

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
        let Some(kind) = ledger.publication_of(name).map(|(_, row)| row.kind) else { return };
        ledger.vanished.remove(name);
        for id in ledger.legs_of.get(name).cloned().unwrap_or_default() {
            if let Some(row) = ledger.legs.get_mut(&id) {
                self.plan_leg(id, row, &stream, kind);
            }
        }
    }

    /// Plans one pair from what is live now, and points its feed. A pair whose plan leads where it led before is not
    /// touched.
    pub(super) fn plan_leg(&self, id: SessionId, row: &mut LegRow, stream: &Stream, kind: EndpointKind) {
        let source = SourceTracks::of(stream);
        let described = source.described(kind, stream);
        let mut decided = plan(&self.rules.load(), &described, &row.sink, &self.abilities);
        let keeps_size = row.sink.is_settled();
        let video = self.lead(source.video.as_ref(), &mut decided.video, keeps_size, row.video.is_some() || row.parked.is_some());
        let audio = self.lead(source.audio.as_ref(), &mut decided.audio, keeps_size, row.audio.is_some());
        row.refused = video.refused || audio.refused;
        row.parked = video.parked;
        let changed = row.plan.as_ref() != Some(&decided);
        let spent = |verdict: &Verdict| verdict.code == ReasonCode::BudgetSpent;
        if changed && (spent(&decided.video) || spent(&decided.audio)) {
            self.budget.note_refusal();
        }
        row.planned_for =
            Planned { kind: Some(kind), video: described.video.map(ToString::to_string), audio: described.audio.map(ToString::to_string) };
        let released = [std::mem::replace(&mut row.video, video.handle), std::mem::replace(&mut row.audio, audio.handle)];
        row.feed.set_if_changed(FeedValue { video: video.point, audio: audio.point, ended: None });
        if changed {
            tracing::info!(
                session = id, stream = %stream.name(), from = %kind, to = %row.sink.kind, rule = %decided.rule.id,
                video = %decided.video.reason, audio = %decided.audio.reason, "pair planned"
            );
        }
        row.sink.settle(&decided, &described);
        row.plan = Some(decided);
        released.into_iter().flatten().for_each(|handle| self.release(handle));
    }

    /// Lets go of a rendition after its grace.
    pub(super) fn release(&self, handle: Arc<Handle>) {
        let grace = self.settings.rendition_grace;
        self.runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            drop(handle);
        });
    }

    /// Where a verdict leads. A transcode that cannot start turns into a drop, with the reason. `replaces`: the pair
    /// has a transcode of this kind already, so that this one comes in its place and not on top.
    fn lead(&self, source: Option<&SourceTrack>, verdict: &mut Verdict, keeps_size: bool, replaces: bool) -> Destination {
        let Some(source) = source else { return Destination::default() };
        match verdict.action {
            Action::Pass => Destination { point: Some(Point { track: source.track.clone(), epoch: source.epoch }), ..Default::default() },
            Action::Transcode(base) => {
                let demand = Demand { source: source.track.uid(), info: source.info.clone(), base, keeps_size };
                self.lead_to_rendition(source, demand, verdict, replaces)
            }
            Action::Drop | Action::Absent => Destination::default(),
        }
    }

    fn lead_to_rendition(&self, source: &SourceTrack, demand: Demand, verdict: &mut Verdict, replaces: bool) -> Destination {
        let base = demand.base;
        let drop = |verdict: &mut Verdict, code, why: String| {
            *verdict = Verdict { action: Action::Drop, code, reason: format!("{} is left out: {why}", base.kind()) };
        };
        let stepped = || self.budget.step_down(&demand);
        if let Some(target) = stepped()
            && !replaces
            && self.renditions().running(demand.source, target).is_none()
        {
            match self.budget.admit(&self.renditions().demands(), &demand) {
                Admission::Fits => {}
                Admission::AtLevel(level) => {
                    tracing::warn!(level, steps = self.budget.steps_in_words(), "a new transcode fits only if all step down");
                    self.replan_all();
                }
                Admission::Refused => {
                    // No figures that change by themselves: the plan would count as another one at each retry.
                    let why = format!(
                        "the transcode budget of {} cores is spent (transcode.cpu_budget; /v1/load shows on what)",
                        self.budget.cores()
                    );
                    drop(verdict, ReasonCode::BudgetSpent, why);
                    return Destination { refused: true, ..Default::default() };
                }
            }
        }
        let Some(target) = stepped() else {
            let why = format!("transcoding takes more than its budget of {} cores (transcode.cpu_budget)", self.budget.cores());
            drop(verdict, ReasonCode::AudioOnly, why);
            return Destination { parked: Some(demand.clone()), ..Default::default() };
        };
        let running = self.renditions().running(demand.source, target);
        match running.map_or_else(|| self.renditions().start(&source.track, target, demand.clone()), Ok) {
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

    /// Plans again where an encoder gave up or was refused: its pair would stay without that track.
    pub(super) fn retry_transcodes(&self) {
        let ledger = self.ledger();
        let gave_up = |slot: &Option<Arc<Handle>>| slot.as_ref().is_some_and(|handle| handle.track().ended() == Some(EndReason::Failed));
        for row in ledger.legs.values().filter(|row| row.refused || gave_up(&row.video) || gave_up(&row.audio)) {
            self.replan_soon(&row.stream);
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

/// A source track with the description a plan is made from.
pub(super) struct SourceTrack {
    pub track: Arc<Track>,
    pub info: Arc<TrackInfo>,
    epoch: u32,
}

/// The tracks of a live stream as a plan sees them.
pub(super) struct SourceTracks {
    pub video: Option<SourceTrack>,
    pub audio: Option<SourceTrack>,
}

impl SourceTracks {
    pub(super) fn of(stream: &Stream) -> Self {
        let pick = |kind| {
            let track = stream.track(kind)?;
            let (info, epoch) = track.info()?;
            Some(SourceTrack { track, info, epoch })
        };
        Self { video: pick(Kind::Video), audio: pick(Kind::Audio) }
    }

    pub(super) fn described<'a>(&'a self, kind: EndpointKind, stream: &'a Stream) -> Source<'a> {
        let info = |track: &'a Option<SourceTrack>| track.as_ref().map(|t| &*t.info);
        Source { kind, stream: stream.name().as_str(), video: info(&self.video), audio: info(&self.audio) }
    }
}

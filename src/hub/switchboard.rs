//! The switchboard: plans every pair, points its feed at the right tracks, and does so again when something
//! changes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use patchbay_bus::{Bus, Change, EndReason, Feed, FeedValue, Observer, Point, Signal, Stream, StreamName, Track, now};
use patchbay_contract::{
    Answer, Caller, Cause, Closer, Code, Counters, Hub, Leg, PlayRequest, Publication, PublishRequest, Refusal, SessionId, Side,
};
use patchbay_media::{Kind, MediaTime, TrackInfo};
use patchbay_rules::{Abilities, Action, EndpointKind, RuleTable, Source, Verdict, plan};
use patchbay_transcode::Engine;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, LegRow, Planned, PublicationRow};
use super::renditions::{Handle, Renditions};
use super::routes::Routes;

/// Longest group of a source that answers keyframe requests while a player of the RTMP family reads it untouched:
/// such players, and the servers behind a push, can begin only at a key frame, and most services ask for two seconds.
const GROUP_MAX: MediaTime = MediaTime::from_secs(2);

/// How often held legs and long groups are looked at.
const GRACE_TICK: Duration = Duration::from_millis(250);

/// What the configuration sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long legs are held when a publisher vanishes without a goodbye.
    pub publisher_grace: Duration,
    /// How long a rendition outlives its last pair: a viewer that reloads its page must not restart an encoder.
    pub rendition_grace: Duration,
    /// Most sessions of all kinds.
    pub sessions_max: usize,
    /// Most live streams.
    pub streams_max: usize,
    /// Most renditions at once.
    pub renditions_max: usize,
}

/// Streams that must be planned again; bounded by the number of names.
#[derive(Default)]
struct Dirty {
    names: Mutex<HashSet<StreamName>>,
    signal: Signal,
}

impl Dirty {
    fn add(&self, stream: &StreamName) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone());
        self.signal.notify();
    }
}

impl Observer for Dirty {
    fn changed(&self, stream: &StreamName, change: Change) {
        // The end of a stream is handled where the publication closes, in order.
        if !matches!(change, Change::Ended(_)) {
            self.add(stream);
        }
    }
}

/// The hub.
pub struct Switchboard {
    bus: Arc<Bus>,
    rules: ArcSwap<RuleTable>,
    routes: Routes,
    settings: Settings,
    abilities: Abilities,
    renditions: Renditions,
    ledger: Mutex<Ledger>,
    dirty: Arc<Dirty>,
    draining: CancellationToken,
    /// Sessions end on threads of any kind; what they let go of ends on the runtime.
    runtime: tokio::runtime::Handle,
}

impl Switchboard {
    /// A hub on its own bus. [`Self::run`] must be spawned for changes to take effect.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(engine: Arc<Engine>, rules: RuleTable, routes: Routes, settings: Settings) -> Arc<Self> {
        let bus = Bus::new();
        let dirty = Arc::new(Dirty::default());
        bus.observe(dirty.clone());
        let (decode, encode) = patchbay_transcode::abilities();
        Arc::new(Self {
            bus,
            rules: ArcSwap::from_pointee(rules),
            routes,
            abilities: Abilities { decode: decode.into_iter().collect(), encode: encode.into_iter().collect() },
            renditions: Renditions::new(engine, settings.renditions_max),
            ledger: Mutex::default(),
            dirty,
            draining: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
            settings,
        })
    }

    /// The live streams.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// The live renditions.
    pub fn renditions(&self) -> &Renditions {
        &self.renditions
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replans what changed and ends what was held too long, until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(GRACE_TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.dirty.signal.wait() => {}
                _ = tick.tick() => {
                    self.end_held();
                    self.bound_groups();
                    self.retry_transcodes();
                }
            }
            let names = std::mem::take(&mut *self.dirty.names.lock().unwrap_or_else(PoisonError::into_inner));
            for name in names {
                self.replan(&name);
            }
        }
    }

    /// Refuses new sessions from now on and asks the live ones to end.
    pub fn drain(&self) {
        self.draining.cancel();
        let ledger = self.ledger();
        let publications = ledger.publications.values().map(|row| &row.cancelled);
        let legs = ledger.legs.values().map(|row| &row.cancelled);
        publications.chain(legs).for_each(CancellationToken::cancel);
    }

    /// Whether no session is left.
    pub fn is_idle(&self) -> bool {
        let ledger = self.ledger();
        ledger.publications.is_empty() && ledger.legs.is_empty()
    }

    /// Ends one session from here; `false` when there is none of that number.
    pub fn kick(&self, id: SessionId) -> bool {
        let ledger = self.ledger();
        let token = ledger.publications.get(&id).map(|r| &r.cancelled).or_else(|| ledger.legs.get(&id).map(|r| &r.cancelled));
        token.inspect(|t| t.cancel()).is_some()
    }

    fn admit(&self, ledger: &Ledger) -> Result<(), Refusal> {
        if self.draining.is_cancelled() {
            return Err(Refusal::new(Code::Draining, "patchbay is about to stop and takes no new sessions"));
        }
        if ledger.publications.len() + ledger.legs.len() >= self.settings.sessions_max {
            let limit = self.settings.sessions_max;
            return Err(Refusal::new(Code::TooMany, format!("the limit of {limit} sessions (limits.sessions_max) is reached")));
        }
        Ok(())
    }

    fn replan(&self, name: &StreamName) {
        let Some(stream) = self.bus.get(name) else { return };
        let mut ledger = self.ledger();
        let Some(kind) = ledger.publication_of(name).map(|(_, row)| row.kind) else { return };
        ledger.vanished.remove(name);
        for id in ledger.legs_of.get(name).cloned().unwrap_or_default() {
            if let Some(row) = ledger.legs.get_mut(&id) {
                self.plan_leg(id, row, &stream, kind);
            }
        }
    }

    /// Plans one pair from what is live now, and points its feed.
    fn plan_leg(&self, id: SessionId, row: &mut LegRow, stream: &Stream, kind: EndpointKind) {
        let source = SourceTracks::of(stream);
        let described = Source { kind, stream: stream.name().as_str(), video: source.video_info(), audio: source.audio_info() };
        let mut decided = plan(&self.rules.load(), &described, &row.sink, &self.abilities);
        let wanted = [decided.video.action, decided.audio.action];
        let (video, video_handle) = self.point(source.video.as_ref(), &mut decided.video);
        let (audio, audio_handle) = self.point(source.audio.as_ref(), &mut decided.audio);
        row.refused = wanted != [decided.video.action, decided.audio.action];
        if row.plan.as_ref() != Some(&decided) {
            tracing::info!(
                session = id, stream = %stream.name(), from = %kind, to = %row.sink.kind, rule = %decided.rule.id,
                video = %decided.video.reason, audio = %decided.audio.reason, "pair planned"
            );
        }
        row.planned_for =
            Planned { kind: Some(kind), video: described.video.map(ToString::to_string), audio: described.audio.map(ToString::to_string) };
        row.plan = Some(decided);
        let released = [std::mem::replace(&mut row.video, video_handle), std::mem::replace(&mut row.audio, audio_handle)];
        row.feed.set(FeedValue { video, audio, ended: None });
        released.into_iter().flatten().for_each(|handle| self.release(handle));
    }

    /// Lets go of a rendition after its grace.
    fn release(&self, handle: Arc<Handle>) {
        let grace = self.settings.rendition_grace;
        self.runtime.spawn(async move {
            tokio::time::sleep(grace).await;
            drop(handle);
        });
    }

    /// The point a verdict leads to. A transcode that cannot start turns into a drop, with the reason.
    fn point(&self, source: Option<&SourceTrack>, verdict: &mut Verdict) -> (Option<Point>, Option<Arc<Handle>>) {
        let Some(source) = source else { return (None, None) };
        match verdict.action {
            Action::Pass => (Some(Point { track: source.track.clone(), epoch: source.epoch }), None),
            Action::Transcode(target) => match self.renditions.get_or_start(&source.track, target) {
                Ok(handle) => (Some(Point { track: handle.track().clone(), epoch: u32::MAX }), Some(handle)),
                Err(error) => {
                    tracing::debug!(%target, %error, "rendition refused");
                    verdict.action = Action::Drop;
                    verdict.reason = format!("{} is dropped: {error}", target.kind());
                    (None, None)
                }
            },
            Action::Drop | Action::Absent => (None, None),
        }
    }

    /// Asks for key frames where a group grows too long for who reads it.
    fn bound_groups(&self) {
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
    fn retry_transcodes(&self) {
        let ledger = self.ledger();
        let gave_up = |slot: &Option<Arc<Handle>>| slot.as_ref().is_some_and(|handle| handle.track().ended() == Some(EndReason::Failed));
        for row in ledger.legs.values().filter(|row| row.refused || gave_up(&row.video) || gave_up(&row.audio)) {
            self.dirty.add(&row.stream);
        }
    }

    fn end_held(&self) {
        let now = now();
        let mut ledger = self.ledger();
        let due: Vec<_> = ledger.vanished.iter().filter(|(_, until)| **until <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            ledger.vanished.remove(&name);
            // A publisher may be back and not planned yet.
            if ledger.publication_of(&name).is_none() {
                end_legs(&ledger, &name, EndReason::Lost);
            }
        }
    }

    fn publication_closed(&self, id: SessionId, cause: &Cause, reason: EndReason) {
        let mut ledger = self.ledger();
        let Some(row) = ledger.publications.remove(&id) else { return };
        log_end(id, "publish", &row.stream, row.kind, &row.caller, row.since, &row.counters, cause);
        // Another publisher may have taken the name over already.
        if ledger.publication_of(&row.stream).is_some() {
            return;
        }
        let held = reason == EndReason::Lost || row.taken_over;
        if !held || self.settings.publisher_grace.is_zero() {
            end_legs(&ledger, &row.stream, reason);
        } else if ledger.legs_of.contains_key(&row.stream) {
            let until = now() + MediaTime::from(self.settings.publisher_grace);
            ledger.vanished.insert(row.stream.clone(), until);
        }
        // Held or ended, nothing of the old source is read any more.
        for id in ledger.legs_of.get(&row.stream).cloned().unwrap_or_default() {
            let Some(leg) = ledger.legs.get_mut(&id) else { continue };
            (leg.plan, leg.planned_for) = (None, Planned::default());
            [leg.video.take(), leg.audio.take()].into_iter().flatten().for_each(|handle| self.release(handle));
        }
    }

    fn leg_closed(&self, id: SessionId, cause: &Cause) {
        let Some(mut row) = self.ledger().remove_leg(id) else { return };
        log_end(id, "play", &row.stream, row.sink.kind, &row.caller, row.since, &row.counters, cause);
        [row.video.take(), row.audio.take()].into_iter().flatten().for_each(|handle| self.release(handle));
    }

    /// Makes room for a publisher that holds the route's key: the one before it is asked to leave.
    async fn take_over(&self, request: &PublishRequest) -> Result<(), Refusal> {
        let key = self.routes.of(&request.stream).and_then(|route| route.publish_key.as_ref());
        if let Some(key) = key
            && !holds(&request.caller, key)
        {
            return Err(Refusal::new(Code::Unauthorized, format!("publishing {} needs its key", request.stream)));
        }
        if self.bus.get(&request.stream).is_none() {
            return Ok(());
        }
        if key.is_none() {
            return Err(Refusal::new(
                Code::StreamBusy,
                format!("{} has a publisher already; give its route a publish_key to let the newest publisher take over", request.stream),
            ));
        }
        {
            let mut ledger = self.ledger();
            let old = ledger.publication_of(&request.stream).map(|(id, _)| id);
            if let Some(row) = old.and_then(|id| ledger.publications.get_mut(&id)) {
                row.taken_over = true;
                row.cancelled.cancel();
            }
        }
        for _ in 0..100 {
            if self.bus.get(&request.stream).is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(Refusal::new(Code::StreamBusy, format!("the old publisher of {} does not let go", request.stream)))
    }

    async fn publish_now(self: Arc<Self>, request: PublishRequest) -> Result<Publication, Refusal> {
        self.admit(&self.ledger())?;
        if self.bus.list().len() >= self.settings.streams_max {
            let limit = self.settings.streams_max;
            return Err(Refusal::new(Code::TooMany, format!("the limit of {limit} streams (limits.streams_max) is reached")));
        }
        self.take_over(&request).await?;
        let (counters, cancelled) = (Arc::new(Counters::default()), CancellationToken::new());
        let (id, publisher) = {
            // One step: the first plan must find the row, and no other publisher may be seen in between.
            let mut ledger = self.ledger();
            let publisher = self.bus.publish(request.stream.clone())?;
            let id = ledger.next_id();
            let row = PublicationRow {
                stream: request.stream.clone(),
                kind: request.kind,
                caller: request.caller.clone(),
                since: now(),
                counters: counters.clone(),
                cancelled: cancelled.clone(),
                taken_over: false,
            };
            ledger.publications.insert(id, row);
            (id, publisher)
        };
        tracing::info!(session = id, stream = %request.stream, kind = %request.kind, protocol = request.caller.protocol, peer = %peer(&request.caller), "publish starts");
        let hub = self.clone();
        let closer: Closer = Box::new(move |cause, reason| hub.publication_closed(id, &cause, reason));
        Ok(Publication::new(id, publisher, counters, cancelled, closer))
    }

    fn play_now(self: Arc<Self>, request: PlayRequest) -> Result<Leg, Refusal> {
        if let Some(key) = self.routes.of(&request.stream).and_then(|route| route.play_key.as_ref())
            && !request.caller.operator
            && !holds(&request.caller, key)
        {
            return Err(Refusal::new(Code::Unauthorized, format!("playing {} needs its key", request.stream)));
        }
        // The ledger first: no publisher comes or goes in it between this look at the bus and the new row.
        let mut ledger = self.ledger();
        let live = self.bus.get(&request.stream);
        self.admit(&ledger)?;
        if live.is_none() && !request.wait && !ledger.vanished.contains_key(&request.stream) {
            return Err(Refusal::new(Code::StreamNotFound, format!("nobody publishes {} now", request.stream)));
        }
        let id = ledger.next_id();
        let (counters, cancelled, feed) = (Arc::new(Counters::default()), CancellationToken::new(), Arc::new(Feed::default()));
        tracing::info!(session = id, stream = %request.stream, kind = %request.sink.kind, protocol = request.caller.protocol, peer = %peer(&request.caller), "play starts");
        let mut row = LegRow {
            stream: request.stream.clone(),
            sink: request.sink,
            caller: request.caller,
            since: now(),
            counters: counters.clone(),
            cancelled: cancelled.clone(),
            feed: feed.clone(),
            plan: None,
            planned_for: Planned::default(),
            refused: false,
            video: None,
            audio: None,
        };
        let kind = ledger.publication_of(&request.stream).map(|(_, publication)| publication.kind);
        if let (Some(stream), Some(kind)) = (live, kind) {
            self.plan_leg(id, &mut row, &stream, kind);
        }
        ledger.add_leg(id, row);
        drop(ledger);
        let hub = self.clone();
        let closer: Closer = Box::new(move |cause, _| hub.leg_closed(id, &cause));
        Ok(Leg::new(id, request.stream, feed, counters, cancelled, closer))
    }
}

/// The hub as gateways hold it.
pub struct HubHandle(pub Arc<Switchboard>);

impl Hub for HubHandle {
    fn publish(&self, request: PublishRequest) -> Answer<'_, Publication> {
        Box::pin(self.0.clone().publish_now(request))
    }

    fn play(&self, request: PlayRequest) -> Answer<'_, Leg> {
        let hub = self.0.clone();
        Box::pin(async move { hub.play_now(request) })
    }

    fn kind_of(&self, stream: &StreamName, usual: EndpointKind) -> EndpointKind {
        self.0.routes.kind_of(stream, usual)
    }
}

/// A source track with the description a plan is made from.
struct SourceTrack {
    track: Arc<Track>,
    info: Arc<TrackInfo>,
    epoch: u32,
}

struct SourceTracks {
    video: Option<SourceTrack>,
    audio: Option<SourceTrack>,
}

impl SourceTracks {
    fn of(stream: &Stream) -> Self {
        let pick = |kind| {
            let track = stream.track(kind)?;
            let (info, epoch) = track.info()?;
            Some(SourceTrack { track, info, epoch })
        };
        Self { video: pick(Kind::Video), audio: pick(Kind::Audio) }
    }

    fn video_info(&self) -> Option<&TrackInfo> {
        self.video.as_ref().map(|t| &*t.info)
    }

    fn audio_info(&self) -> Option<&TrackInfo> {
        self.audio.as_ref().map(|t| &*t.info)
    }
}

/// Whether the caller brought this key.
fn holds(caller: &Caller, key: &str) -> bool {
    caller.token.as_deref().is_some_and(|given| crate::secrets::equal(given, key))
}

fn end_legs(ledger: &Ledger, stream: &StreamName, reason: EndReason) {
    for row in ledger.legs_of.get(stream).into_iter().flatten().filter_map(|id| ledger.legs.get(id)) {
        let mut value = row.feed.get();
        value.ended = Some(reason);
        row.feed.set(value);
    }
}

fn peer(caller: &Caller) -> String {
    caller.peer.map_or_else(|| "-".into(), |p| p.to_string())
}

/// The one end line of a session.
#[allow(clippy::too_many_arguments, reason = "one call per role; the fields of one log line")]
fn log_end(
    id: SessionId,
    role: &str,
    stream: &StreamName,
    kind: EndpointKind,
    caller: &Caller,
    since: MediaTime,
    counters: &Counters,
    cause: &Cause,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let side = match cause.side {
        Side::Peer => "peer",
        Side::Here => "here",
    };
    tracing::info!(
        session = id, role, %stream, %kind, protocol = caller.protocol, peer = %peer(caller), side, cause = cause.code, detail = %cause.detail,
        seconds = (now() - since).as_secs_f64(), bytes = counters.bytes.load(Relaxed), frames = counters.frames.load(Relaxed),
        lost = counters.lost.load(Relaxed), skipped = counters.skipped.load(Relaxed), "session ends"
    );
}

//! The switchboard: plans every pair, points its feed at the right tracks, and does so again when something
//! changes.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use patchbay_bus::{Bus, Change, Observer, Signal, StreamName};
use patchbay_contract::{Answer, Code, Hub, Leg, Place, PlayRequest, Publication, PublishRequest, Refusal, SessionId};
use patchbay_rules::{Abilities, EndpointKind, Ladder, RuleTable};
use patchbay_transcode::Engine;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::ledger::Ledger;
use super::refusals::{RefusalCount, Refusals};
use super::renditions::Renditions;
use super::routes::Routes;
use crate::auth::{Addresses, Gate, PerAddress};
use crate::pulls::Pulls;

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
    /// What one source address may have.
    pub per_address: PerAddress,
    /// Most live streams.
    pub streams_max: usize,
    /// Most renditions at once.
    pub renditions_max: usize,
    /// Cores that renditions may take together.
    pub transcode_cores: f64,
    /// How they step down when that is not enough.
    pub ladder: Ladder,
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
    pub(super) rules: ArcSwap<RuleTable>,
    routes: ArcSwap<Routes>,
    pub(super) gate: Arc<Gate>,
    pub(super) addresses: Arc<Addresses>,
    refusals: Refusals,
    settings: ArcSwap<Settings>,
    pub(super) abilities: Abilities,
    pub(super) budget: Budget,
    renditions: Renditions,
    ledger: Mutex<Ledger>,
    dirty: Arc<Dirty>,
    draining: CancellationToken,
    /// Brings streams that are played and that nobody publishes.
    pub(super) pulls: OnceLock<Arc<Pulls>>,
    /// Sessions end on threads of any kind; what they let go of ends on the runtime.
    pub(super) runtime: tokio::runtime::Handle,
}

impl Switchboard {
    /// A hub on its own bus. [`Self::run`] must be spawned for changes to take effect.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(
        engine: Arc<Engine>,
        abilities: Abilities,
        rules: RuleTable,
        routes: Routes,
        gate: Arc<Gate>,
        settings: Settings,
    ) -> Arc<Self> {
        let bus = Bus::new();
        let dirty = Arc::new(Dirty::default());
        bus.observe(dirty.clone());
        Arc::new(Self {
            bus,
            rules: ArcSwap::from_pointee(rules),
            routes: ArcSwap::from_pointee(routes),
            gate,
            addresses: Arc::default(),
            refusals: Refusals::default(),
            abilities,
            budget: Budget::new(settings.transcode_cores, settings.ladder.clone()),
            renditions: Renditions::new(engine, settings.renditions_max),
            ledger: Mutex::default(),
            dirty,
            draining: CancellationToken::new(),
            pulls: OnceLock::new(),
            runtime: tokio::runtime::Handle::current(),
            settings: ArcSwap::from_pointee(settings),
        })
    }

    /// Has streams that are played and that nobody publishes brought by these from now on.
    pub fn pull_with(&self, pulls: Arc<Pulls>) {
        // Once is all there is: a second one would be a fault of the assembly, and changes nothing.
        _ = self.pulls.set(pulls);
    }

    /// The live streams.
    pub fn bus(&self) -> &Arc<Bus> {
        &self.bus
    }

    /// The live renditions.
    pub fn renditions(&self) -> &Renditions {
        &self.renditions
    }

    pub(super) fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    pub(super) fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Puts other routes in force. They decide on sessions that come; those that are live stay.
    pub fn set_routes(&self, routes: Routes) {
        self.routes.store(Arc::new(routes));
    }

    /// Puts other graces and session limits in force; what is about transcoding stays as it was at the start.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
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
                    self.follow_layers();
                    self.govern();
                    self.retry_transcodes();
                }
            }
            let names = std::mem::take(&mut *self.dirty.names.lock().unwrap_or_else(PoisonError::into_inner));
            for name in names {
                self.replan(&name);
            }
        }
    }

    /// Has the pairs of a stream planned again.
    pub(super) fn replan_later(&self, stream: &StreamName) {
        self.dirty.add(stream);
    }

    /// Has every pair planned again.
    pub(super) fn replan_all(&self) {
        self.bus.list().iter().for_each(|stream| self.dirty.add(stream.name()));
    }

    /// Refuses new sessions from now on and asks the live ones to end.
    pub fn drain(&self) {
        self.draining.cancel();
        let ledger = self.ledger();
        let publications = ledger.publications.values().map(|row| &row.cancelled);
        let legs = ledger.legs.values().map(|row| &row.cancelled);
        publications.chain(legs).for_each(CancellationToken::cancel);
    }

    /// Whether no session is left, and everybody knows who wants to.
    pub fn is_idle(&self) -> bool {
        let ledger = self.ledger();
        ledger.publications.is_empty() && ledger.legs.is_empty() && self.gate.is_quiet()
    }

    /// Ends one session from here; `false` when there is none of that number.
    pub fn kick(&self, id: SessionId) -> bool {
        let ledger = self.ledger();
        let token = ledger.publications.get(&id).map(|r| &r.cancelled).or_else(|| ledger.legs.get(&id).map(|r| &r.cancelled));
        token.inspect(|t| t.cancel()).is_some()
    }

    /// Whether anybody plays a stream; what the operator has sent on counts as nobody.
    pub fn is_watched(&self, stream: &StreamName) -> bool {
        let ledger = self.ledger();
        let mut legs = ledger.legs_of.get(stream).into_iter().flatten().filter_map(|id| ledger.legs.get(id));
        legs.any(|row| !row.caller.operator)
    }

    /// Whether a stream is live, and by a publisher that gives way to others (`true`) or by one that does not.
    pub fn publisher_yields(&self, stream: &StreamName) -> Option<bool> {
        self.ledger().publication_of(stream).map(|(_, row)| row.caller.yields)
    }

    /// Who was refused, and why.
    pub fn refusals(&self) -> Vec<RefusalCount> {
        self.refusals.all()
    }

    /// Ends the sessions that began with a token; how many there were.
    pub fn end_token(&self, id: &str) -> usize {
        let ledger = self.ledger();
        let publications = ledger.publications.values().map(|row| (&row.grant, &row.cancelled));
        let legs = ledger.legs.values().map(|row| (&row.grant, &row.cancelled));
        let held = publications.chain(legs).filter(|(grant, _)| grant.token_id.as_deref() == Some(id));
        held.inspect(|(_, cancelled)| cancelled.cancel()).count()
    }

    pub(super) fn admit(&self, ledger: &Ledger) -> Result<(), Refusal> {
        if self.draining.is_cancelled() {
            return Err(Refusal::new(Code::Draining, "patchbay is about to stop and takes no new sessions"));
        }
        let limit = self.settings().sessions_max;
        if ledger.publications.len() + ledger.legs.len() >= limit {
            return Err(Refusal::new(Code::TooMany, format!("the limit of {limit} sessions (limits.sessions_max) is reached")));
        }
        Ok(())
    }
}

/// The hub as gateways hold it.
pub struct HubHandle(pub Arc<Switchboard>);

impl HubHandle {
    fn noted<T>(&self, wanted: &'static str, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.inspect_err(|refusal| self.0.refusals.note(wanted, refusal.code))
    }
}

impl Hub for HubHandle {
    fn connect(&self, peer: SocketAddr) -> Result<Option<Place>, Refusal> {
        let seat = self.0.addresses.connect(self.0.settings().per_address, peer, Instant::now());
        Ok(self.noted("connect", seat)?.map(|seat| Box::new(seat) as Place))
    }

    fn publish(&self, request: PublishRequest) -> Answer<'_, Publication> {
        Box::pin(async { self.noted("publish", self.0.clone().publish_now(request).await) })
    }

    fn play(&self, request: PlayRequest) -> Answer<'_, Leg> {
        Box::pin(async { self.noted("play", self.0.clone().play_now(request).await) })
    }

    fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    fn kind_of(&self, stream: &StreamName, usual: EndpointKind) -> EndpointKind {
        self.0.routes().kind_of(stream, usual)
    }
}

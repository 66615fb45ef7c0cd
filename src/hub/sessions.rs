//! Sessions come and go: admission, takeover, grace, and the rows of the ledger they leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_bus::{EndReason, Feed, StreamName, now};
use patchbay_contract::{
    Caller, Cause, Closer, Code, Counters, Credentials, Leg, PlayRequest, Publication, PublishRequest, Refusal, SessionId, Side,
};
use patchbay_media::MediaTime;
use patchbay_rules::EndpointKind;
use tokio_util::sync::CancellationToken;

use super::layers::Descent;
use super::ledger::{Ledger, LegRow, Planned, PublicationRow};
use super::routes::{Route, SecondPublisher};
use super::switchboard::Switchboard;
use crate::auth::{Act, Grant, Wish};

/// How long a publisher that was asked to leave may take.
const TAKEOVER_MAX: Duration = Duration::from_secs(1);

impl Switchboard {
    pub(super) fn end_held(&self) {
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

    pub(super) fn publication_closed(&self, id: SessionId, cause: &Cause, reason: EndReason) {
        let mut ledger = self.ledger();
        let Some(row) = ledger.publications.remove(&id) else { return };
        log_end(id, "publish", &row.stream, row.kind, &row.caller, row.since, &row.counters, cause);
        row.left.cancel();
        // Another publisher has taken the name over, or was live all the time and this one stood by.
        if let Some((next, _)) = ledger.publication_of(&row.stream) {
            tracing::info!(session = next, stream = %row.stream, "publisher goes on in the place of the one that left");
            return;
        }
        let held = reason == EndReason::Lost || row.taken_over;
        let grace = self.settings().publisher_grace;
        if !held || grace.is_zero() {
            end_legs(&ledger, &row.stream, reason);
        } else if ledger.legs_of.contains_key(&row.stream) {
            let until = now() + MediaTime::from(grace);
            ledger.vanished.insert(row.stream.clone(), until);
        }
        // Held or ended, nothing of the old source is read any more.
        for id in ledger.legs_of.get(&row.stream).cloned().unwrap_or_default() {
            let Some(leg) = ledger.legs.get_mut(&id) else { continue };
            (leg.plan, leg.planned_for, leg.retry_at, leg.parked) = (None, Planned::default(), None, None);
            [leg.video.take(), leg.audio.take()].into_iter().flatten().for_each(|handle| self.release(handle));
        }
    }

    pub(super) fn leg_closed(&self, id: SessionId, cause: &Cause) {
        let Some(mut row) = self.ledger().remove_leg(id) else { return };
        log_end(id, "play", &row.stream, row.sink.kind, &row.caller, row.since, &row.counters, cause);
        [row.video.take(), row.audio.take()].into_iter().flatten().for_each(|handle| self.release(handle));
    }

    /// Lets a publisher in by its route: makes room for it, where it takes over.
    async fn let_in(&self, request: &PublishRequest) -> Result<SecondPublisher, Refusal> {
        let yields = request.caller.yields;
        let policy = self.routes().of(&request.stream).filter(|_| !yields).map_or(SecondPublisher::Reject, Route::second_publisher);
        if self.bus().get(&request.stream).is_none() {
            return Ok(policy);
        }
        match policy {
            _ if !yields && self.publisher_yields(&request.stream) == Some(true) => self.take_over(&request.stream).await?,
            SecondPublisher::Backup => {}
            SecondPublisher::Takeover => self.take_over(&request.stream).await?,
            SecondPublisher::Reject => {
                let why = "has a publisher already; give its route a publish_key, or second_publisher, to let the newest take over";
                return Err(Refusal::new(Code::StreamBusy, format!("{} {why}", request.stream)));
            }
        }
        Ok(policy)
    }

    /// Asks the publishers of a name to leave, and waits until they have.
    async fn take_over(&self, stream: &StreamName) -> Result<(), Refusal> {
        let leaving: Vec<_> = {
            let mut ledger = self.ledger();
            let rows = ledger.publications.values_mut().filter(|row| row.stream == *stream);
            let asked = rows.map(|row| {
                row.taken_over = true;
                row.cancelled.cancel();
                row.left.clone()
            });
            asked.collect()
        };
        let all_left = async {
            for left in leaving {
                left.cancelled().await;
            }
        };
        tokio::time::timeout(TAKEOVER_MAX, all_left)
            .await
            .map_err(|_| Refusal::new(Code::StreamBusy, format!("the old publisher of {stream} does not let go")))
    }

    /// Whether the peer may do this. What it brought to show that is needed no longer then, and kept no longer.
    async fn ask_gate(&self, act: Act, stream: &StreamName, kind: EndpointKind, caller: &mut Caller) -> Result<Grant, Refusal> {
        // First of all, so that keys are not guessed fast.
        let seat = match caller.peer {
            Some(peer) if !caller.operator => self.addresses.begin(self.settings().per_address, peer, Instant::now())?,
            _ => None,
        };
        let route = self.routes().of(stream).cloned();
        let grant = self.gate.admit(Wish { act, stream, kind, caller, route }).await?.with_seat(seat);
        caller.credentials = Credentials::default();
        Ok(grant)
    }

    pub(super) async fn publish_now(self: Arc<Self>, mut request: PublishRequest) -> Result<Publication, Refusal> {
        self.admit(&self.ledger())?;
        let limit = self.settings().streams_max;
        if self.bus().list().len() >= limit {
            return Err(Refusal::new(Code::TooMany, format!("the limit of {limit} streams (limits.streams_max) is reached")));
        }
        let grant = self.ask_gate(Act::Publish, &request.stream, request.kind, &mut request.caller).await?;
        let policy = self.let_in(&request).await?;
        let (counters, cancelled) = (Arc::new(Counters::default()), CancellationToken::new());
        let (id, publisher) = {
            // One step: the first plan must find the row, and no other publisher may be seen in between.
            let mut ledger = self.ledger();
            // Again: others came while this one waited, and its token may be gone.
            self.admit(&ledger)?;
            self.gate.still_good(&grant)?;
            let name = request.stream.clone();
            let publisher =
                if policy == SecondPublisher::Backup { self.bus().publish_or_stand_by(name)? } else { self.bus().publish(name)? };
            let id = ledger.next_id();
            let row = PublicationRow {
                stream: request.stream.clone(),
                kind: request.kind,
                caller: request.caller.clone(),
                grant: grant.clone(),
                since: now(),
                counters: counters.clone(),
                cancelled: cancelled.clone(),
                source: publisher.stream().clone(),
                layers: Vec::new(),
                taken_over: false,
                left: CancellationToken::new(),
            };
            ledger.publications.insert(id, row);
            (id, publisher)
        };
        tracing::info!(session = id, stream = %request.stream, kind = %request.kind, protocol = request.caller.protocol, peer = %peer(&request.caller), subject = grant.subject.as_deref(), standby = !publisher.stream().is_live(), "publish starts");
        let hub = self.clone();
        let closer: Closer = Box::new(move |cause, reason| hub.publication_closed(id, &cause, reason));
        Ok(Publication::new(id, publisher, counters, cancelled, closer))
    }

    /// Has a stream that nobody publishes pulled, if it is one that can be.
    async fn bring(&self, request: &PlayRequest) -> Result<(), Refusal> {
        // The operator's pushes wait for a stream without asking for it.
        let Some(pulls) = self.pulls.get().filter(|_| !request.caller.operator) else { return Ok(()) };
        // What a pull publishes may have nothing to play yet, or end just now.
        if self.publisher_yields(&request.stream) == Some(false) {
            return Ok(());
        }
        let is_held = {
            let ledger = self.ledger();
            self.admit(&ledger)?;
            ledger.vanished.contains_key(&request.stream)
        };
        let coming = pulls.wanted(&request.stream);
        // The viewers of a source that is away wait for it inside, and one more with them.
        if is_held {
            return Ok(());
        }
        match coming? {
            Some(coming) => coming.wait(&request.stream).await,
            None => Ok(()),
        }
    }

    pub(super) async fn play_now(self: Arc<Self>, mut request: PlayRequest) -> Result<Leg, Refusal> {
        let grant = self.ask_gate(Act::Play, &request.stream, request.sink.kind, &mut request.caller).await?;
        request.sink.passes_only = grant.no_transcode;
        if let Some(lines) = grant.max_height {
            request.sink.limit_height(lines);
        }
        self.bring(&request).await?;
        // The ledger first: no publisher comes or goes in it between this look at the bus and the new row.
        let mut ledger = self.ledger();
        let live = self.bus().get(&request.stream);
        self.admit(&ledger)?;
        self.gate.still_good(&grant)?;
        if live.is_none() && !request.wait && !ledger.vanished.contains_key(&request.stream) {
            return Err(Refusal::new(Code::StreamNotFound, format!("nobody publishes {} now", request.stream)));
        }
        let id = ledger.next_id();
        let (counters, cancelled, feed) = (Arc::new(Counters::default()), CancellationToken::new(), Arc::new(Feed::default()));
        tracing::info!(session = id, stream = %request.stream, kind = %request.sink.kind, protocol = request.caller.protocol, peer = %peer(&request.caller), subject = grant.subject.as_deref(), "play starts");
        let mut row = LegRow {
            stream: request.stream.clone(),
            sink: request.sink,
            caller: request.caller,
            grant,
            since: now(),
            counters: counters.clone(),
            cancelled: cancelled.clone(),
            feed: feed.clone(),
            plan: None,
            planned_for: Planned::default(),
            retry_at: None,
            descent: Descent::new(now()),
            parked: None,
            video: None,
            audio: None,
        };
        let origin = ledger.publication_of(&request.stream).map(|(_, publication)| publication.origin());
        if let (Some(stream), Some(origin)) = (live, origin) {
            self.plan_leg(id, &mut row, &stream, origin);
        }
        ledger.add_leg(id, row);
        drop(ledger);
        let hub = self.clone();
        let closer: Closer = Box::new(move |cause, _| hub.leg_closed(id, &cause));
        Ok(Leg::new(id, request.stream, feed, counters, cancelled, closer))
    }
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

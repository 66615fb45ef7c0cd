//! The ledger: every live session, and for every source/sink pair the plan in force.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use patchbay_bus::{Feed, Stream, StreamName, TrackUid};
use patchbay_contract::{Caller, Counters, SessionId};
use patchbay_media::MediaTime;
use patchbay_rules::{Bounds, EndpointKind, Plan, Sink};
use tokio_util::sync::CancellationToken;

use super::budget::Demand;
use super::layers::Descent;
use super::renditions::Handle;
use super::source::Origin;
use crate::auth::Grant;

/// A source that publishes.
pub struct PublicationRow {
    pub stream: StreamName,
    pub kind: EndpointKind,
    pub caller: Caller,
    pub grant: Grant,
    pub since: MediaTime,
    pub counters: Arc<Counters>,
    pub cancelled: CancellationToken,
    /// What it sends: live, or standing by.
    pub source: Arc<Stream>,
    /// Of a simulcast, the layers that its pairs were planned from.
    pub layers: Vec<TrackUid>,
    /// Another publisher was let in its place: its viewers are the other's.
    pub taken_over: bool,
    /// Cancelled when it has left and its name is free.
    pub left: CancellationToken,
}

impl PublicationRow {
    /// What plans of its pairs depend on, apart from its tracks.
    pub(super) fn origin(&self) -> Origin {
        let bounds = Bounds { passes_only: self.grant.no_transcode, no_record: self.grant.no_record };
        Origin { kind: self.kind, bounds }
    }
}

/// A sink that plays.
pub struct LegRow {
    pub stream: StreamName,
    pub sink: Sink,
    pub caller: Caller,
    pub grant: Grant,
    pub since: MediaTime,
    pub counters: Arc<Counters>,
    pub cancelled: CancellationToken,
    pub feed: Arc<Feed>,
    /// The plan in force; none while the stream is not live.
    pub plan: Option<Plan>,
    /// What it was planned from.
    pub planned_for: Planned,
    /// When a transcode of the plan that could not be started is tried again.
    pub retry_at: Option<MediaTime>,
    /// How far below a simulcast's largest layer its link lets it be served.
    pub descent: Descent,
    /// A transcode of the plan waits until the ladder has pictures again.
    pub parked: Option<Demand>,
    pub video: Option<Arc<Handle>>,
    pub audio: Option<Arc<Handle>>,
}

/// The source side of a plan, in words.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Planned {
    pub kind: Option<EndpointKind>,
    pub video: Option<String>,
    pub audio: Option<String>,
}

/// All rows.
#[derive(Default)]
pub struct Ledger {
    last_id: SessionId,
    pub publications: BTreeMap<SessionId, PublicationRow>,
    pub legs: BTreeMap<SessionId, LegRow>,
    pub legs_of: HashMap<StreamName, Vec<SessionId>>,
    /// Streams whose publisher vanished, and until when their legs are held.
    pub vanished: HashMap<StreamName, MediaTime>,
}

impl Ledger {
    pub fn next_id(&mut self) -> SessionId {
        self.last_id += 1;
        self.last_id
    }

    /// The publisher whose stream is live under a name; others may stand by for it or be about to leave.
    pub fn publication_of(&self, stream: &StreamName) -> Option<(SessionId, &PublicationRow)> {
        self.publications.iter().find(|(_, row)| row.stream == *stream && row.source.is_live()).map(|(id, row)| (*id, row))
    }

    pub fn add_leg(&mut self, id: SessionId, row: LegRow) {
        self.legs_of.entry(row.stream.clone()).or_default().push(id);
        self.legs.insert(id, row);
    }

    pub fn remove_leg(&mut self, id: SessionId) -> Option<LegRow> {
        let row = self.legs.remove(&id)?;
        if let Some(ids) = self.legs_of.get_mut(&row.stream) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.legs_of.remove(&row.stream);
            }
        }
        Some(row)
    }
}

//! Snapshots of the hub as the API shows them.

use std::sync::atomic::Ordering::Relaxed;

use patchbay_bus::{StreamName, now};
use patchbay_contract::{Caller, Counters, SessionId, Transport};
use patchbay_media::MediaTime;
use patchbay_rules::{Action, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

use super::ledger::{LegRow, PublicationRow};
use super::renditions::Handle;
use super::switchboard::Switchboard;
use crate::auth::Grant;

/// A live stream.
#[derive(Serialize, ToSchema)]
pub struct StreamView {
    /// Name of the stream.
    pub name: String,
    /// Kind of its source.
    pub kind: Option<String>,
    /// Seconds since it went live.
    pub uptime_s: f64,
    /// Session that publishes it.
    pub publisher: Option<SessionId>,
    /// Whether it may be recorded; its publisher's token may rule that out.
    pub record: bool,
    /// Its tracks as published.
    pub tracks: Vec<TrackView>,
    /// Sinks attached to it.
    pub viewers: usize,
    /// Encoders that run for it.
    pub renditions: Vec<RenditionView>,
}

/// A track as its source sends it.
#[derive(Serialize, ToSchema)]
pub struct TrackView {
    /// `video` or `audio`.
    pub kind: String,
    /// Codec name.
    pub codec: String,
    /// Codec, profile, size… in words.
    pub description: String,
    /// Frames so far.
    pub frames: u64,
    /// Payload bytes so far.
    pub bytes: u64,
    /// Frames known to be missing.
    pub lost: u64,
}

/// A running encoder.
#[derive(Serialize, ToSchema)]
pub struct RenditionView {
    /// `<source track>>target`.
    pub id: String,
    /// What it makes.
    pub target: String,
    /// Pairs that read it.
    pub readers: usize,
    /// Frames taken in and given out.
    pub frames_in: u64,
    /// Frames given out.
    pub frames_out: u64,
    /// CPU time of decoder and encoder, milliseconds.
    pub cpu_ms: f64,
    /// Time from a source frame's arrival to its encoded frame, milliseconds.
    pub added_delay_ms: f64,
    /// Times it was rebuilt after an error.
    pub restarts: u64,
}

/// A publisher or a player.
#[derive(Serialize, ToSchema)]
pub struct SessionView {
    /// Number of the session.
    pub id: SessionId,
    /// `publish` or `play`.
    pub role: &'static str,
    /// Stream name.
    pub stream: String,
    /// A publisher that waits until the one before it leaves.
    pub standby: bool,
    /// Endpoint kind.
    pub kind: String,
    /// Protocol as users know it.
    pub protocol: &'static str,
    /// Address of the peer.
    pub peer: Option<String>,
    /// What the peer says it is.
    pub agent: Option<String>,
    /// Who it is, by its token.
    pub subject: Option<String>,
    /// Its token asks not to record it.
    pub no_record: bool,
    /// Seconds since it began.
    pub uptime_s: f64,
    /// What it moved.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Counters of a session.
#[derive(Serialize, ToSchema)]
pub struct Totals {
    /// Bytes received (publish) or sent (play).
    pub bytes: u64,
    /// Frames received or sent.
    pub frames: u64,
    /// Packets or frames missing, as the peer reports or we see.
    pub lost: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Frames skipped because the peer is slow.
    pub skipped: u64,
    /// Key frames the peer asked for.
    pub keyframe_requests: u64,
    /// Round-trip time, milliseconds; absent while unknown.
    pub rtt_ms: Option<f64>,
    /// What the peer's link is thought to take, kbit/s; absent while nobody measures it.
    pub bandwidth_kbps: Option<u64>,
    /// What a WebRTC session's media goes over: `udp`, or `tcp` where that is all that gets through.
    pub transport: Option<&'static str>,
}

/// A row of the ledger: one source/sink pair and the decision for it.
#[derive(Serialize, ToSchema)]
pub struct PairView {
    /// Session of the sink.
    pub id: SessionId,
    /// Stream name.
    pub stream: String,
    /// Kind of the source; absent while nobody publishes.
    pub from: Option<String>,
    /// Kind of the sink.
    pub to: String,
    /// Protocol of the sink as users know it.
    pub protocol: &'static str,
    /// Address of the sink.
    pub peer: Option<String>,
    /// The rule that decided.
    pub rule: Option<RuleView>,
    /// The decision for the video.
    pub video: Option<VerdictView>,
    /// The decision for the audio.
    pub audio: Option<VerdictView>,
    /// Seconds since the sink attached.
    pub uptime_s: f64,
    /// Time a frame spends inside, milliseconds, smoothed.
    pub added_delay_ms: f64,
    /// What it moved.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Which rule decided.
#[derive(Serialize, ToSchema)]
pub struct RuleView {
    /// Its name.
    pub id: String,
    /// Its content in words.
    pub text: String,
}

/// A decision for one track.
#[derive(Serialize, ToSchema)]
pub struct VerdictView {
    /// `pass`, `transcode`, `drop` or `absent`.
    pub action: &'static str,
    /// Reason code.
    pub code: String,
    /// Reason in words.
    pub reason: String,
    /// The source track in words.
    pub source: Option<String>,
    /// Codec sent to the sink.
    pub output: Option<String>,
    /// The rendition, when transcoded.
    pub rendition: Option<String>,
}

impl Totals {
    fn of(c: &Counters) -> Self {
        let (rtt, bandwidth) = (c.rtt_us.load(Relaxed), c.bandwidth_bps.load(Relaxed));
        Self {
            bytes: c.bytes.load(Relaxed),
            frames: c.frames.load(Relaxed),
            lost: c.lost.load(Relaxed),
            retransmitted: c.retransmitted.load(Relaxed),
            skipped: c.skipped.load(Relaxed),
            keyframe_requests: c.keyframe_requests.load(Relaxed),
            rtt_ms: (rtt > 0).then(|| rtt as f64 / 1e3),
            bandwidth_kbps: (bandwidth > 0).then_some(bandwidth / 1_000),
            transport: c.transport().map(Transport::as_str),
        }
    }
}

fn uptime(since: MediaTime) -> f64 {
    millis((now() - since).as_nanos()) / 1e3
}

fn millis(ns: i64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

impl SessionView {
    fn new(
        id: SessionId,
        role: &'static str,
        stream: &StreamName,
        kind: String,
        (caller, grant): (&Caller, &Grant),
        since: MediaTime,
        counters: &Counters,
    ) -> Self {
        Self {
            id,
            role,
            stream: stream.to_string(),
            standby: false,
            kind,
            protocol: caller.protocol,
            peer: caller.peer.map(|p| p.to_string()),
            agent: caller.agent.clone(),
            subject: grant.subject.as_deref().map(str::to_owned),
            no_record: grant.no_record,
            uptime_s: uptime(since),
            totals: Totals::of(counters),
        }
    }

    fn publication(id: SessionId, row: &PublicationRow) -> Self {
        let view = Self::new(id, "publish", &row.stream, row.kind.to_string(), (&row.caller, &row.grant), row.since, &row.counters);
        Self { standby: !row.source.is_live(), ..view }
    }

    fn leg(id: SessionId, row: &LegRow) -> Self {
        Self::new(id, "play", &row.stream, row.sink.kind.to_string(), (&row.caller, &row.grant), row.since, &row.counters)
    }
}

impl VerdictView {
    fn new(verdict: &Verdict, source: Option<&String>, handle: Option<&Handle>) -> Self {
        let codec_of_source = source.and_then(|s| s.split(' ').next()).map(str::to_owned);
        let (action, output) = match verdict.action {
            Action::Pass => ("pass", codec_of_source),
            Action::Transcode(target) => ("transcode", Some(target.codec().name().to_owned())),
            Action::Drop => ("drop", None),
            Action::Absent => ("absent", None),
        };
        Self {
            action,
            code: verdict.code.name().to_owned(),
            reason: verdict.reason.clone(),
            source: source.cloned(),
            output,
            rendition: handle.map(|h| h.id.clone()),
        }
    }
}

impl PairView {
    fn new(id: SessionId, row: &LegRow) -> Self {
        let plan = row.plan.as_ref();
        Self {
            id,
            stream: row.stream.to_string(),
            from: row.planned_for.kind.map(|k| k.to_string()),
            to: row.sink.kind.to_string(),
            protocol: row.caller.protocol,
            peer: row.caller.peer.map(|p| p.to_string()),
            rule: plan.map(|p| RuleView { id: p.rule.id.to_string(), text: p.rule.text.to_string() }),
            video: plan.map(|p| VerdictView::new(&p.video, row.planned_for.video.as_ref(), row.video.as_deref())),
            audio: plan.map(|p| VerdictView::new(&p.audio, row.planned_for.audio.as_ref(), row.audio.as_deref())),
            uptime_s: uptime(row.since),
            added_delay_ms: millis(row.counters.delay_ns()),
            totals: Totals::of(&row.counters),
        }
    }
}

impl RenditionView {
    fn new(handle: &Handle, readers: usize) -> Self {
        let stats = handle.rendition().stats();
        Self {
            id: handle.id.clone(),
            target: handle.target.to_string(),
            readers,
            frames_in: stats.frames_in,
            frames_out: stats.frames_out,
            cpu_ms: millis(stats.cpu_ns as i64),
            added_delay_ms: millis(stats.added_delay_p50_ns as i64),
            restarts: stats.restarts,
        }
    }
}

impl Switchboard {
    /// Every live stream.
    pub fn streams(&self) -> Vec<StreamView> {
        let renditions = self.renditions().list();
        let ledger = self.ledger();
        let view = |stream: &patchbay_bus::Stream| {
            let tracks = stream.tracks();
            let publication = ledger.publication_of(stream.name());
            StreamView {
                name: stream.name().to_string(),
                kind: publication.map(|(_, row)| row.kind.to_string()),
                uptime_s: publication.map_or(0.0, |(_, row)| uptime(row.since)),
                publisher: publication.map(|(id, _)| id),
                record: publication.is_none_or(|(_, row)| !row.grant.no_record),
                viewers: ledger.legs_of.get(stream.name()).map_or(0, Vec::len),
                renditions: renditions
                    .iter()
                    .filter(|handle| tracks.iter().any(|t| t.uid() == handle.source()))
                    .map(|handle| RenditionView::new(handle, readers(&ledger, handle)))
                    .collect(),
                tracks: tracks.iter().map(|t| track_view(t)).collect(),
            }
        };
        self.bus().list().iter().map(|s| view(s)).collect()
    }

    /// What transcoding takes of its budget.
    pub fn load(&self) -> super::LoadView {
        self.budget.view()
    }

    /// Every session.
    pub fn sessions(&self) -> Vec<SessionView> {
        let ledger = self.ledger();
        let publications = ledger.publications.iter().map(|(id, row)| SessionView::publication(*id, row));
        publications.chain(ledger.legs.iter().map(|(id, row)| SessionView::leg(*id, row))).collect()
    }

    /// Every pair.
    pub fn pairs(&self) -> Vec<PairView> {
        self.ledger().legs.iter().map(|(id, row)| PairView::new(*id, row)).collect()
    }

    /// One pair.
    pub fn pair(&self, id: SessionId) -> Option<PairView> {
        self.ledger().legs.get(&id).map(|row| PairView::new(id, row))
    }
}

fn readers(ledger: &super::ledger::Ledger, handle: &Handle) -> usize {
    let holds = |slot: &Option<std::sync::Arc<Handle>>| slot.as_ref().is_some_and(|h| h.id == handle.id);
    ledger.legs.values().filter(|row| holds(&row.video) || holds(&row.audio)).count()
}

fn track_view(track: &patchbay_bus::Track) -> TrackView {
    let (frames, bytes, lost) = track.totals();
    let info = track.info().map(|(info, _)| info);
    TrackView {
        kind: track.kind().to_string(),
        codec: info.as_ref().map_or_else(String::new, |i| i.codec.to_string()),
        description: info.as_ref().map_or_else(String::new, |i| i.to_string()),
        frames,
        bytes,
        lost,
    }
}

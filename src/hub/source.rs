//! The source side of a pair: the tracks of a live stream, and of a simulcast the layer that serves a sink.

use std::sync::Arc;

use patchbay_bus::{Stream, Track, TrackUid, now};
use patchbay_contract::LAYER_SILENT_MAX;
use patchbay_media::{Kind, Target, TrackInfo, VideoShape};
use patchbay_rules::{Abilities, Action, Bounds, EndpointKind, Plan, RuleTable, Sink, Source, Verdict, plan};

/// A source track with the description a plan is made from.
#[derive(Clone)]
pub(super) struct SourceTrack {
    pub track: Arc<Track>,
    pub info: Arc<TrackInfo>,
    pub epoch: u32,
}

/// The tracks of a live stream as a plan sees them.
pub(super) struct SourceTracks {
    pub video: Option<SourceTrack>,
    pub audio: Option<SourceTrack>,
}

impl SourceTracks {
    pub(super) fn described<'a>(&'a self, origin: Origin, stream: &'a Stream) -> Source<'a> {
        let info = |track: &'a Option<SourceTrack>| track.as_ref().map(|t| &*t.info);
        let Origin { kind, bounds } = origin;
        Source { kind, bounds, stream: stream.name().as_str(), video: info(&self.video), audio: info(&self.audio) }
    }
}

/// Who publishes, as far as plans depend on it.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub kind: EndpointKind,
    pub bounds: Bounds,
}

/// What a stream offers a sink.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    pub stream: &'a Stream,
    pub origin: Origin,
    /// How many layers of a simulcast are too large for the sink's link.
    pub below: usize,
}

/// The plan for a sink, and the tracks it is made from: of a simulcast the largest layer that its link takes, or a smaller
/// one when the plan would only make the picture as small as that.
pub(super) fn decide(rules: &RuleTable, offer: Offer<'_>, sink: &Sink, abilities: &Abilities) -> (SourceTracks, Plan) {
    let Offer { stream, origin, below } = offer;
    let audio = described_tracks(stream, Kind::Audio).next();
    let layers = live_layers(stream);
    let below = below.min(layers.len().saturating_sub(1));
    let mut layers = layers.into_iter().skip(below);
    let mut source = SourceTracks { video: layers.next(), audio };
    let mut decided = plan(rules, &source.described(origin, stream), sink, abilities);
    for layer in layers {
        if !suffices(&layer, &decided.video) {
            break;
        }
        source.video = Some(layer);
        decided = plan(rules, &source.described(origin, stream), sink, abilities);
    }
    (source, decided)
}

/// Whether it has several layers.
pub(super) fn is_layered(stream: &Stream) -> bool {
    stream.tracks().iter().filter(|track| track.kind() == Kind::Video).count() > 1
}

/// The layers that are sent now, largest first.
pub(super) fn layers(stream: &Stream) -> Vec<TrackUid> {
    live_layers(stream).iter().map(|layer| layer.track.uid()).collect()
}

fn live_layers(stream: &Stream) -> Vec<SourceTrack> {
    let mut all: Vec<_> = described_tracks(stream, Kind::Video).collect();
    all.sort_by_key(|layer| std::cmp::Reverse(area(&layer.info)));
    let is_sent = |layer: &SourceTrack| layer.track.newest().is_some_and(|newest| now() - newest < LAYER_SILENT_MAX);
    let sent: Vec<_> = all.iter().filter(|layer| is_sent(layer)).cloned().collect();
    // A source that sends nothing at all is still what it was.
    if sent.is_empty() { all } else { sent }
}

fn described_tracks(stream: &Stream, kind: Kind) -> impl Iterator<Item = SourceTrack> {
    let of_kind = stream.tracks().into_iter().filter(move |track| track.kind() == kind);
    of_kind.filter_map(|track| {
        let (info, epoch) = track.info()?;
        Some(SourceTrack { track, info, epoch })
    })
}

fn area(info: &TrackInfo) -> u64 {
    info.video_shape().map_or(0, |shape| u64::from(shape.width) * u64::from(shape.height))
}

/// Whether a transcode to no more than a layer's size is what the verdict asks for.
fn suffices(layer: &SourceTrack, verdict: &Verdict) -> bool {
    let Action::Transcode(Target::Video(target)) = verdict.action else { return false };
    let Some((width, height)) = target.size else { return false };
    layer.info.video_shape().is_some_and(|shape: &VideoShape| shape.width >= width && shape.height >= height)
}

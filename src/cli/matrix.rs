//! `patchbay matrix` and `patchbay matrix explain`: the rule table asked from the command line.
//!
//! Refuses to decide anything: the verdicts are those of `patchbay_rules`, as in the running gateway's ledger.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use patchbay_bus::StreamName;
use patchbay_rules::{EndpointKind, RuleTable, UnknownKind};
use serde_json::json;

use crate::config::{self, Config, LoadError};

/// Flags of `matrix explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchbay matrix explain --from rtmp --to webrtc
  patchbay matrix explain --from rtmp --to webrtc --video h264:high:bframes=2:1920x1080 --audio aac:44100:2
  patchbay matrix explain --from webrtc --to cdn --video none --config patchbay.toml --stream live/main --json

A track is a codec and what is known of it, joined by ':', or `none`:
  video  h264 h265 vp8 vp9 av1 mpeg1 mpeg2; h264 profiles baseline constrained-baseline main high high10 high422
         high444; bframes=2; 1280x720; 30fps
  audio  aac opus mp2 mp3 pcma pcmu g722; 44100 (Hz); 2 (channels), mono, stereo
Left out, a track is what a source of that kind usually sends. The sink takes what its kind usually takes; a live one
may say otherwise: /v1/pairs has the verdicts of those.
Exit codes: 0 done; 1 a track is not understood or the configuration has problems; 2 wrong usage.")]
pub struct ExplainArgs {
    /// Kind of the source.
    #[arg(long, value_name = "KIND", value_parser = one_of(&EndpointKind::SOURCES))]
    pub from: EndpointKind,
    /// Kind of the sink.
    #[arg(long, value_name = "KIND", value_parser = one_of(&EndpointKind::SINKS))]
    pub to: EndpointKind,
    /// The source's video track, such as h264:high:bframes=2.
    #[arg(long, value_name = "SPEC")]
    pub video: Option<String>,
    /// The source's audio track, such as aac:44100:2.
    #[arg(long, value_name = "SPEC")]
    pub audio: Option<String>,
    /// Name of the stream, for rules that speak of names.
    #[arg(long, value_name = "NAME", default_value = "live/demo")]
    pub stream: StreamName,
    /// Configuration whose rules come before the matrix.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Takes one of `kinds` by its name.
pub(super) fn one_of(kinds: &[EndpointKind]) -> impl TypedValueParser<Value = EndpointKind> + use<> {
    let names: Vec<&'static str> = kinds.iter().map(|kind| kind.name()).collect();
    PossibleValuesParser::new(names).try_map(|name| name.parse::<EndpointKind>().map_err(|e: UnknownKind| e))
}

/// Why a pair could not be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// A track is not understood.
    #[error(transparent)]
    Track(#[from] patchbay_rules::SpecError),
}

/// The default table, for terminals.
pub fn table() -> String {
    patchbay_rules::text_table()
}

/// The rule, the verdicts and the reasons for one pair.
pub fn explain(args: &ExplainArgs) -> Result<String, ExplainError> {
    let config = match &args.config {
        Some(file) => config::load(Some(file), &[])?,
        None => Config::default(),
    };
    let (able, rules) = (config.transcode.abilities(), RuleTable::new(config.rules));
    let pair = (args.from, args.to);
    let explained = patchbay_rules::explain(&rules, &able, pair, args.stream.as_str(), args.video.as_deref(), args.audio.as_deref())?;
    if !args.json {
        return Ok(format!("{}\n", explained.to_string().trim_end()));
    }
    let track = |track: &Option<patchbay_media::TrackInfo>| track.as_ref().map(ToString::to_string);
    let body = json!({
        "from": explained.from, "to": explained.to, "stream": args.stream.as_str(),
        "source": { "video": track(&explained.video), "audio": track(&explained.audio) },
        "plan": explained.plan,
    });
    Ok(format!("{body:#}\n"))
}

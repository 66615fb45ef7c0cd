//! [`plan`]: the verdict for every track of a pair, and the [`RuleTable`] it is drawn from.

use std::fmt;
use std::sync::Arc;

use patchbay_media::{Codec, Kind, Target, TrackInfo};
use serde::{Serialize, Serializer};

use crate::table::policies;
use crate::{AudioWish, EndpointKind, Policy, Refuses, Rule, Sink, VideoWish, symbol, target};

/// A set of codecs.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct CodecSet(u32);

impl CodecSet {
    /// Every codec.
    pub fn all() -> Self {
        Codec::ALL.into_iter().collect()
    }

    /// Whether `codec` is in it.
    pub const fn contains(self, codec: Codec) -> bool {
        self.0 >> codec as u32 & 1 == 1
    }

    /// The same without some.
    pub fn without(self, codecs: impl IntoIterator<Item = Codec>) -> Self {
        Self(self.0 & !codecs.into_iter().collect::<Self>().0)
    }
}

impl FromIterator<Codec> for CodecSet {
    fn from_iter<I: IntoIterator<Item = Codec>>(codecs: I) -> Self {
        Self(codecs.into_iter().fold(0, |set, codec| set | 1 << codec as u32))
    }
}

impl fmt::Debug for CodecSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Codec::ALL.into_iter().filter(|c| self.contains(*c)).map(Codec::name)).finish()
    }
}

/// What this process can transcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Abilities {
    /// Codecs it decodes.
    pub decode: CodecSet,
    /// Codecs it encodes.
    pub encode: CodecSet,
}

impl Abilities {
    /// Everything; for tests and tables.
    pub fn all() -> Self {
        Self { decode: CodecSet::all(), encode: CodecSet::all() }
    }
}

/// What the token of a source's publisher rules out, for every sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Nothing of it is transcoded.
    pub passes_only: bool,
    /// It is not recorded.
    pub no_record: bool,
}

/// A source as the planner sees it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What it is.
    pub kind: EndpointKind,
    /// What its publisher's token rules out.
    pub bounds: Bounds,
    /// Name of the stream.
    pub stream: &'a str,
    /// Its video track.
    pub video: Option<&'a TrackInfo>,
    /// Its audio track.
    pub audio: Option<&'a TrackInfo>,
}

/// Names the rule a plan was drawn from. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// The rule's name, `rules[3]`, or `matrix:rtmp>webrtc`.
    #[serde(serialize_with = "shared_str")]
    pub id: Arc<str>,
    /// The rule in words.
    #[serde(serialize_with = "shared_str")]
    pub text: Arc<str>,
}

fn shared_str<S: Serializer>(text: &Arc<str>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(text)
}

/// User rules in their order, then the default matrix.
#[derive(Clone, Debug)]
pub struct RuleTable {
    rules: Vec<(Rule, RuleRef)>,
    /// One for each pair of kinds.
    matrix: Vec<RuleRef>,
}

impl RuleTable {
    /// The given rules, the first that fits first; the default matrix behind them.
    pub fn new(rules: Vec<Rule>) -> Self {
        let named = |(i, rule): (usize, Rule)| {
            let id = rule.name.clone().unwrap_or_else(|| format!("rules[{i}]"));
            let text = rule.to_string();
            (rule, RuleRef { id: id.into(), text: text.into() })
        };
        let pair = |from: EndpointKind, to: EndpointKind| {
            let symbol = symbol(from, to);
            let text = format!("{from} to {to} is {symbol} in the matrix: {}", symbol.about());
            RuleRef { id: format!("matrix:{from}>{to}").into(), text: text.into() }
        };
        let matrix = EndpointKind::ALL.into_iter().flat_map(|from| EndpointKind::ALL.map(|to| pair(from, to))).collect();
        Self { rules: rules.into_iter().enumerate().map(named).collect(), matrix }
    }

    /// The user's rules, in their order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|(rule, _)| rule)
    }

    /// The rule that decides about a pair, and what it says.
    pub fn find(&self, from: EndpointKind, to: EndpointKind, stream: &str) -> (&RuleRef, Policy<VideoWish>, Policy<AudioWish>) {
        if let Some((rule, name)) = self.rules.iter().find(|(rule, _)| rule.fits(from, to, stream)) {
            return (name, rule.video, rule.audio);
        }
        let (video, audio) = policies(from, to);
        (&self.matrix[from as usize * EndpointKind::ALL.len() + to as usize], video, audio)
    }
}

impl Default for RuleTable {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// What happens to a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The source's frames go to the sink.
    Pass,
    /// A rendition goes to the sink.
    Transcode(Target),
    /// The track is left out.
    Drop,
    /// The source has none.
    Absent,
}

impl Action {
    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Transcode(_) => "transcode",
            Self::Drop => "drop",
            Self::Absent => "absent",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident, $name:literal, $doc:literal;)*) => {
        /// Why a verdict is what it is, for programs; the words are in [`Verdict::reason`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ReasonCode {
            $(#[doc = $doc] $variant,)*
        }

        impl ReasonCode {
            /// Every code.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// As the API and the ledger show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line for documents.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

reasons! {
    PassAccepted, "pass_accepted", "Passed: the sink takes the track as it is.";
    RulePass, "rule_pass", "Passed: the rule says so and the sink takes it.";
    AlreadyTarget, "already_target", "Passed: the rule asks for a transcode, but the source is already what would come out.";
    CodecNotAccepted, "codec_not_accepted", "Transcoded: the sink does not take the codec.";
    BFrames, "b_frames", "Transcoded: the source has B-frames and the sink cannot put them in order.";
    ProfileNotAccepted, "profile_not_accepted", "Transcoded: the sink does not decode the H.264 profile.";
    SizeTooLarge, "size_too_large", "Transcoded: the picture is larger than the sink takes.";
    OddSize, "odd_size", "Transcoded: the picture has an odd width or height, which the sink does not show right.";
    SizeChange, "size_change", "Transcoded: the picture is of another size than the sink began with, and it cannot follow.";
    SampleRate, "sample_rate", "Transcoded: the sink does not play the sample rate.";
    Channels, "channels", "Transcoded: the sink plays fewer channels.";
    RuleTranscode, "rule_transcode", "Transcoded: the sink would take the source, but the rule asks for something else.";
    RuleCodecRefused, "rule_codec_refused", "The rule asks for a codec that the sink does not take; the best the sink takes is sent instead.";
    RuleDrop, "rule_drop", "Left out: the rule says so.";
    NoTrack, "no_track", "The source has no such track.";
    SinkTakesNone, "sink_takes_none", "Left out: the sink takes no tracks of this kind.";
    NoDecoder, "no_decoder", "A transcode is needed, but this patchbay has no decoder for the source. Left out, or passed where the sink takes it.";
    BudgetSpent, "budget_spent", "Left out: the transcode it needs does not fit into the transcode budget now.";
    AudioOnly, "audio_only", "Left out for now: the transcode budget is overspent, and its last step down is sound without pictures.";
    TranscodeRefused, "transcode_refused", "Left out: the transcode it needs could not be started.";
    TokenPassesOnly, "token_passes_only", "Left out: it would have to be transcoded, and the viewer's or the publisher's token rules that out.";
    NoRecord, "no_record", "Left out: the sink is a recording, and the publisher's token rules that out.";
    NoEncoder, "no_encoder", "A transcode is needed, but this patchbay has no encoder for anything the sink takes. Left out, or passed where the sink takes it.";
}

impl Refuses {
    /// The code of a transcode that this refusal makes necessary.
    pub const fn code(self) -> ReasonCode {
        match self {
            Self::Codec(_) => ReasonCode::CodecNotAccepted,
            Self::BFrames { .. } => ReasonCode::BFrames,
            Self::Profile { .. } => ReasonCode::ProfileNotAccepted,
            Self::Size { .. } => ReasonCode::SizeTooLarge,
            Self::OddSize { .. } => ReasonCode::OddSize,
            Self::SizeChange { .. } => ReasonCode::SizeChange,
            Self::SampleRate(_) => ReasonCode::SampleRate,
            Self::Channels(_) => ReasonCode::Channels,
        }
    }
}

/// What happens to one track, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens.
    pub action: Action,
    /// Why, for programs.
    pub code: ReasonCode,
    /// Why, for people; never empty.
    pub reason: String,
}

impl Serialize for Verdict {
    /// `{ action, target?, code, reason }`, the target as one word such as `opus-48000-2ch-64k`.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            action: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            target: Option<String>,
            code: ReasonCode,
            reason: &'a str,
        }
        let target = match self.action {
            Action::Transcode(target) => Some(target.to_string()),
            _ => None,
        };
        Flat { action: self.action.name(), target, code: self.code, reason: &self.reason }.serialize(s)
    }
}

/// What happens to the tracks of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The rule that decided.
    pub rule: RuleRef,
    /// The video track.
    pub video: Verdict,
    /// The audio track.
    pub audio: Verdict,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rule   {} ({})", self.rule.id, self.rule.text)?;
        for (kind, verdict) in [("video", &self.video), ("audio", &self.audio)] {
            writeln!(f, "{kind}  {:<9} {} [{}]", verdict.action.name(), verdict.reason, verdict.code.name())?;
        }
        Ok(())
    }
}

/// Decides what each track of `source` becomes for `sink`. Pure and total: equal arguments give equal plans, and what a
/// rule asks is always corrected by what the source is, what the sink takes and what can be transcoded.
pub fn plan(rules: &RuleTable, source: &Source<'_>, sink: &Sink, able: &Abilities) -> Plan {
    let (rule, video, audio) = rules.find(source.kind, sink.kind, source.stream);
    let bound = |kind, verdict| bounded(kind, verdict, source.bounds, sink);
    Plan {
        rule: rule.clone(),
        video: bound(Kind::Video, plan_video(video, source.video, sink, able)),
        audio: bound(Kind::Audio, plan_audio(audio, source.audio, sink, able)),
    }
}

/// Within what the tokens of publisher and viewer allow.
fn bounded(kind: Kind, decided: Verdict, source: Bounds, sink: &Sink) -> Verdict {
    match decided.action {
        Action::Pass | Action::Transcode(_) if source.no_record && sink.kind == EndpointKind::File => {
            let reason = format!("{kind} is left out: the publisher's token rules recording out");
            verdict(Action::Drop, ReasonCode::NoRecord, reason)
        }
        Action::Transcode(_) if source.passes_only || sink.passes_only => {
            let whose = if source.passes_only { "publisher" } else { "viewer" };
            let reason = format!("{kind} is left out: the {whose}'s token rules transcoding out, and {}", decided.reason);
            verdict(Action::Drop, ReasonCode::TokenPassesOnly, reason)
        }
        _ => decided,
    }
}

fn plan_video(policy: Policy<VideoWish>, track: Option<&TrackInfo>, sink: &Sink, able: &Abilities) -> Verdict {
    let mut wish = match policy {
        Policy::Transcode(wish) => wish,
        _ => VideoWish::default(),
    };
    let takes = |codec: Codec| sink.video.iter().any(|a| a.codec == codec);
    let refused_wish = wish.codec.take_if(|codec| !takes(*codec));
    let shape = track.and_then(TrackInfo::video_shape);
    let ask =
        Ask { kind: Kind::Video, refused_wish, met: track.is_some_and(|t| wish.met_by(t.codec, shape)), takes_any: !sink.video.is_empty() };
    ask.decide(policy, track, sink, able, || {
        let wished = sink.video.iter().filter(|a| wish.codec == Some(a.codec));
        wished
            .chain(&sink.video)
            .filter(|a| a.codec.kind() == Kind::Video && able.encode.contains(a.codec))
            .find_map(|a| target::video(&wish, &shape.copied().unwrap_or_default(), a))
            .map(Target::Video)
    })
}

fn plan_audio(policy: Policy<AudioWish>, track: Option<&TrackInfo>, sink: &Sink, able: &Abilities) -> Verdict {
    let mut wish = match policy {
        Policy::Transcode(wish) => wish,
        _ => AudioWish::default(),
    };
    let takes = |codec: Codec| sink.audio.iter().any(|a| a.codec == codec);
    let refused_wish = wish.codec.take_if(|codec| !takes(*codec));
    let shape = track.and_then(TrackInfo::audio_shape);
    let ask =
        Ask { kind: Kind::Audio, refused_wish, met: track.is_some_and(|t| wish.met_by(t.codec, shape)), takes_any: !sink.audio.is_empty() };
    ask.decide(policy, track, sink, able, || {
        let wished = sink.audio.iter().filter(|a| wish.codec == Some(a.codec));
        wished
            .chain(&sink.audio)
            .filter(|a| able.encode.contains(a.codec))
            .find_map(|a| target::audio(&wish, &shape.copied().unwrap_or_default(), a))
            .map(Target::Audio)
    })
}

/// What is asked of one track, kinds of media aside.
struct Ask {
    kind: Kind,
    /// The codec a rule asks for in vain.
    refused_wish: Option<Codec>,
    /// The source is what the rule wishes for.
    met: bool,
    takes_any: bool,
}

impl Ask {
    fn decide<W>(
        &self,
        policy: Policy<W>,
        track: Option<&TrackInfo>,
        sink: &Sink,
        able: &Abilities,
        resolve: impl Fn() -> Option<Target>,
    ) -> Verdict {
        use ReasonCode as Code;
        let (kind, to) = (self.kind, sink.kind);
        // A track in the wrong place is none.
        let Some(track) = track.filter(|t| t.kind() == kind) else {
            return verdict(Action::Absent, Code::NoTrack, format!("the source has no {kind}"));
        };
        if matches!(policy, Policy::Drop) {
            return verdict(Action::Drop, Code::RuleDrop, format!("{kind} is left out: the rule says so"));
        }
        if !self.takes_any {
            return verdict(Action::Drop, Code::SinkTakesNone, format!("{kind} is left out: this {to} sink takes no {kind}"));
        }
        let refusal = sink.refuses(track);
        match (&policy, refusal, self.refused_wish) {
            (Policy::Auto, None, _) => {
                return verdict(Action::Pass, Code::PassAccepted, format!("{kind} is passed through: {to} takes {track}"));
            }
            (Policy::Pass, None, _) => {
                return verdict(Action::Pass, Code::RulePass, format!("{kind} is passed through by rule: {to} takes {track}"));
            }
            (Policy::Transcode(_), None, None) if self.met => {
                let reason = format!("{kind} is passed through: it is {track} already, which {to} takes");
                return verdict(Action::Pass, Code::AlreadyTarget, reason);
            }
            (Policy::Transcode(_), None, Some(wished)) if self.met => {
                let reason =
                    format!("{kind} is passed through: the rule asks for {wished}, which {to} does not take, but {to} takes {track}");
                return verdict(Action::Pass, Code::RuleCodecRefused, reason);
            }
            _ => {}
        }
        let (code, why) = match (refusal, self.refused_wish) {
            (Some(refusal), _) => (refusal.code(), format!("{refusal} {to}")),
            (None, Some(wished)) => (Code::RuleCodecRefused, format!("the rule asks for {wished}, which {to} does not take")),
            (None, None) => (Code::RuleTranscode, "the rule asks for it".to_owned()),
        };
        if !able.decode.contains(track.codec) {
            return self.cannot(Code::NoDecoder, refusal.is_some(), &why, format_args!("there is no decoder for {}", track.codec));
        }
        match resolve() {
            Some(target) if target.codec() == track.codec => {
                verdict(Action::Transcode(target), code, format!("{kind} is re-encoded ({target}): {why}"))
            }
            Some(target) => {
                let reason = format!("{kind} is transcoded from {} to {} ({target}): {why}", track.codec, target.codec());
                verdict(Action::Transcode(target), code, reason)
            }
            None => self.cannot(Code::NoEncoder, refusal.is_some(), &why, format_args!("there is no encoder for what {to} takes")),
        }
    }

    /// A transcode is called for but impossible.
    fn cannot(&self, code: ReasonCode, refused: bool, why: &str, lack: fmt::Arguments<'_>) -> Verdict {
        let (action, fate) = if refused { (Action::Drop, "left out") } else { (Action::Pass, "passed through") };
        verdict(action, code, format!("{} is {fate}: {why}, and {lack}", self.kind))
    }
}

fn verdict(action: Action, code: ReasonCode, reason: String) -> Verdict {
    Verdict { action, code, reason }
}

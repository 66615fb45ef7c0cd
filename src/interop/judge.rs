//! Whether what one viewer saw is what the matrix promises; if not, the one reason that people should read first.
//!
//! Refuses: to measure anything itself.

use patchbay_rules::{Action, EndpointKind, Plan};
use serde::Serialize;

use super::witness::{Row, Taken, Verdict};
use super::{FPS, Observed};

/// Least share of the stamped pictures a viewer must have seen, percent.
pub const SHOWN_MIN: f64 = 95.0;
/// Least share of the time in which a viewer must have got sound, percent.
const SOUND_MIN: f64 = 90.0;
/// Silence is below 0.001, the beeps of every source come to 0.15.
const LOUDNESS_MIN: f64 = 0.01;
/// Most pictures in a row that may be missing: half a second.
const GAP_MAX: u64 = FPS as u64 / 2;
/// Least share of the pictures that a source at its full rate would have sent, percent: a slow machine is no red cell.
const RATE_MIN: f64 = 50.0;

/// Whether the deployment got from a source what it sent: what is lost there, no viewer can see.
///
/// # Errors
/// How much is missing, in one line.
pub fn source(taken: Taken) -> Result<(), String> {
    let Taken { pictures, pictures_lost, .. } = taken;
    let arrived = 100.0 * pictures as f64 / (pictures + pictures_lost).max(1) as f64;
    if arrived >= SHOWN_MIN { Ok(()) } else { Err(format!("{pictures_lost} pictures of its source never arrived, {pictures} did")) }
}

/// What one viewer came to.
#[derive(Debug, Serialize)]
pub struct Leg {
    /// How it played, such as `HTTP-FLV`.
    pub way: &'static str,
    /// What it saw and heard.
    pub observed: Observed,
    /// Its row of the ledger.
    pub row: Option<Row>,
    /// The plan that the built-in table and the rules predict; only for an instance of our own.
    #[serde(skip)]
    pub predicted: Option<Plan>,
}

impl Leg {
    /// Why the viewer of a pair did not get what it should have got.
    ///
    /// # Errors
    /// The first thing that is wrong, in one line.
    pub fn judge(&self, (from, to): (EndpointKind, EndpointKind), seconds: f64) -> Result<(), String> {
        self.has_media(seconds)?;
        let row = self.row.as_ref().ok_or("the ledger has no row for it")?;
        same("kinds in the ledger", &pair(row.from.as_deref().unwrap_or("nobody"), &row.to), &pair(from.name(), to.name()))?;
        for (kind, verdict, wire) in [("video", &row.video, &self.observed.video), ("audio", &row.audio, &self.observed.audio)] {
            let [wire, promised] = [wire, verdict.as_ref().map_or(&None, |v| &v.output)].map(|codec| codec.as_deref().unwrap_or("nothing"));
            same_as_ledger(kind, wire, promised)?;
        }
        self.predicted.as_ref().map_or(Ok(()), |plan| as_predicted(row, plan))?;
        self.is_complete(seconds)
    }

    fn has_media(&self, seconds: f64) -> Result<(), String> {
        let seen = &self.observed;
        let complaint = seen.complaint.as_ref().map_or_else(String::new, |words| format!(" ({words})"));
        if seen.pictures == 0 {
            return Err(format!("no pictures{complaint}; {}", self.said_of("video")));
        }
        if seen.sound_s == 0.0 {
            return Err(format!("no sound{complaint}; {}", self.said_of("audio")));
        }
        if seen.stamps.distinct == 0 {
            return Err(format!("{} pictures, and not one stamp could be read in {seconds} s{complaint}", seen.pictures));
        }
        Ok(())
    }

    /// What the ledger says of a track, for who wonders why it is missing.
    fn said_of(&self, kind: &str) -> String {
        let verdict = |row: &Row| if kind == "video" { row.video.clone() } else { row.audio.clone() };
        match self.row.as_ref().and_then(verdict) {
            Some(Verdict { action, reason, .. }) => format!("ledger: {kind} {action}: {reason}"),
            None => "the ledger has no row for it".into(),
        }
    }

    fn is_complete(&self, seconds: f64) -> Result<(), String> {
        let (seen, stamps) = (&self.observed, &self.observed.stamps);
        let rated = 100.0 * stamps.expected as f64 / (f64::from(FPS) * seconds);
        if rated < RATE_MIN {
            return Err(format!("only {} pictures were to be seen in {seconds} s", stamps.expected));
        }
        if seen.shown_percent() < SHOWN_MIN {
            return Err(format!("{} of {} pictures, {SHOWN_MIN} % are needed", seen.shown(), stamps.expected));
        }
        if stamps.longest_gap_frames > GAP_MAX {
            return Err(format!("{} pictures in a row are missing", stamps.longest_gap_frames));
        }
        if stamps.out_of_order > 0 {
            return Err(format!("{} pictures came out of order", stamps.out_of_order));
        }
        if 100.0 * seen.sound_s < SOUND_MIN * seen.listened_s {
            return Err(format!("{:.1} s of sound in {:.1} s", seen.sound_s, seen.listened_s));
        }
        if seen.loudness < LOUDNESS_MIN {
            return Err(format!("silence: the loudness is {:.4}", seen.loudness));
        }
        Ok(())
    }
}

fn pair(from: &str, to: &str) -> String {
    format!("{from} -> {to}")
}

fn same(what: &str, got: &str, wanted: &str) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got}, expected {wanted}")) }
}

fn same_as_ledger(kind: &str, wire: &str, promised: &str) -> Result<(), String> {
    if wire == promised { Ok(()) } else { Err(format!("{kind} on the wire is {wire}, the ledger says {promised}")) }
}

/// The ledger against the plan that is made from the table alone.
fn as_predicted(row: &Row, plan: &Plan) -> Result<(), String> {
    same("rule in the ledger", row.rule.as_ref().map_or("none", |rule| &rule.id), &plan.rule.id)?;
    for (kind, verdict, predicted) in [("video", &row.video, &plan.video), ("audio", &row.audio, &plan.audio)] {
        let verdict = verdict.clone().unwrap_or_default();
        let words = |action: &str, code: &str, codec: &str| format!("{action} [{code}] {codec}").trim_end().to_owned();
        let codec = match predicted.action {
            Action::Transcode(target) => target.codec().name(),
            _ => "",
        };
        let output = if verdict.action == "transcode" { verdict.output.as_deref().unwrap_or_default() } else { "" };
        let wanted = words(predicted.action.name(), predicted.code.name(), codec);
        same(&format!("{kind} in the ledger"), &words(&verdict.action, &verdict.code, output), &wanted)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use patchbay_rules::{Abilities, RuleTable, explain};

    use super::super::stamp::Stamps;
    use super::super::witness::Rule;
    use super::*;

    const PAIR: (EndpointKind, EndpointKind) = (EndpointKind::Rtmp, EndpointKind::Webrtc);

    fn verdict(action: &str, code: &str, output: &str) -> Option<Verdict> {
        Some(Verdict { action: action.into(), code: code.into(), reason: "because".into(), output: Some(output.into()) })
    }

    fn good() -> Leg {
        let stamps = Stamps { distinct: 148, expected: 150, longest_gap_frames: 1, first: Some(1), last: Some(150), out_of_order: 0 };
        let observed = Observed {
            client: "x".into(),
            video: Some("h264".into()),
            audio: Some("opus".into()),
            pictures: 200,
            stamps,
            unread: 0,
            listened_s: 7.0,
            sound_s: 6.9,
            loudness: 0.15,
            complaint: None,
        };
        let row = Row {
            from: Some("rtmp".into()),
            to: "webrtc".into(),
            rule: Some(Rule { id: "matrix:rtmp>webrtc".into() }),
            video: verdict("pass", "rule_pass", "h264"),
            audio: verdict("transcode", "codec_not_accepted", "opus"),
            ..Row::default()
        };
        let plan = explain(&RuleTable::default(), &Abilities::all(), PAIR, "a", None, None).unwrap().plan;
        Leg { way: "WHEP", observed, row: Some(row), predicted: Some(plan) }
    }

    /// What is said of a good leg after `change`.
    fn said(change: impl FnOnce(&mut Leg)) -> String {
        let mut leg = good();
        change(&mut leg);
        leg.judge(PAIR, 5.0).err().unwrap_or_default()
    }

    fn row(leg: &mut Leg) -> &mut Row {
        leg.row.as_mut().unwrap()
    }

    #[test]
    fn a_viewer_that_gets_what_was_promised_is_good() {
        assert_eq!(said(|_| {}), "");
        assert_eq!(said(|leg| leg.predicted = None), "");
        assert_eq!(said(|leg| (leg.observed.stamps.distinct, leg.observed.unread) = (135, 9)), "", "shown is shown");
    }

    #[test]
    fn what_is_lost_before_the_deployment_counts_too() {
        let taken = |pictures, pictures_lost| source(Taken { pictures, pictures_lost, sounds: 1 });
        assert_eq!((taken(0, 0).is_err(), taken(96, 4)), (true, Ok(())));
        assert_eq!(taken(90, 10), Err("10 pictures of its source never arrived, 90 did".into()));
    }

    #[test]
    fn everything_that_can_be_wrong_has_its_line() {
        let nothing = |leg: &mut Leg| (leg.observed.pictures, leg.observed.complaint) = (0, Some("I/O error".into()));
        assert_eq!(said(nothing), "no pictures (I/O error); ledger: video pass: because");
        assert_eq!(said(|leg| leg.observed.sound_s = 0.0), "no sound; ledger: audio transcode: because");
        assert!(said(|leg| leg.observed.stamps = Stamps::default()).contains("not one stamp"));
        assert_eq!(said(|leg| leg.row = None), "the ledger has no row for it");
        assert_eq!(said(|leg| row(leg).to = "rtmp".into()), "kinds in the ledger: rtmp -> rtmp, expected rtmp -> webrtc");
        assert_eq!(said(|leg| leg.observed.audio = Some("aac".into())), "audio on the wire is aac, the ledger says opus");
        let other_rule = |leg: &mut Leg| row(leg).rule = Some(Rule { id: "mine".into() });
        assert_eq!(said(other_rule), "rule in the ledger: mine, expected matrix:rtmp>webrtc");
        let other_verdict = |leg: &mut Leg| row(leg).video = verdict("transcode", "b_frames", "h264");
        assert_eq!(said(other_verdict), "video in the ledger: transcode [b_frames] h264, expected pass [rule_pass]");
        assert_eq!(said(|leg| leg.observed.stamps.expected = 60), "only 60 pictures were to be seen in 5 s");
        assert_eq!(said(|leg| leg.observed.stamps.distinct = 140), "140 of 150 pictures, 95 % are needed");
        assert_eq!(said(|leg| leg.observed.stamps.longest_gap_frames = 16), "16 pictures in a row are missing");
        assert_eq!(said(|leg| leg.observed.stamps.out_of_order = 1), "1 pictures came out of order");
        assert_eq!(said(|leg| leg.observed.sound_s = 6.0), "6.0 s of sound in 7.0 s");
        assert_eq!(said(|leg| leg.observed.loudness = 0.0), "silence: the loudness is 0.0000");
    }
}

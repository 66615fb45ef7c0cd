//! One row of the matrix: a source, and its viewers of every kind.
//!
//! The cheap viewers play together, jsmpeg beside them; WebRTC has the machine for itself. Refuses: to judge.

use std::thread;
use std::time::{Duration, Instant};

use patchbay_rules::{EndpointKind, explain};

use super::judge::Leg;
use super::report::{Cell, State};
use super::source::Source;
use super::stamp::Counts;
use super::witness::{Mark, Witness};
use super::{Bench, Fault, Observed, judge, player, script};

/// How long a source may take until both its tracks are live.
const LIVE_MAX: Duration = Duration::from_secs(20);

/// How a sink plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Whep,
    Jsmpeg,
    Rtmp,
    HttpFlv,
    Push,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Whep => "WHEP",
            Self::Jsmpeg => "WebSocket",
            Self::Rtmp => "RTMP",
            Self::HttpFlv => "HTTP-FLV",
            Self::Push => "push",
        }
    }

    /// The ways of a kind.
    const fn of(kind: EndpointKind) -> &'static [Self] {
        match kind {
            EndpointKind::Webrtc => &[Self::Whep],
            EndpointKind::H5 => &[Self::Jsmpeg],
            EndpointKind::Cdn => &[Self::Push],
            _ => &[Self::Rtmp, Self::HttpFlv],
        }
    }
}

/// A viewer that is to play.
#[derive(Clone, Copy)]
struct Viewer {
    to: EndpointKind,
    way: Way,
}

/// Drives one row.
pub fn drive(bench: &Bench, from: EndpointKind, to: &[EndpointKind]) -> Vec<Cell> {
    let started = Source::start(from, bench).and_then(|source| live(bench, from, source));
    let (source, witness) = match started {
        Ok(started) => started,
        Err(fault) => return to.iter().map(|to| Cell::without_viewers(from, *to, fault.clone())).collect(),
    };
    let viewers: Vec<Viewer> = to.iter().flat_map(|to| Way::of(*to).iter().map(|way| Viewer { to: *to, way: *way })).collect();
    let row = Row { bench, from, source: &source, witness: &witness };
    let (alone, together): (Vec<_>, Vec<_>) = viewers.into_iter().partition(|viewer| viewer.way == Way::Whep);
    let mut legs: Vec<(Viewer, Result<Leg, Fault>)> = thread::scope(|scope| {
        let running: Vec<_> = together.iter().map(|viewer| (*viewer, scope.spawn(|| row.watch(*viewer)))).collect();
        let panicked = || Err(Fault::Failed("its thread failed".into()));
        running.into_iter().map(|(viewer, thread)| (viewer, thread.join().unwrap_or_else(|_| panicked()))).collect()
    });
    legs.extend(alone.into_iter().map(|viewer| (viewer, row.watch(viewer))));
    to.iter().map(|to| row.cell(*to, &mut legs)).collect()
}

/// The source once both its tracks are live, under the right kind.
fn live(bench: &Bench, from: EndpointKind, mut source: Source) -> Result<(Source, Witness), Fault> {
    let witness = Witness::of(&bench.deployment, &source.stream);
    let cell = std::cell::RefCell::new(&mut source);
    let go_on = || !bench.stop.is_cancelled() && cell.borrow_mut().is_running();
    let kind = witness.live_by(Instant::now() + LIVE_MAX, go_on);
    let kind =
        kind.map_err(|why| Fault::Failed(format!("its source is not live: {why} {}", source.last_words(bench)).trim_end().into()))?;
    if kind != from.name() {
        return Err(Fault::Failed(format!("the deployment takes its source for {kind}")));
    }
    Ok((source, witness))
}

struct Row<'a> {
    bench: &'a Bench,
    from: EndpointKind,
    source: &'a Source,
    witness: &'a Witness,
}

impl Row<'_> {
    fn watch(&self, viewer: Viewer) -> Result<Leg, Fault> {
        let agent = format!("interop-{}-{}-{}", std::process::id(), viewer.to, viewer.way.name());
        let (stream, counts, deployment) = (self.source.stream.as_str(), self.source.counts, &self.bench.deployment);
        let (mark, mut observed) = match viewer.way {
            Way::Whep => (Mark::Protocol("whep"), script::whep(self.bench, stream, counts)?),
            Way::Jsmpeg => (Mark::Protocol("h5"), script::jsmpeg(self.bench, stream, counts)?),
            Way::Push => (Mark::Protocol("push"), self.pushed(&agent, counts)?),
            Way::Rtmp => {
                let url = deployment.rtmp_url(stream, viewer.to);
                let observed = player::play(self.bench, &url, &agent, counts)?;
                (Mark::Agent(agent), observed)
            }
            Way::HttpFlv => {
                let url = deployment.url(&format!("/flv/{stream}.flv"), &[("kind", viewer.to.name())]);
                let observed = player::play(self.bench, url.as_str(), &agent, counts)?;
                (Mark::Agent(agent), observed)
            }
        };
        self.count_at_the_source(&mut observed);
        Ok(Leg { way: viewer.way.name(), observed, row: self.witness.row(&mark), predicted: self.predicted(viewer.to) })
    }

    /// Has the stream pushed to the CDN's server, and plays it there.
    fn pushed(&self, name: &str, counts: Counts) -> Result<Observed, Fault> {
        let bench = self.bench;
        let origin = bench.origin.as_ref().map_err(Fault::missing)?;
        if origin.is_ours() && !bench.deployment.is_here() {
            let words = "the deployment cannot reach a server on this machine's loopback; give --origin one that both reach";
            return Err(Fault::Missing(words.into()));
        }
        let url = format!("{}/{}", origin.application, bench.name(self.from));
        bench.deployment.push(name, &self.source.stream, &url).map_err(Fault::Failed)?;
        let observed = player::play(bench, &url, name, counts);
        bench.deployment.stop_push(name);
        observed.map(|seen| Observed { client: format!("{} from {}", seen.client, origin.name()), ..seen })
    }

    /// Stamps of the clock do not tell how many pictures there were; the deployment's count of the source does.
    fn count_at_the_source(&self, observed: &mut Observed) {
        if let (Counts::Milliseconds, Some(first), Some(last)) = (self.source.counts, observed.stamps.first, observed.stamps.last) {
            observed.stamps.expected = self.witness.pictures_between(first, last);
        }
    }

    /// The plan that rules, table and abilities come to for what the source sends.
    fn predicted(&self, to: EndpointKind) -> Option<patchbay_rules::Plan> {
        let (rules, able) = self.bench.predicted.as_ref()?;
        let (video, audio) = match self.from {
            EndpointKind::H5 => ("mpeg1:640x360:30fps", "mp2:44100:2"),
            EndpointKind::Webrtc => ("h264:constrained-baseline:640x360:30fps", "opus:48000:2"),
            _ => ("h264:constrained-baseline:640x360:30fps", "aac:44100:2"),
        };
        let explained = explain(rules, able, (self.from, to), &self.source.stream, Some(video), Some(audio));
        explained.ok().map(|explained| explained.plan)
    }

    /// The cell of a sink out of what its viewers came to.
    fn cell(&self, to: EndpointKind, legs: &mut Vec<(Viewer, Result<Leg, Fault>)>) -> Cell {
        let seconds = self.bench.seconds.as_secs_f64();
        let (source, taken) = (self.source.client.clone(), self.witness.taken());
        let mut cell = Cell { from: self.from, to, state: State::Green, source, taken, legs: Vec::new() };
        if let Err(why) = judge::source(taken) {
            cell.blame(State::Red(why));
        }
        for (viewer, result) in legs.extract_if(.., |(viewer, _)| viewer.to == to) {
            let way = viewer.way.name();
            match result {
                Ok(leg) => {
                    if let Err(why) = leg.judge((self.from, to), seconds) {
                        cell.blame(State::Red(format!("{way}: {why}")));
                    }
                    cell.legs.push(leg);
                }
                Err(Fault::Failed(why)) => cell.blame(State::Red(format!("{way}: {why}"))),
                Err(Fault::Missing(what)) => cell.blame(State::Untested(format!("{way}: {what}"))),
            }
        }
        cell
    }
}

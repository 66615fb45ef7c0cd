//! What the deployment says of one stream while it is played: how much its source sent, and the ledger's row of every viewer.
//!
//! A thread asks the API again and again, because rows go with their viewers. Refuses: to judge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::deployment::Deployment;
use super::stamp::MODULUS;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(250);

/// A row of the ledger, as far as it is compared.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Row {
    pub id: u64,
    pub stream: String,
    pub from: Option<String>,
    pub to: String,
    pub protocol: String,
    pub rule: Option<Rule>,
    pub video: Option<Verdict>,
    pub audio: Option<Verdict>,
}

/// The rule of a row.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Rule {
    pub id: String,
}

/// What a row says of one track.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Verdict {
    pub action: String,
    pub code: String,
    pub reason: String,
    pub output: Option<String>,
}

/// How a viewer's row is found.
#[derive(Clone, Debug)]
pub enum Mark {
    /// The software name it gave itself for this.
    Agent(String),
    /// Its protocol: nobody else plays the stream with it.
    Protocol(&'static str),
}

#[derive(Deserialize)]
struct Stream {
    kind: Option<String>,
    tracks: Vec<Track>,
}

#[derive(Deserialize)]
struct Track {
    kind: String,
    frames: u64,
    lost: u64,
}

/// What the deployment took from a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Taken {
    /// Pictures.
    pub pictures: u64,
    /// Pictures that it knows to be missing.
    pub pictures_lost: u64,
    /// Frames of sound.
    pub sounds: u64,
}

#[derive(Deserialize)]
struct Pairs {
    pairs: Vec<Row>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Session {
    id: u64,
    stream: String,
    role: String,
    agent: Option<String>,
}

#[derive(Default)]
struct Seen {
    kind: Option<String>,
    taken: Taken,
    /// Wall clock, milliseconds, and the pictures taken from the source so far.
    pictures: Vec<(f64, u64)>,
    rows: BTreeMap<u64, Row>,
    agents: BTreeMap<u64, String>,
    /// What the last question came to, when it failed.
    trouble: Option<String>,
}

/// Watches one stream until it is dropped.
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
    done: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    pub fn of(deployment: &Arc<Deployment>, stream: &str) -> Self {
        let (seen, done) = (Arc::new(Mutex::new(Seen::default())), CancellationToken::new());
        let (deployment, stream) = (Arc::clone(deployment), stream.to_owned());
        let (noted, over) = (seen.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !over.is_cancelled() {
                let answers = ask(&deployment, &stream);
                note(&mut lock(&noted), &stream, answers);
                std::thread::sleep(PAUSE);
            }
        });
        Self { seen, done, thread: Some(thread) }
    }

    /// The kind of the source, once both its tracks are live.
    ///
    /// # Errors
    /// When it is not by then, with what the API said.
    pub fn live_by(&self, until: Instant, go_on: impl Fn() -> bool) -> Result<String, String> {
        loop {
            let trouble = {
                let seen = lock(&self.seen);
                if let (Some(kind), true) = (&seen.kind, seen.taken.pictures > 0 && seen.taken.sounds > 0) {
                    return Ok(kind.clone());
                }
                seen.trouble.clone()
            };
            if Instant::now() > until || !go_on() {
                return Err(trouble.unwrap_or_else(|| "nothing is known of it".into()));
            }
            std::thread::sleep(PAUSE / 2);
        }
    }

    /// What the source has sent so far.
    pub fn taken(&self) -> Taken {
        lock(&self.seen).taken
    }

    /// The row of a viewer as it was last, the newest when there are several.
    pub fn row(&self, mark: &Mark) -> Option<Row> {
        let seen = lock(&self.seen);
        let is_its = |row: &&Row| match mark {
            Mark::Agent(name) => seen.agents.get(&row.id) == Some(name),
            Mark::Protocol(name) => row.protocol == *name,
        };
        seen.rows.values().rev().find(is_its).cloned()
    }

    /// Pictures taken from the source between two stamps of the wall clock, the last hours' ones; 0 while unknown.
    pub fn pictures_between(&self, first: u32, last: u32) -> u64 {
        let now = now_ms();
        let [from, to] = [first, last].map(|stamp| now - (now - f64::from(stamp)).rem_euclid(f64::from(MODULUS)));
        between(&lock(&self.seen).pictures, from, to)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.done.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed by it.
            _ = thread.join();
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3)
}

fn ask(deployment: &Deployment, stream: &str) -> Result<(Stream, f64, Vec<Session>, Vec<Row>), String> {
    let asked = now_ms();
    let found: Stream = deployment.get(&format!("/v1/streams/{stream}"))?;
    let at = asked.midpoint(now_ms());
    Ok((found, at, deployment.get::<Sessions>("/v1/sessions")?.sessions, deployment.get::<Pairs>("/v1/pairs")?.pairs))
}

fn note(seen: &mut Seen, stream: &str, answers: Result<(Stream, f64, Vec<Session>, Vec<Row>), String>) {
    let (found, at, sessions, rows) = match answers {
        Ok(answers) => answers,
        Err(trouble) => return seen.trouble = Some(trouble),
    };
    let counts = |kind: &str| found.tracks.iter().find(|track| track.kind == kind).map_or((0, 0), |track| (track.frames, track.lost));
    let ((pictures, pictures_lost), (sounds, _)) = (counts("video"), counts("audio"));
    seen.trouble = (pictures == 0 || sounds == 0).then(|| format!("it sent {pictures} pictures and {sounds} frames of sound"));
    seen.taken = Taken { pictures, pictures_lost, sounds };
    seen.pictures.push((at, pictures));
    seen.kind = found.kind;
    let ours = sessions.into_iter().filter(|session| session.stream == stream && session.role == "play");
    seen.agents.extend(ours.filter_map(|session| Some((session.id, session.agent?))));
    // A row without verdicts says nothing yet, or nothing any more.
    let decided = rows.into_iter().filter(|row| row.stream == stream && row.video.is_some());
    seen.rows.extend(decided.map(|row| (row.id, row)));
}

/// Pictures between two times, both ends included, by what was counted around them.
fn between(pictures: &[(f64, u64)], from: f64, to: f64) -> u64 {
    let at = |time: f64| {
        let after = pictures.partition_point(|(at, _)| *at < time).clamp(1, pictures.len().max(2) - 1);
        let ((t0, n0), (t1, n1)) = (pictures.get(after - 1)?, pictures.get(after)?);
        Some(*n0 as f64 + (*n1 as f64 - *n0 as f64) * (time - t0) / (t1 - t0).max(1.0))
    };
    at(to).zip(at(from)).map_or(0, |(to, from)| (to - from).max(0.0).round() as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_counted_between_the_samples() {
        let samples = [(1_000.0, 10), (2_000.0, 40), (3_000.0, 70)];
        assert_eq!(between(&samples, 1_500.0, 2_500.0), 31);
        assert_eq!(between(&samples, 1_000.0, 3_000.0), 61);
        assert_eq!(between(&samples, 2_900.0, 3_500.0), 19, "beyond the last sample the rate goes on");
        assert_eq!((between(&[], 0.0, 1.0), between(&samples[..1], 0.0, 1.0)), (0, 0));
    }

    #[test]
    fn a_row_is_kept_after_its_viewer_left() {
        let (mut seen, live) = (Seen::default(), || Stream { kind: Some("rtmp".into()), tracks: Vec::new() });
        let row = |id, stream: &str| Row { id, stream: stream.into(), video: Some(Verdict::default()), ..Row::default() };
        let session = Session { id: 1, stream: "a".into(), role: "play".into(), agent: Some("x".into()) };
        note(&mut seen, "a", Ok((live(), 0.0, vec![session], vec![row(1, "a"), row(2, "b"), Row { video: None, ..row(3, "a") }])));
        note(&mut seen, "a", Ok((live(), 1.0, Vec::new(), Vec::new())));
        let witness = Witness { seen: Arc::new(Mutex::new(seen)), done: CancellationToken::new(), thread: None };
        assert_eq!(witness.row(&Mark::Agent("x".into())).map(|row| row.id), Some(1));
        assert_eq!(witness.row(&Mark::Agent("y".into())).map(|row| row.id), None);
        assert_eq!(witness.row(&Mark::Protocol("")).map(|row| row.id), Some(1));
    }
}

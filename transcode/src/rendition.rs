//! [`Rendition`], the caller's handle, and the worker behind it: reads the source, drives a stage, restarts it
//! when a codec fails, gives up when it keeps failing.

use std::collections::VecDeque;
use std::sync::Arc;

use patchbay_bus::{EndReason, Item, Reader, Track, TrackWriter, now};
use patchbay_media::{Frame, Kind, MediaTime, TrackInfo};

use crate::error::CodecError;
use crate::pool::{Actor, Ending, Pool, Task, Turn};
use crate::stats::{RenditionState, RenditionStats, Stats, thread_cpu_ns};
use crate::video::share::Seat;

/// This many failures within [`FAILURE_WINDOW`] end the rendition.
const FAILURES_MAX: usize = 5;
const FAILURE_WINDOW: MediaTime = MediaTime::from_secs(10);
/// Pause before a rebuild, as often as there were failures in the [`ROW`] before it: five failures are not used up in a
/// millisecond, and a decoder that met a second of noise takes the very next key frame.
const PAUSE: MediaTime = MediaTime::from_millis(150);
const ROW: MediaTime = MediaTime::from_millis(800);
/// How long one turn may last before others get theirs.
pub(crate) const TURN_MAX: MediaTime = MediaTime::from_millis(15);
/// How long one that is ahead leaves its input where it is: 200 frames per second all the same.
const AHEAD_PAUSE: MediaTime = MediaTime::from_millis(5);

/// A running transcode. Dropping it stops the codecs and ends its track.
pub struct Rendition {
    track: Arc<Track>,
    stats: Arc<Stats>,
    task: Arc<Task>,
    /// Its share in a decoder that others may use too.
    _seat: Option<Seat>,
    /// The threads outlive every rendition, also when the engine is let go of first.
    _pool: Arc<Pool>,
}

impl Rendition {
    pub(crate) fn new(track: Arc<Track>, stats: Arc<Stats>, task: Arc<Task>, seat: Option<Seat>, pool: Arc<Pool>) -> Self {
        Self { track, stats, task, _seat: seat, _pool: pool }
    }

    /// The track that is written. A video track is described with its first frame.
    pub fn track(&self) -> &Arc<Track> {
        &self.track
    }

    /// Figures so far.
    pub fn stats(&self) -> RenditionStats {
        self.stats.snapshot()
    }
}

impl Drop for Rendition {
    fn drop(&mut self) {
        self.task.stop();
    }
}

/// Where a stage's frames go.
pub(crate) struct Output<'a> {
    writer: &'a mut TrackWriter,
    stats: &'a Stats,
    source: &'a Track,
}

impl<'a> Output<'a> {
    pub(crate) fn new(writer: &'a mut TrackWriter, stats: &'a Stats, source: &'a Track) -> Self {
        Self { writer, stats, source }
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        self.stats.went_out(now() - frame.arrival);
        self.writer.push(frame);
    }

    pub(crate) fn set_info(&mut self, info: TrackInfo) {
        self.writer.set_info(info);
    }

    pub(crate) fn track(&self) -> &Arc<Track> {
        self.writer.track()
    }

    /// Asks the source for a key frame; its gate merges and budgets requests.
    pub(crate) fn ask_source_for_key(&self) {
        self.source.keyframes().request();
    }

    /// Source frames that will not be heard or seen.
    pub(crate) fn dropped(&mut self, frames: u64) {
        self.stats.dropped(frames);
    }
}

/// Decoder, processing and encoder of one kind of media.
pub(crate) trait Stage: Send {
    /// The frames that follow are described by `info`.
    fn describe(&mut self, info: &Arc<TrackInfo>, out: &mut Output<'_>) -> Result<(), CodecError>;
    /// One frame of the source. An error means the codecs are unusable; one bad packet is not an error.
    fn frame(&mut self, frame: &Frame, out: &mut Output<'_>) -> Result<(), CodecError>;
    /// A frame of the source is left out: a failure was a moment ago.
    fn skip(&mut self) {}
    /// The reader skipped this many frames; a key frame follows.
    fn gap(&mut self, frames: u64, out: &mut Output<'_>);
    /// There is no input now; returns when to be asked again without any.
    fn idle(&mut self, now: MediaTime, out: &mut Output<'_>) -> Result<Option<MediaTime>, CodecError>;
    /// The source ended: writes what is held back.
    fn finish(&mut self, out: &mut Output<'_>);
    /// Whether what it has made waits in a heap for those who use it.
    fn is_ahead(&self) -> bool {
        false
    }
    /// Forgets all codec state; the next key frame starts anew.
    fn reset(&mut self);
    /// Nothing more will be asked of it.
    fn ended(&mut self, _: EndReason, _: RenditionState) {}
}

/// Recent failures of one worker.
#[derive(Default)]
pub(crate) struct Failures(VecDeque<MediaTime>);

impl Failures {
    /// Notes a failure; when to try again, or `None` when there were too many.
    pub(crate) fn note(&mut self, time: MediaTime) -> Option<MediaTime> {
        self.0.push_back(time);
        while self.0.front().is_some_and(|&at| time - at > FAILURE_WINDOW) {
            self.0.pop_front();
        }
        let in_a_row = self.0.iter().filter(|&&at| time - at < ROW).count();
        (self.0.len() < FAILURES_MAX).then(|| (1..in_a_row).fold(time, |at, _| at + PAUSE))
    }
}

/// One rendition on the pool.
pub(crate) struct Worker {
    reader: Reader,
    /// `None` once ended.
    writer: Option<TrackWriter>,
    stage: Box<dyn Stage>,
    stats: Arc<Stats>,
    failures: Failures,
    /// After a failure, frames before this time and up to the next key frame are dropped.
    retry_at: Option<MediaTime>,
}

enum Step {
    More,
    Drained(Option<MediaTime>),
    Ended(EndReason),
    Failed(CodecError),
}

impl Worker {
    pub(crate) fn new(reader: Reader, writer: TrackWriter, stage: Box<dyn Stage>, stats: Arc<Stats>) -> Self {
        Self { reader, writer: Some(writer), stage, stats, failures: Failures::default(), retry_at: None }
    }

    fn step(&mut self) -> Step {
        let Some(writer) = &mut self.writer else { return Step::Ended(EndReason::Stopped) };
        let item = self.reader.poll();
        let mut out = Output::new(writer, &self.stats, self.reader.track());
        let result = match item {
            Some(Item::Info(info)) => self.stage.describe(&info, &mut out),
            Some(Item::Gap(frames)) => {
                out.dropped(frames);
                self.stage.gap(frames, &mut out);
                Ok(())
            }
            Some(Item::Frame(frame)) => {
                self.stats.came_in(1);
                if self.retry_at.is_some_and(|at| !frame.key || now() < at) {
                    out.dropped(1);
                    self.stage.skip();
                    return Step::More;
                }
                self.retry_at = None;
                self.stage.frame(&frame, &mut out)
            }
            Some(Item::End(reason)) => {
                self.stage.finish(&mut out);
                return Step::Ended(reason);
            }
            None if self.retry_at.is_some() => return Step::Drained(None),
            None => match self.stage.idle(now(), &mut out) {
                Ok(wake) => return Step::Drained(wake),
                Err(e) => Err(e),
            },
        };
        result.map_or_else(Step::Failed, |()| Step::More)
    }

    /// Rebuilds after a failure, or gives up.
    fn failed(&mut self, error: &CodecError) -> Option<EndReason> {
        let time = now();
        let codec = self.reader.track().info().map(|(info, _)| info.codec.name());
        tracing::warn!(track = self.reader.track().uid(), codec, %error, "transcode failed; rebuilding at the next key frame");
        self.stage.reset();
        self.retry_at = self.failures.note(time);
        if self.retry_at.is_none() {
            return Some(EndReason::Failed);
        }
        self.stats.restarted();
        if self.reader.track().kind() == Kind::Video {
            self.reader.track().keyframes().request();
        }
        None
    }

    fn end(&mut self, reason: EndReason, state: RenditionState) -> Turn {
        self.stats.set_state(state);
        self.stage.ended(reason, state);
        if let Some(writer) = self.writer.take() {
            writer.end(reason);
        }
        Turn::Done
    }

    fn steps(&mut self) -> Turn {
        let begun = now();
        loop {
            match self.step() {
                Step::More if self.stage.is_ahead() => return Turn::Wait(Some(now() + AHEAD_PAUSE)),
                Step::More => {}
                Step::Drained(wake) => return Turn::Wait(wake),
                Step::Ended(reason) => return self.end(reason, RenditionState::Ended),
                Step::Failed(error) => {
                    if let Some(reason) = self.failed(&error) {
                        return self.end(reason, RenditionState::Failed);
                    }
                }
            }
            if now() - begun > TURN_MAX {
                return Turn::Again;
            }
        }
    }
}

impl Actor for Worker {
    fn turn(&mut self) -> Turn {
        let before = thread_cpu_ns();
        let turn = self.steps();
        self.stats.spent(thread_cpu_ns().saturating_sub(before));
        turn
    }

    fn close(mut self: Box<Self>, ending: Ending) {
        let (reason, state) = ending.as_end();
        self.end(reason, state);
    }
}

//! Figures of one rendition, written by its pipeline and read by anybody.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use patchbay_media::MediaTime;

/// Where a rendition is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenditionState {
    /// Nothing came out yet.
    Starting,
    /// Frames come out.
    Running,
    /// A codec failed; it is rebuilt at the next key frame.
    Restarting,
    /// The source ended.
    Ended,
    /// Stopped by its owner.
    Stopped,
    /// It failed too often.
    Failed,
}

/// A snapshot of one rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenditionStats {
    /// Frames read from the source.
    pub frames_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// CPU time of the pipeline's own turns and its share of a decoder it has with others, nanoseconds; helper threads inside an encoder (pictures above 720p)
    /// are not in it.
    pub cpu_ns: u64,
    /// From arrival of the newest input in a frame to its output: median of the last 64 frames, nanoseconds.
    pub added_delay_p50_ns: u64,
    /// The same for the last frame.
    pub added_delay_last_ns: u64,
    /// How often a codec was rebuilt after a failure.
    pub restarts: u64,
    /// Source frames that were lost here: skipped for lag, or refused by the decoder.
    pub dropped: u64,
    /// Those of them that were decoded and found the encoder behind: what it would make if it had the time.
    pub shed: u64,
    /// Where it is in its life.
    pub state: RenditionState,
}

const DELAYS: usize = 64;

struct Delays {
    ring: [u64; DELAYS],
    count: usize,
}

impl Default for Delays {
    fn default() -> Self {
        Self { ring: [0; DELAYS], count: 0 }
    }
}

#[derive(Default)]
pub(crate) struct Stats {
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    cpu_ns: AtomicU64,
    restarts: AtomicU64,
    dropped: AtomicU64,
    shed: AtomicU64,
    state: AtomicU8,
    delays: Mutex<Delays>,
}

const STATES: [RenditionState; 6] = [
    RenditionState::Starting,
    RenditionState::Running,
    RenditionState::Restarting,
    RenditionState::Ended,
    RenditionState::Stopped,
    RenditionState::Failed,
];

impl Stats {
    pub(crate) fn came_in(&self, frames: u64) {
        self.frames_in.fetch_add(frames, Ordering::Relaxed);
    }

    pub(crate) fn went_out(&self, delay: MediaTime) {
        if self.frames_out.fetch_add(1, Ordering::Relaxed) == 0 || self.state() == RenditionState::Restarting {
            self.set_state(RenditionState::Running);
        }
        let mut delays = self.delays.lock().unwrap_or_else(|p| p.into_inner());
        let at = delays.count % DELAYS;
        delays.ring[at] = delay.as_nanos().max(0) as u64;
        delays.count += 1;
    }

    pub(crate) fn dropped(&self, frames: u64) {
        self.dropped.fetch_add(frames, Ordering::Relaxed);
    }

    /// A picture that found the encoder behind.
    pub(crate) fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
        self.dropped(1);
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.set_state(RenditionState::Restarting);
    }

    pub(crate) fn spent(&self, cpu_ns: u64) {
        self.cpu_ns.fetch_add(cpu_ns, Ordering::Relaxed);
    }

    pub(crate) fn set_state(&self, state: RenditionState) {
        let index = STATES.iter().position(|&s| s == state).unwrap_or(0);
        self.state.store(index as u8, Ordering::Relaxed);
    }

    fn state(&self) -> RenditionState {
        STATES[usize::from(self.state.load(Ordering::Relaxed)) % STATES.len()]
    }

    pub(crate) fn snapshot(&self) -> RenditionStats {
        let (p50, last) = {
            let delays = self.delays.lock().unwrap_or_else(|p| p.into_inner());
            let mut known = delays.ring;
            let known = &mut known[..delays.count.min(DELAYS)];
            let last = delays.count.checked_sub(1).map_or(0, |n| delays.ring[n % DELAYS]);
            known.sort_unstable();
            (known.get(known.len() / 2).copied().unwrap_or(0), last)
        };
        RenditionStats {
            frames_in: self.frames_in.load(Ordering::Relaxed),
            frames_out: self.frames_out.load(Ordering::Relaxed),
            cpu_ns: self.cpu_ns.load(Ordering::Relaxed),
            added_delay_p50_ns: p50,
            added_delay_last_ns: last,
            restarts: self.restarts.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
            state: self.state(),
        }
    }
}

/// CPU time this thread has used, nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result; the clock exists on every Linux.
    let rc = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    if rc == 0 { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 }
}

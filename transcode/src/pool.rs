//! The codec threads: a fixed number, one actor at a time on each, and one timer. Never an async worker.
//!
//! An actor is queued at most once, so the queue is as long as there are renditions at most. A turn is short (the
//! actor's own budget) and the actor goes to the back of the queue when it has more to do: no rendition can
//! starve another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use patchbay_bus::{EndReason, Signal, now};
use patchbay_media::MediaTime;

use crate::stats::RenditionState;

/// What an actor wants after a turn.
pub(crate) enum Turn {
    /// Another turn soon: the budget is used up, the input is not.
    Again,
    /// Sleep until the signal, or until this time.
    Wait(Option<MediaTime>),
    /// Never again.
    Done,
}

/// Why an actor is taken off the pool before it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its owner let go of it.
    Stopped,
    /// It panicked.
    Panicked,
}

impl Ending {
    /// What becomes of a rendition that ends like this.
    pub(crate) fn as_end(self) -> (EndReason, RenditionState) {
        match self {
            Self::Stopped => (EndReason::Stopped, RenditionState::Stopped),
            Self::Panicked => (EndReason::Failed, RenditionState::Failed),
        }
    }
}

/// Something that runs in turns.
pub(crate) trait Actor: Send {
    /// Does a little.
    fn turn(&mut self) -> Turn;
    /// Last words, on a pool thread.
    fn close(self: Box<Self>, ending: Ending);
}

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
/// Woken while running: must run again.
const WOKEN: u8 = 3;

const NO_DEADLINE: i64 = i64::MAX;

/// An actor with its place in the schedule.
pub(crate) struct Task {
    state: AtomicU8,
    stop: AtomicBool,
    /// When to wake it, nanoseconds of bus time. May move later while the timer is armed, never earlier than the
    /// moment it was armed for: silence starts a fixed time after the last input.
    deadline: AtomicI64,
    armed: AtomicBool,
    actor: Mutex<Option<Box<dyn Actor>>>,
    signal: Arc<Signal>,
    waker: Waker,
    queue: Sender<Job>,
    timer: Sender<Alarm>,
}

enum Job {
    Run(Arc<Task>),
    Exit,
}

enum Alarm {
    Arm(Weak<Task>),
    Exit,
}

/// The waker of a task; weak, because the signal that keeps it is kept by the task.
struct Bell(Weak<Task>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(task) = self.0.upgrade() {
            task.schedule();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Task {
    /// Puts it in the queue unless it is there.
    fn schedule(self: &Arc<Self>) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let next = match state {
                IDLE => QUEUED,
                RUNNING => WOKEN,
                _ => return,
            };
            if self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                if next == QUEUED {
                    self.enqueue();
                }
                return;
            }
        }
    }

    fn enqueue(self: &Arc<Self>) {
        // Fails only when the pool is gone; then nobody is to run anything.
        let _ = self.queue.send(Job::Run(self.clone()));
    }

    /// Ends it from outside; the actor is closed on a pool thread.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stop.store(true, Ordering::Release);
        self.schedule();
    }

    fn run(self: &Arc<Self>) {
        self.state.store(RUNNING, Ordering::Release);
        // What this turn is going to see needs no second one; what comes after it sets the signal again.
        self.signal.take();
        let turn = self.turn();
        self.deadline.store(
            match &turn {
                Turn::Wait(Some(at)) => at.as_nanos(),
                _ => NO_DEADLINE,
            },
            Ordering::Release,
        );
        match turn {
            Turn::Done => self.state.store(IDLE, Ordering::Release),
            Turn::Again => self.requeue(),
            Turn::Wait(deadline) => {
                if deadline.is_some() && !self.armed.swap(true, Ordering::AcqRel) {
                    let _ = self.timer.send(Alarm::Arm(Arc::downgrade(self)));
                }
                let news = self.signal.poll(&mut Context::from_waker(&self.waker)).is_ready();
                let idle = !news && self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
                if !idle {
                    self.requeue();
                }
            }
        }
    }

    fn requeue(self: &Arc<Self>) {
        self.state.store(QUEUED, Ordering::Release);
        self.enqueue();
    }

    fn turn(&self) -> Turn {
        let mut slot = lock(&self.actor);
        let Some(actor) = slot.as_mut() else { return Turn::Done };
        let ending = if self.stop.load(Ordering::Acquire) {
            Ending::Stopped
        } else {
            // The last line of defence: a bug met by odd input ends this rendition and no other.
            match catch_unwind(AssertUnwindSafe(|| actor.turn())) {
                Ok(Turn::Done) => {
                    *slot = None;
                    return Turn::Done;
                }
                Ok(turn) => return turn,
                Err(_) => Ending::Panicked,
            }
        };
        if let Some(actor) = slot.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| actor.close(ending)));
        }
        Turn::Done
    }
}

/// The threads. Dropping it lets them finish what is queued, and exit.
pub(crate) struct Pool {
    threads: usize,
    queue: Sender<Job>,
    timer: Sender<Alarm>,
}

/// Lowers the priority of this thread, and with it of those that a codec starts from here. A system that does not let
/// us has its reasons.
fn stand_back(nice: u8) {
    if nice > 0 {
        // SAFETY: no memory is involved; on Linux `who` 0 is the calling thread.
        let rc = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, i32::from(nice)) };
        if rc != 0 {
            tracing::debug!(nice, "codec thread keeps its priority");
        }
    }
}

impl Pool {
    /// Starts `threads` codec threads and the timer.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(threads: usize, nice: u8) -> std::io::Result<Self> {
        let (queue, jobs) = unbounded();
        let (timer, alarms) = unbounded();
        let pool = Self { threads, queue, timer };
        for n in 0..threads {
            let jobs = jobs.clone();
            std::thread::Builder::new().name(format!("codec-{n}")).spawn(move || {
                stand_back(nice);
                work(&jobs);
            })?;
        }
        std::thread::Builder::new().name("codec-timer".into()).spawn(move || keep_time(&alarms))?;
        Ok(pool)
    }

    /// Adds an actor that `signal` wakes, and gives it its first turn.
    pub(crate) fn spawn(&self, actor: Box<dyn Actor>, signal: Arc<Signal>) -> Arc<Task> {
        let task = Arc::new_cyclic(|weak: &Weak<Task>| Task {
            state: AtomicU8::new(IDLE),
            stop: AtomicBool::new(false),
            deadline: AtomicI64::new(NO_DEADLINE),
            armed: AtomicBool::new(false),
            actor: Mutex::new(Some(actor)),
            signal,
            waker: Waker::from(Arc::new(Bell(weak.clone()))),
            queue: self.queue.clone(),
            timer: self.timer.clone(),
        });
        task.schedule();
        task
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for _ in 0..self.threads {
            let _ = self.queue.send(Job::Exit);
        }
        let _ = self.timer.send(Alarm::Exit);
    }
}

fn work(jobs: &Receiver<Job>) {
    while let Ok(Job::Run(task)) = jobs.recv() {
        task.run();
    }
}

/// Orders alarms by time; ties do not matter.
struct Entry(i64, Weak<Task>);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// The timer thread: at most one entry per task.
fn keep_time(alarms: &Receiver<Alarm>) {
    let mut heap: BinaryHeap<Reverse<Entry>> = BinaryHeap::new();
    loop {
        let wait = heap.peek().map_or(Duration::from_secs(3_600), |Reverse(e)| (MediaTime::from_nanos(e.0) - now()).to_duration());
        match alarms.recv_timeout(wait) {
            Ok(Alarm::Arm(task)) => {
                let at = task.upgrade().map(|t| t.deadline.load(Ordering::Acquire));
                heap.extend(at.map(|at| Reverse(Entry(at.min(far()), task))));
            }
            Ok(Alarm::Exit) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let time = now().as_nanos();
        while heap.peek().is_some_and(|Reverse(e)| e.0 <= time) {
            let Some(Reverse(Entry(_, weak))) = heap.pop() else { break };
            let Some(task) = weak.upgrade() else { continue };
            match task.deadline.load(Ordering::Acquire) {
                at if at <= time => {
                    task.armed.store(false, Ordering::Release);
                    task.schedule();
                }
                // It moved while it was armed; without a deadline, look again in a while: cheaper than a protocol
                // for disarming.
                at => heap.push(Reverse(Entry(at.min(far()), weak))),
            }
        }
    }
}

/// How far ahead an alarm without a deadline is looked at again.
fn far() -> i64 {
    now().as_nanos().saturating_add(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    struct Counter {
        turns: Arc<AtomicU32>,
        closed: Arc<AtomicU32>,
        wait: Option<u64>,
        panics: bool,
    }

    impl Actor for Counter {
        fn turn(&mut self) -> Turn {
            self.turns.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "asked to");
            Turn::Wait(self.wait.map(|ms| now() + MediaTime::from_millis(ms as i64)))
        }
        fn close(self: Box<Self>, _: Ending) {
            self.closed.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn spawn(pool: &Pool, wait: Option<u64>, panics: bool) -> (Arc<Task>, Arc<Signal>, Arc<AtomicU32>, Arc<AtomicU32>) {
        let (turns, closed, signal) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(Signal::new()));
        let actor = Counter { turns: turns.clone(), closed: closed.clone(), wait, panics };
        (pool.spawn(Box::new(actor), signal.clone()), signal, turns, closed)
    }

    /// Waits for a count, and a little longer for one too many.
    fn assert_reaches(count: &AtomicU32, wanted: u32) {
        for _ in 0..500 {
            if count.load(Ordering::SeqCst) >= wanted {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(count.load(Ordering::SeqCst), wanted);
    }

    #[test]
    fn a_signal_gives_a_turn_and_a_stop_closes_on_the_pool() {
        let pool = Pool::start(1, 0).unwrap();
        let (task, signal, turns, closed) = spawn(&pool, None, false);
        assert_reaches(&turns, 1);
        signal.notify();
        assert_reaches(&turns, 2);
        task.stop();
        assert_reaches(&closed, 1);
        assert_reaches(&turns, 2);
    }

    #[test]
    fn a_deadline_gives_turns_without_any_signal() {
        let pool = Pool::start(1, 0).unwrap();
        let (_task, _, turns, _) = spawn(&pool, Some(10), false);
        let begun = now();
        while turns.load(Ordering::SeqCst) < 10 {
            assert!(now() - begun < MediaTime::from_secs(10), "{turns:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(now() - begun > MediaTime::from_millis(60), "ten turns of 10 ms came early");
    }

    #[test]
    fn a_panic_closes_the_actor_and_leaves_the_thread_to_others() {
        let pool = Pool::start(1, 0).unwrap();
        let (_a, _, _, closed) = spawn(&pool, None, true);
        let (_b, _, turns, _) = spawn(&pool, None, false);
        assert_reaches(&closed, 1);
        assert_reaches(&turns, 1);
    }
}

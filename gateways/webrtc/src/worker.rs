//! [`Worker`]: one thread, one UDP socket, its sessions. Nothing it touches per packet is shared.
//!
//! The kernel spreads datagrams over the workers' sockets by address, sessions are spread by signalling; a datagram
//! that reaches the wrong worker goes to the owner over a bounded channel and is dropped (and counted) when that is
//! full.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_bus::Signal;
use patchbay_contract::Cause;
use str0m::IceCreds;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::WallClock;
use crate::directory::{Card, Directory, SessionKey};
use crate::lane::Lanes;
use crate::peer::Way;
use crate::session::{Opening, Patience, Session, Surroundings, Wiring};
use crate::socket::{Bound, Inbox, Outbox, Path, Socket};
use crate::stun;
use crate::stun_server::StunServer;
use crate::tcp::{Arrival, Payload, framing};

/// Commands and strayed datagrams that may wait for a worker.
const MAILBOX: usize = 1_024;
/// Reads of TCP connections that may wait for a worker; their tasks wait for room.
const ARRIVALS: usize = 64;
/// Datagrams of TCP connections after which the reads that are left wait for the next turn.
const ARRIVED_PER_TURN: usize = 512;
/// Batches read before sessions get their turn.
const BATCHES_PER_TURN: usize = 8;
/// How often silence and cancellation are looked for.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Routes to other workers that are remembered; past that they are forgotten and learned anew from ICE checks.
const ROUTES_MAX: usize = 16_384;

/// What signalling and other workers ask of a worker.
pub(crate) enum Command {
    Open(Box<Opening>),
    /// Ends a session; answers once nothing more is sent for it.
    Close(SessionKey, Cause, oneshot::Sender<()>),
    Datagram(Path, Vec<u8>),
    /// New ICE credentials of a peer; answers with ours and the session's new card.
    Restart(SessionKey, IceCreds, oneshot::Sender<(IceCreds, Card)>),
}

/// Counts datagrams that led nowhere: `unknown` (STUN for a session that does not exist, other traffic from an address
/// that proved nothing), `mailbox` (another worker's, and its mailbox was full), `send` (the kernel's buffer was full), `tcp` (a connection's queue
/// was full).
fn count_dropped(reason: &'static str, n: u64) {
    metrics::counter!("patchbay_webrtc_datagrams_dropped_total", "reason" => reason).increment(n);
}

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) directory: Arc<Directory>,
    pub(crate) mailboxes: Vec<mpsc::Sender<Command>>,
    /// From TCP connections to workers.
    pub(crate) arrivals: Vec<mpsc::Sender<Arrival>>,
    /// Whether strangers are told their address.
    pub(crate) stun: bool,
    pub(crate) patience: Patience,
    pub(crate) remb_bps: u64,
}

/// What a worker is told.
pub(crate) struct Mailbox {
    commands: mpsc::Receiver<Command>,
    arrivals: mpsc::Receiver<Arrival>,
}

/// Makes the mailboxes of `count` workers.
pub(crate) fn mailboxes(count: usize) -> (Vec<mpsc::Sender<Command>>, Vec<mpsc::Sender<Arrival>>, Vec<Mailbox>) {
    let one = |_| {
        let ((commands, c), (arrivals, a)) = (mpsc::channel(MAILBOX), mpsc::channel(ARRIVALS));
        (commands, arrivals, Mailbox { commands: c, arrivals: a })
    };
    (0..count).map(one).collect()
}

#[derive(Clone, Copy)]
enum Route {
    Mine(SessionKey),
    Other(usize),
}

struct Worker {
    index: usize,
    shared: Arc<Shared>,
    socket: Socket,
    /// Taken out while its datagrams are worked on.
    inbox: Option<Inbox>,
    out: Outbox,
    sessions: HashMap<SessionKey, Session>,
    routes: HashMap<SocketAddr, Route>,
    stun: Option<StunServer>,
    lanes: Lanes,
    wiring: Wiring,
    /// Sessions with something to do, besides those whose deadline has come.
    due: Vec<SessionKey>,
    check_at: Instant,
}

/// Runs a worker until `shutdown`; then ends its sessions.
pub(crate) async fn run(
    index: usize,
    shared: Arc<Shared>,
    bound: Bound,
    mut mailbox: Mailbox,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let (media, feeds) = (Arc::new(Signal::new()), Arc::new(Signal::new()));
    let (remb_bps, stun) = (shared.remb_bps, shared.stun.then(|| StunServer::new(shared.mailboxes.len(), Instant::now())));
    let mut worker = Worker {
        index,
        shared,
        socket: bound.open()?,
        inbox: Some(Inbox::new()),
        out: Outbox::default(),
        sessions: HashMap::new(),
        routes: HashMap::new(),
        stun,
        lanes: Lanes::new(media.clone()),
        wiring: Wiring { media: media.clone(), feeds: feeds.clone(), clock: WallClock::new(), remb_bps },
        due: Vec::new(),
        check_at: Instant::now() + CHECK_EVERY,
    };
    loop {
        let (mut first, mut arrived) = (None, None);
        let mut news = News::default();
        let deadline = worker.deadline();
        tokio::select! {
            () = shutdown.cancelled() => break,
            command = mailbox.commands.recv() => match command {
                Some(command) => first = Some(command),
                None => break,
            },
            arrival = mailbox.arrivals.recv() => match arrival {
                Some(arrival) => arrived = Some(arrival),
                None => break,
            },
            readable = worker.socket.readable() => readable?,
            () = media.wait() => news.media = true,
            () = feeds.wait() => news.feeds = true,
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        // Whatever woke us, do everything that is there: one round of system calls instead of several.
        let commands = std::iter::from_fn(|| mailbox.commands.try_recv().ok()).take(MAILBOX);
        for command in first.into_iter().chain(commands) {
            worker.command(command);
        }
        worker.arrivals(arrived, &mut mailbox.arrivals);
        news.media |= media.take();
        news.feeds |= feeds.take();
        worker.turn(news);
    }
    worker.end_all();
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct News {
    media: bool,
    feeds: bool,
}

impl Worker {
    fn deadline(&self) -> Instant {
        let smoothed = self.lanes.deadline().map(|at| Instant::now() + (at - patchbay_bus::now()).to_duration());
        self.sessions.values().map(Session::deadline).chain(smoothed).fold(self.check_at, Instant::min)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open(opening) => {
                let key = opening.key;
                self.sessions.insert(key, Session::new(*opening, &self.wiring, Instant::now()));
                self.due.push(key);
            }
            Command::Close(key, cause, done) => {
                self.end(key, cause);
                // Signalling may have given up waiting.
                let _ = done.send(());
            }
            Command::Restart(key, remote, done) => {
                if let Some(session) = self.sessions.get_mut(&key) {
                    let remote_ufrag = remote.ufrag.clone();
                    let ours = session.restart(remote);
                    // Here, so that the directory follows the sessions in their order, whoever still waits for the answer.
                    if let Some(card) = self.shared.directory.restarted(key, ours.ufrag.clone(), remote_ufrag) {
                        let _ = done.send((ours, card));
                    }
                }
            }
            Command::Datagram(path, datagram) => self.datagram(path, &datagram, Instant::now()),
        }
    }

    fn turn(&mut self, news: News) {
        for _ in 0..BATCHES_PER_TURN {
            if !self.receive() {
                break;
            }
        }
        let now = Instant::now();
        if news.media || self.lanes.deadline().is_some_and(|at| at <= patchbay_bus::now()) {
            self.fan_out(now);
            // Key frame requests arrive by the same signal.
            self.due.extend(self.sessions.iter().filter_map(|(key, s)| s.wants_key().then_some(*key)));
        }
        if news.feeds {
            self.due.extend(self.sessions.iter_mut().filter_map(|(key, s)| s.feed_changed().then_some(*key)));
        }
        if now >= self.check_at {
            self.check_at = now + CHECK_EVERY;
            for session in self.sessions.values_mut() {
                session.check(self.shared.patience, now);
            }
            self.due.extend(self.sessions.keys());
            count_dropped("send", std::mem::take(&mut self.out.dropped));
            count_dropped("tcp", std::mem::take(&mut self.out.crowded));
        }
        self.due.extend(self.sessions.iter().filter(|(_, s)| s.deadline() <= now).map(|(key, _)| *key));
        self.run_due(now);
        self.out.flush(&self.socket);
    }

    /// Reads one batch and works on it.
    fn receive(&mut self) -> bool {
        let Some(mut inbox) = self.inbox.take() else { return false };
        let any = self.socket.receive(&mut inbox);
        let now = Instant::now();
        for (path, datagram) in inbox.datagrams(self.socket.local_ip()) {
            self.datagram(path, datagram, now);
        }
        self.inbox = Some(inbox);
        any
    }

    /// A datagram, received here or passed on by another worker.
    fn datagram(&mut self, path: Path, datagram: &[u8], now: Instant) {
        match route(&mut self.routes, &self.shared, self.index, path, datagram) {
            // str0m's outputs are drained after every input, so its events are not queued without end.
            Some(Route::Mine(key)) => self.with(key, now, |session, around| session.receive(Way::Udp(path), datagram, around)),
            Some(Route::Other(worker)) => {
                let command = Command::Datagram(path, datagram.to_vec());
                if self.shared.mailboxes[worker].try_send(command).is_err() {
                    count_dropped("mailbox", 1);
                }
            }
            None => match self.stun.as_mut().and_then(|stun| stun.answer(path.remote, datagram, now)) {
                Some(answer) => self.out.push(&self.socket, path, &answer),
                None => count_dropped("unknown", 1),
            },
        }
    }

    /// What TCP connections have brought, as much as a turn has time for.
    fn arrivals(&mut self, first: Option<Arrival>, waiting: &mut mpsc::Receiver<Arrival>) {
        let (mut next, mut taken) = (first, 0);
        while taken < ARRIVED_PER_TURN {
            let Some(arrival) = next.take().or_else(|| waiting.try_recv().ok()) else { break };
            taken += self.arrival(arrival, Instant::now());
        }
    }

    /// What a TCP connection has brought. Returns how much that was.
    fn arrival(&mut self, Arrival { key, connection, payload }: Arrival, now: Instant) -> usize {
        let mut taken = 0;
        match payload {
            Payload::Frames(frames) => {
                for datagram in framing::datagrams(&frames) {
                    self.with(key, now, |session, around| session.receive(Way::Tcp(&connection), datagram, around));
                    taken += 1;
                }
            }
            Payload::End => {
                self.with(key, now, |session, around| session.lost(&connection, around));
                taken += 1;
            }
        }
        if !self.sessions.contains_key(&key) {
            connection.close();
        }
        taken
    }

    /// Gives what the bus has to the viewers.
    fn fan_out(&mut self, now: Instant) {
        for batch in self.lanes.poll() {
            for key in batch.viewers {
                let Some((viewer, peer)) = self.sessions.get_mut(&key).and_then(Session::viewer) else { continue };
                viewer.deliver(&mut peer.rtc, &mut self.lanes, batch.track, &batch.frames, now);
                if batch.ended {
                    viewer.lane_ended(&mut peer.rtc, &mut self.lanes, batch.track, now);
                }
                // At once, viewer by viewer: the frame's packets are in the cache, and leave as one message.
                self.run_one(key, now);
            }
        }
    }

    fn run_due(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        due.sort_unstable();
        due.dedup();
        for key in due.drain(..) {
            self.run_one(key, now);
        }
        self.due = due;
    }

    fn run_one(&mut self, key: SessionKey, now: Instant) {
        self.with(key, now, Session::run);
    }

    /// Lets a session work; ends it when it says so, or when it panics: a fault that one peer's input finds in the
    /// stack below must not end the others.
    fn with(&mut self, key: SessionKey, now: Instant, work: impl FnOnce(&mut Session, &mut Surroundings<'_>) -> Option<Cause>) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        let mut learned = Vec::new();
        let mut around = Surroundings { socket: &self.socket, out: &mut self.out, lanes: &mut self.lanes, learned: &mut learned, now };
        let over = catch_unwind(AssertUnwindSafe(|| work(session, &mut around)))
            .unwrap_or_else(|_| Some(Cause::here("internal").with("a fault in the WebRTC stack; the log has its place")));
        for address in learned {
            self.routes.insert(address, Route::Mine(key));
        }
        if let Some(cause) = over {
            self.end(key, cause);
        }
    }

    fn end(&mut self, key: SessionKey, cause: Cause) {
        let Some(session) = self.sessions.remove(&key) else { return };
        self.shared.directory.remove(key);
        self.routes.retain(|_, route| !matches!(route, Route::Mine(owner) if *owner == key));
        let mut learned = Vec::new();
        let mut around =
            Surroundings { socket: &self.socket, out: &mut self.out, lanes: &mut self.lanes, learned: &mut learned, now: Instant::now() };
        // As in `with`; what is dropped half-way gives itself back.
        let _ = catch_unwind(AssertUnwindSafe(|| session.end(cause, &mut around)));
    }

    fn end_all(&mut self) {
        let keys: Vec<_> = self.sessions.keys().copied().collect();
        for key in keys {
            self.end(key, Cause::here("draining"));
        }
        self.out.flush(&self.socket);
    }
}

/// Whose a datagram is: by address once that has proved itself, by ufrag for ICE checks.
fn route(routes: &mut HashMap<SocketAddr, Route>, shared: &Shared, index: usize, path: Path, datagram: &[u8]) -> Option<Route> {
    if !stun::is_stun(datagram) {
        return routes.get(&path.remote).copied();
    }
    let (worker, key) = shared.directory.by_ufrag(stun::local_ufrag(datagram)?)?;
    if worker == index {
        return Some(Route::Mine(key));
    }
    // The owner believes nothing that follows from this address until the check is valid; here it is only the way.
    if routes.len() >= ROUTES_MAX {
        routes.retain(|_, route| matches!(route, Route::Mine(_)));
    }
    routes.insert(path.remote, Route::Other(worker));
    Some(Route::Other(worker))
}

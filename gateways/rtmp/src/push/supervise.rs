//! The life of a push: wait for the stream, connect, send, and come back after failures with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use patchbay_bus::{Feed, Signal};
use patchbay_contract::{Caller, Cause, Hub, PlayRequest};
use patchbay_rules::EndpointKind;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::sender::{Health, Sender, Source};
use crate::accept;
use crate::fanout::lonely_and_young;
use crate::outgoing::{Board, Failure, Next, Pauses, State, after, rest};
use crate::proto::fourcc::FourCcs;

/// How long a stream that has just begun may take to show its second track.
const SETTLE: Duration = Duration::from_millis(400);
/// How long the server may take to read the farewell.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a leg ends whose server takes other codecs than were known when it was asked for.
const CODECS_LEARNT: &str = "codecs_learnt";

/// What is known of the server: the next leg is asked for with it.
#[derive(Default)]
struct Known {
    takes: FourCcs,
    /// Connected, for a leg that is still to be asked for.
    sender: Option<Sender>,
    next: Next,
}

impl Known {
    /// The connection, if the leg was asked for with what its server takes; else it is kept for the next leg.
    fn check(&mut self, sender: Sender) -> Option<Sender> {
        if *sender.announced() == self.takes {
            return Some(sender);
        }
        self.takes = sender.announced().clone();
        self.sender = Some(sender);
        None
    }

    /// Lets go of what is connected and not needed soon: a server is not to hold a connection that sends nothing.
    fn hang_up(&mut self) {
        (self.sender, self.next.dialled) = (None, None);
    }
}

pub(super) async fn run(hub: Arc<dyn Hub>, kind: EndpointKind, board: Board, stop: CancellationToken) {
    let mut pauses = Pauses::new(board.to.pauses.clone());
    let mut known = Known::default();
    // Every wait below ends with `stop`, so that a live push can say goodbye first.
    while !stop.is_cancelled() {
        one_leg(&hub, kind, &board, &stop, &mut pauses, &mut known).await;
    }
}

/// Holds one leg for as long as it lasts.
async fn one_leg(hub: &Arc<dyn Hub>, kind: EndpointKind, board: &Board, stop: &CancellationToken, pauses: &mut Pauses, known: &mut Known) {
    let caller = Caller { protocol: "push", agent: Some(board.to.primary.to_string()), operator: true, ..Caller::default() };
    let request = PlayRequest { stream: board.stream.clone(), sink: accept::sink(kind, &known.takes), caller, wait: true };
    let leg = match hub.play(request).await {
        Ok(leg) => leg,
        Err(refusal) => {
            board.set(State::Backoff, refusal);
            known.hang_up();
            return rest(stop, pauses.next()).await;
        }
    };
    let cancelled = leg.cancelled().clone();
    let source = Source { feed: leg.feed().clone(), counters: leg.counters().clone() };
    let cause = tokio::select! {
        () = cancelled.cancelled() => {
            board.set(State::Backoff, "the session was ended here");
            Cause::here("kicked")
        }
        cause = push_while_live(&source, board, stop, pauses, known) => cause,
    };
    let kicked = cause.code == "kicked";
    leg.end(cause);
    if kicked {
        known.hang_up();
        rest(stop, pauses.next()).await;
    }
}

/// Connects as often as it takes, until the stream ends.
async fn push_while_live(source: &Source, board: &Board, stop: &CancellationToken, pauses: &mut Pauses, known: &mut Known) -> Cause {
    loop {
        if stop.is_cancelled() {
            return Cause::here("stopped");
        }
        if let Some(reason) = source.feed.get().ended {
            return Cause::here(reason.code());
        }
        if !is_live(&source.feed) {
            board.set(State::Waiting, "");
            known.hang_up();
            known.next.announced = None;
            board.head_for(None);
            tokio::select! {
                () = stop.cancelled() => {}
                () = wait_live(&source.feed) => {}
            }
            continue;
        }
        board.connecting();
        let failure = match connect_and_send(source, board, stop, known).await {
            Ok(reason) => {
                if reason != CODECS_LEARNT {
                    pauses.reset();
                    board.edit(|status| status.failures = 0);
                }
                return Cause::here(reason);
            }
            Err(failure) => failure,
        };
        known.next = after(failure, board, pauses, stop).await;
    }
}

async fn connect_and_send(source: &Source, board: &Board, stop: &CancellationToken, known: &mut Known) -> Result<&'static str, Failure> {
    let on_backup = board.read().on_backup;
    let sender = match known.sender.take() {
        Some(sender) => sender,
        None => {
            let target = board.head_for(known.next.announced.take());
            tokio::select! {
                () = stop.cancelled() => return Ok("stopped"),
                sender = Sender::connect(&board.to, &target, known.next.dialled.take()) => sender?,
            }
        }
    };
    let Some(mut sender) = known.check(sender) else { return Ok(CODECS_LEARNT) };
    board.connected();
    if on_backup {
        let back = tokio::select! {
            () = stop.cancelled() => None,
            result = send(&mut sender, source, board) => return goodbye(sender, result).await,
            primary = primary_again(board) => Some(primary),
        };
        let Some(primary) = back else { return goodbye(sender, Ok("stopped")).await };
        _ = goodbye(sender, Ok("back")).await;
        board.edit(|status| (status.on_backup, status.announced) = (false, None));
        let Some(primary) = known.check(primary) else { return Ok(CODECS_LEARNT) };
        sender = primary;
        board.connected();
    }
    let result = tokio::select! {
        () = stop.cancelled() => Ok("stopped"),
        result = send(&mut sender, source, board) => result,
    };
    goodbye(sender, result).await
}

async fn send(sender: &mut Sender, source: &Source, board: &Board) -> Result<&'static str, Failure> {
    let tell = |health| match health {
        Health::Good => board.set(State::Live, ""),
        Health::Slow => board.set(State::Degraded, "the server takes data slowly"),
        Health::Losing => board.set(State::Degraded, "frames were left out because the server took data too slowly"),
        Health::Sourceless => board.set(State::Degraded, "the source is away; the connection is kept"),
    };
    sender.send(source, &tell, &|advice| board.advise(advice)).await
}

async fn goodbye(sender: Sender, result: Result<&'static str, Failure>) -> Result<&'static str, Failure> {
    if result.is_ok() {
        _ = tokio::time::timeout(GOODBYE, sender.finish()).await;
    }
    result
}

/// A connection to the primary, once the backup has served for a while and the primary takes it. The backup serves until then.
async fn primary_again(board: &Board) -> Sender {
    let to = &board.to;
    loop {
        let at = board.read().back_at.unwrap_or_else(Instant::now);
        sleep_until(at).await;
        if let Ok(sender) = Sender::connect(to, &to.primary, None).await {
            return sender;
        }
        board.edit(|status| status.back_at = Some(Instant::now() + to.backup_hold));
    }
}

fn is_live(feed: &Feed) -> bool {
    let value = feed.get();
    value.video.is_some() || value.audio.is_some()
}

/// Until there is a track, and a little longer for the second.
async fn wait_live(feed: &Arc<Feed>) {
    let signal = Arc::new(Signal::new());
    let mut reader = feed.watch(signal.clone());
    let mut settled = None;
    loop {
        if let Some(value) = reader.changed() {
            if value.ended.is_some() || value.video.is_some() && value.audio.is_some() {
                return;
            }
            let one = value.video.is_some() || value.audio.is_some();
            if one && !lonely_and_young(&value) {
                return;
            }
            if one {
                settled.get_or_insert_with(|| Instant::now() + SETTLE);
            }
        }
        tokio::select! {
            () = signal.wait() => {}
            () = sleep_until(settled.unwrap_or_else(Instant::now)), if settled.is_some() => return,
        }
    }
}

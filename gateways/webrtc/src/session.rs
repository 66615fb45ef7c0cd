//! [`Session`]: a peer in its role, from answer to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use patchbay_bus::{EndReason, Signal};
use patchbay_contract::{Cause, Counters, Leg, Publication, SessionId};
use str0m::bwe::BweKind;
use str0m::{Event, IceCreds};

use crate::clock::WallClock;
use crate::directory::{Admission, SessionKey};
use crate::ingest::Ingest;
use crate::lane::Lanes;
use crate::peer::{Outcome, Peer, Way};
use crate::socket::{Outbox, Socket};
use crate::tcp::Connection;
use crate::viewer::Viewer;

/// What signalling hands to a worker.
pub(crate) struct Opening {
    pub(crate) key: SessionKey,
    pub(crate) peer: Peer,
    pub(crate) grant: Grant,
    pub(crate) admission: Admission,
}

/// What the hub granted.
pub(crate) enum Grant {
    Publish(Publication),
    Play(Leg),
}

impl Grant {
    /// Gives it back.
    pub(crate) fn end(self, cause: Cause) {
        match self {
            Self::Publish(publication) => publication.end(EndReason::Stopped, cause),
            Self::Play(leg) => leg.end(cause),
        }
    }

    /// Number of the session in the ledger.
    pub(crate) fn number(&self) -> SessionId {
        match self {
            Self::Publish(publication) => publication.id(),
            Self::Play(leg) => leg.id(),
        }
    }
}

enum Role {
    Publish(Box<Ingest>),
    Play(Box<Viewer>),
}

/// What a session needs of its worker.
pub(crate) struct Surroundings<'a> {
    pub(crate) socket: &'a Socket,
    pub(crate) out: &'a mut Outbox,
    pub(crate) lanes: &'a mut Lanes,
    /// Addresses that proved themselves; the worker maps them to the session.
    pub(crate) learned: &'a mut Vec<SocketAddr>,
    pub(crate) now: Instant,
}

/// Time limits of all sessions.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
}

/// Signals and limits a session is opened with.
pub(crate) struct Wiring {
    pub(crate) media: Arc<Signal>,
    pub(crate) feeds: Arc<Signal>,
    pub(crate) clock: WallClock,
    pub(crate) remb_bps: u64,
}

/// One session; lives and dies on one worker.
pub(crate) struct Session {
    peer: Peer,
    role: Role,
    opened: Instant,
    admission: Admission,
    connected: bool,
    /// When the viewer's pacing wants to go on.
    pump_at: Option<Instant>,
    over: Option<Cause>,
}

impl Session {
    pub(crate) fn new(opening: Opening, wiring: &Wiring, now: Instant) -> Self {
        let role = match opening.grant {
            Grant::Publish(publication) => Role::Publish(Box::new(Ingest::new(publication, wiring.media.clone(), wiring.remb_bps))),
            Grant::Play(leg) => Role::Play(Box::new(Viewer::new(opening.key, leg, wiring.feeds.clone(), wiring.clock, now))),
        };
        Self { peer: opening.peer, role, opened: now, admission: opening.admission, connected: false, pump_at: None, over: None }
    }

    /// The viewer with the peer it sends through, if this is one.
    pub(crate) fn viewer(&mut self) -> Option<(&mut Viewer, &mut Peer)> {
        match &mut self.role {
            Role::Play(viewer) => Some((viewer, &mut self.peer)),
            Role::Publish(_) => None,
        }
    }

    fn counters(&self) -> &Counters {
        match &self.role {
            Role::Publish(ingest) => ingest.counters(),
            Role::Play(viewer) => viewer.leg.counters(),
        }
    }

    /// When it wants to be called again.
    pub(crate) fn deadline(&self) -> Instant {
        self.pump_at.map_or(self.peer.deadline, |at| at.min(self.peer.deadline))
    }

    /// The session is over for this reason; the first one stands.
    pub(crate) fn finish(&mut self, cause: Cause) {
        self.over.get_or_insert(cause);
    }

    /// The feed of a viewer may have changed.
    pub(crate) fn feed_changed(&mut self) -> bool {
        match &mut self.role {
            Role::Play(viewer) => {
                viewer.follow_due = true;
                true
            }
            Role::Publish(_) => false,
        }
    }

    /// Whether a publisher has to be asked for a key frame.
    pub(crate) fn wants_key(&self) -> bool {
        matches!(&self.role, Role::Publish(ingest) if ingest.wants_key())
    }

    /// ICE begins again; see [`Peer::restart`].
    pub(crate) fn restart(&mut self, remote: IceCreds) -> IceCreds {
        self.peer.restart(remote)
    }

    /// Takes a datagram. Returns the cause once the session is over.
    pub(crate) fn receive(&mut self, way: Way<'_>, datagram: &[u8], around: &mut Surroundings<'_>) -> Option<Cause> {
        let done = self.peer.receive(around.now, way, datagram).and_then(|()| self.drain(around));
        self.judge(done)
    }

    /// A TCP connection has ended. Returns the cause once the session is over.
    pub(crate) fn lost(&mut self, connection: &Arc<Connection>, around: &mut Surroundings<'_>) -> Option<Cause> {
        self.peer.lost(connection);
        self.run(around)
    }

    /// Does all there is to do now, and sends it. Returns the cause once the session is over.
    pub(crate) fn run(&mut self, around: &mut Surroundings<'_>) -> Option<Cause> {
        let done = self.turn(around);
        self.judge(done)
    }

    fn judge(&mut self, done: Result<(), str0m::RtcError>) -> Option<Cause> {
        if let Err(e) = done {
            self.finish(Cause::here("protocol_error").with(e));
        }
        self.over.clone()
    }

    fn turn(&mut self, around: &mut Surroundings<'_>) -> Result<(), str0m::RtcError> {
        let (now, room) = (around.now, self.peer.room());
        match &mut self.role {
            Role::Play(viewer) => {
                if let Some(reason) = viewer.follow(&mut self.peer.rtc, around.lanes, now) {
                    self.over.get_or_insert(Cause::here(reason.code()));
                }
                self.pump_at = viewer.pump(&mut self.peer.rtc, around.lanes, room, now);
            }
            Role::Publish(ingest) => ingest.feedback(&mut self.peer.rtc, now),
        }
        self.peer.tick(now)?;
        self.drain(around)
    }

    fn drain(&mut self, around: &mut Surroundings<'_>) -> Result<(), str0m::RtcError> {
        while let Some(outcome) = self.peer.poll(around.now, around.socket, around.out)? {
            match outcome {
                Outcome::Learned(address) => around.learned.push(address),
                Outcome::Transport(transport) => self.counters().set_transport(transport),
                Outcome::Event(event) => self.event(event, around),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event, around: &mut Surroundings<'_>) {
        match (event, &mut self.role) {
            (Event::Connected, role) => {
                self.connected = true;
                self.admission.connected();
                if let Role::Play(viewer) = role {
                    viewer.connected(self.peer.handshake_round_trip());
                    // The next turn follows the feed.
                    self.pump_at = Some(around.now);
                }
            }
            (Event::MediaAdded(media), Role::Play(viewer)) => {
                viewer.add_media(&media, &mut self.peer.rtc);
                self.peer.prepare_rtx(media.mid);
            }
            (Event::MediaAdded(media), Role::Publish(ingest)) => ingest.add_media(&media),
            (Event::MediaData(data), Role::Publish(ingest)) => ingest.media(&data),
            (Event::EgressBitrateEstimate(BweKind::Twcc { estimate, can_probe }), Role::Play(viewer)) => {
                viewer.estimated(can_probe.then(|| estimate.as_u64()));
            }
            (Event::KeyframeRequest(request), Role::Play(viewer)) => viewer.keyframe_requested(request.mid, around.lanes),
            (Event::MediaEgressStats(stats), Role::Play(viewer)) => {
                if let Some(rtt) = stats.rtt {
                    viewer.round_trip(stats.mid, rtt);
                }
                let counters = viewer.leg.counters();
                if let Some(remote) = stats.remote {
                    counters.lost.fetch_max(lost(remote.packets_lost), Ordering::Relaxed);
                }
                counters.retransmitted.store(self.peer.resent + self.peer.repeats.repeated, Ordering::Relaxed);
            }
            (Event::PeerStats(stats), Role::Play(viewer)) => {
                viewer.link(stats.rtt, stats.egress_loss_fraction, &mut self.peer.repeats, around.now);
            }
            (Event::MediaIngressStats(stats), Role::Publish(_)) => {
                if let Some(lost) = stats.loss {
                    self.peer.repeats.mirror(lost);
                }
            }
            (Event::PeerStats(stats), Role::Publish(ingest)) => {
                if let Some(rtt) = stats.rtt {
                    ingest.counters().rtt_us.store(rtt.as_micros() as u64, Ordering::Relaxed);
                }
            }
            (Event::Closed, _) => self.finish(Cause::peer("closed")),
            _ => {}
        }
    }

    /// Notices what nobody signals: silence, and the hub's wish to end.
    pub(crate) fn check(&mut self, patience: Patience, now: Instant) {
        let cancelled = match &self.role {
            Role::Publish(ingest) => ingest.is_cancelled(),
            Role::Play(viewer) => viewer.leg.cancelled().is_cancelled(),
        };
        if cancelled {
            self.finish(Cause::here("stopped"));
        } else if self.admission.is_lost() {
            self.finish(Cause::here("never_connected").with("made room for others: webrtc.half_open_max is reached"));
        } else if !self.connected && now.saturating_duration_since(self.opened) > patience.connect {
            self.finish(
                Cause::peer("never_connected").with(format!("no DTLS session within {} s of the answer", patience.connect.as_secs())),
            );
        } else if self.connected && now.saturating_duration_since(self.peer.checked_at) > patience.idle {
            self.finish(Cause::peer("timeout").with(format!("no ICE check for {} s", patience.idle.as_secs())));
        }
    }

    /// Says goodbye on the wire and gives everything back.
    pub(crate) fn end(mut self, cause: Cause, around: &mut Surroundings<'_>) {
        // A peer that is gone already cannot be told.
        let _ = self.peer.rtc.close().and_then(|()| self.drain(around));
        match self.role {
            Role::Publish(ingest) => {
                let reason = match cause.code {
                    "closed" | "deleted" => EndReason::Finished,
                    "stopped" | "draining" => EndReason::Stopped,
                    _ => EndReason::Lost,
                };
                ingest.end(reason, cause);
            }
            Role::Play(mut viewer) => {
                viewer.leave(around.lanes);
                viewer.leg.end(cause);
            }
        }
    }
}

/// The cumulative number of packets lost of a report. It has a sign (RFC 3550 §6.4.1), which str0m reads as its highest bit:
/// where more came than were sent, nothing was lost.
fn lost(reported: u64) -> u64 {
    if reported < 1 << 23 { reported } else { 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn more_packets_than_were_sent_are_no_loss() {
        assert_eq!([0, 7, 0x7f_ffff, 0x80_0000, 0xff_ffff].map(super::lost), [0, 7, 0x7f_ffff, 0, 0]);
    }
}

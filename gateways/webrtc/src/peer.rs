//! [`Peer`]: one str0m instance with the addresses it has proved. The only file that drives str0m's inputs and
//! outputs.
//!
//! DTLS and SRTP are accepted from an address only after a check with our password came from there: str0m answers
//! such a check, and the answer's destination is what is learned.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use patchbay_contract::{Code, Refusal, Transport};
use patchbay_media::Codec;
use smallvec::SmallVec;
use str0m::bwe::Bitrate;
use str0m::change::SdpOffer;
use str0m::net::{DatagramRecv, Protocol, Receive, Transmit};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, CandidateKind, Event, IceCreds, Input, Output, Rtc, RtcError};

use crate::identity::{Identity, credentials, crypto, seen_as};
use crate::pace::START_BPS;
use crate::repeat::Repeats;
use crate::sdp::{Offer, Role};
use crate::socket::{Outbox, Path, Socket};
use crate::stun;
use crate::tcp::{Connection, Links};

/// Addresses of a session that are kept for the way back; the oldest makes room.
const PATHS_MAX: usize = 8;
/// Addresses a session may check from in its life. Beyond any roaming; each costs the ICE agent memory.
const PATHS_SEEN_MAX: u32 = 64;
/// Further addresses that an ICE restart allows.
const PATHS_PER_RESTART: u32 = 8;
/// How often senders and receivers report. A browser brings sound and picture together only once it has two reports of
/// each, so this decides how soon lips are in sync.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// str0m's pacer lets one packet go per tick and asks for the next one a microsecond later, so that stamps differ.
const TICK: Duration = Duration::from_micros(1);
/// What is due this soon is done at once: the runtime's timers are a millisecond late at worst, and a probe whose bursts of
/// every two milliseconds come late measures the timer.
const EARLY: Duration = Duration::from_millis(1);
/// Ticks between two looks at the clock.
const TICKS_MAX: u32 = 512;
/// How often round trips and losses are looked at.
const STATS_EVERY: Duration = Duration::from_millis(250);
/// How long sent video packets can be repeated.
const RTX_AGE: Duration = Duration::from_secs(1);

/// Which way a datagram came.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    Udp(Path),
    Tcp(&'a Arc<Connection>),
}

/// One WebRTC peer.
pub(crate) struct Peer {
    pub(crate) rtc: Rtc,
    identity: Arc<Identity>,
    /// When str0m wants to be called again.
    pub(crate) deadline: Instant,
    paths: SmallVec<[Path; 2]>,
    links: Links,
    paths_seen: u32,
    /// Which way media went last.
    sends: Option<(Protocol, SocketAddr)>,
    /// The time str0m was told last, and how often without the clock since.
    told: Instant,
    ticks: u32,
    /// Last valid ICE check.
    pub(crate) checked_at: Instant,
    /// Payload types of retransmissions we send.
    rtx: SmallVec<[u8; 4]>,
    /// Retransmissions sent.
    pub(crate) resent: u64,
    pub(crate) repeats: Repeats,
    role: Role,
    handshake: Handshake,
}

/// What came out of str0m.
#[allow(clippy::large_enum_variant, reason = "consumed where it is returned; a box would be an allocation per event")]
pub(crate) enum Outcome {
    /// An event for the session.
    Event(Event),
    /// A new UDP address has proved itself.
    Learned(SocketAddr),
    /// Media goes over this now.
    Transport(Transport),
}

impl Peer {
    /// Answers an offer.
    ///
    /// # Errors
    /// `bad_request` with str0m's words for an offer it cannot answer.
    pub(crate) fn answer(identity: &Arc<Identity>, offer: &Offer, role: Role, now: Instant) -> Result<(Self, String, String), Refusal> {
        let creds = credentials();
        let ufrag = creds.ufrag.clone();
        let mut config = Rtc::builder()
            .set_crypto_provider(crypto().clone())
            .set_dtls_cert(identity.certificate.clone())
            .set_local_ice_credentials(creds)
            .set_ice_lite(true)
            .clear_codecs()
            .enable_opus(true, false)
            .set_extension_map(extensions(role))
            .set_rtcp_report_interval_video(REPORT_EVERY)
            .set_rtcp_report_interval_audio(REPORT_EVERY)
            .set_reordering_timeout_audio(Some(Duration::from_millis(120)))
            .set_stats_interval(Some(STATS_EVERY))
            .set_rtp_mode(role == Role::Play)
            .enable_bwe((role == Role::Play).then_some(Bitrate::bps(START_BPS)));
        for (pt, rtx, profile) in H264_FORMATS {
            config.codec_config().add_h264((*pt).into(), Some((*rtx).into()), true, *profile);
        }
        config.codec_config().enable_vp8(offer.instead.contains(&Codec::Vp8));
        config.codec_config().enable_vp9(offer.instead.contains(&Codec::Vp9));
        config.codec_config().enable_av1(offer.instead.contains(&Codec::Av1));
        let mut rtc = config.build(now);
        for candidate in identity.local_candidates()? {
            rtc.add_local_candidate(candidate);
        }
        let refuse = |e: &dyn std::fmt::Display| Refusal::new(Code::BadRequest, format!("the offer cannot be answered: {}", words(e)));
        let sdp = SdpOffer::from_sdp_string(&offer.text).map_err(|e| refuse(&e))?;
        let answer = rtc.sdp_api().accept_offer(sdp).map_err(|e| refuse(&e))?;
        let peer = Self {
            rtc,
            identity: identity.clone(),
            deadline: now,
            told: now,
            ticks: 0,
            paths: SmallVec::new(),
            links: Links::default(),
            paths_seen: 0,
            sends: None,
            checked_at: now,
            rtx: SmallVec::new(),
            resent: 0,
            repeats: Repeats::new(now),
            role,
            handshake: Handshake::default(),
        };
        Ok((peer, crate::answer::as_one_stream(answer.to_sdp_string()), ufrag))
    }

    /// Takes a datagram from the network. Poll until there is nothing, before the next one.
    pub(crate) fn receive(&mut self, now: Instant, way: Way<'_>, datagram: &[u8]) -> Result<(), RtcError> {
        let is_check = stun::is_stun(datagram);
        let (proto, source, destination, welcome) = match way {
            Way::Udp(path) => {
                let destination = seen_as(&self.identity.candidates, path.local);
                (Protocol::Udp, path.remote, destination, !is_check || self.remember(path))
            }
            Way::Tcp(connection) => {
                let destination = seen_as(&self.identity.tcp_candidates, connection.local.ip());
                (Protocol::Tcp, connection.remote, destination, self.links.admit(connection, is_check && self.paths_seen < PATHS_SEEN_MAX))
            }
        };
        let Some(destination) = destination.filter(|_| welcome) else { return Ok(()) };
        self.handshake.received(datagram, now);
        let Ok(contents) = DatagramRecv::try_from(datagram) else { return Ok(()) };
        (self.told, self.ticks) = (self.told.max(now), 0);
        self.rtc.handle_input(Input::Receive(now, Receive { proto, source, destination, contents }))
    }

    /// Remembers the answer's way back; it is proved only once str0m answers. `false` when there were too many.
    fn remember(&mut self, path: Path) -> bool {
        if self.paths.contains(&path) {
            return true;
        }
        if self.paths_seen >= PATHS_SEEN_MAX {
            return false;
        }
        self.paths_seen += 1;
        if self.paths.len() == PATHS_MAX {
            self.paths.remove(0);
        }
        self.paths.push(path);
        true
    }

    /// A connection has ended: what was nominated with it is so no longer.
    pub(crate) fn lost(&mut self, connection: &Arc<Connection>) {
        if self.links.remove(connection) {
            self.forget(connection.remote);
        }
    }

    fn forget(&mut self, remote: SocketAddr) {
        let (proto, kind) = (Protocol::Tcp, CandidateKind::PeerReflexive);
        let candidate = Candidate::from_parts("0".into(), 1, proto, 1, remote, kind, None, None, None);
        self.rtc.direct_api().invalidate_candidate(&candidate);
    }

    /// str0m has answered a check that came over TCP from `remote`.
    fn adopt(&mut self, remote: SocketAddr) {
        if !self.links.adopt(remote) {
            return;
        }
        self.paths_seen += 1;
        let used = self.sends.filter(|(proto, _)| *proto == Protocol::Tcp).map(|(_, remote)| remote);
        if let Some(evicted) = self.links.evict(used) {
            self.forget(evicted);
        }
    }

    /// Bytes of media that the way to the peer has room for.
    pub(crate) fn room(&self) -> usize {
        match self.sends {
            Some((Protocol::Tcp, remote)) => self.links.to(remote).map_or(0, Connection::room),
            _ => usize::MAX,
        }
    }

    /// Takes new credentials of the peer and returns ours. What has been proved stays: media goes on while the new checks
    /// come in (RFC 8445 §9).
    pub(crate) fn restart(&mut self, remote: IceCreds) -> IceCreds {
        let ours = credentials();
        let mut api = self.rtc.direct_api();
        api.set_local_ice_credentials(ours.clone());
        api.set_remote_ice_credentials(remote);
        // A restart is for another path, but the agent keeps what it has seen.
        self.paths_seen = self.paths_seen.saturating_sub(PATHS_PER_RESTART);
        ours
    }

    /// Moves time on.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), RtcError> {
        (self.told, self.ticks) = (self.told.max(now), 0);
        self.rtc.handle_input(Input::Timeout(self.told))
    }

    /// The next outcome; what is to be sent goes to `out` on the way.
    pub(crate) fn poll(&mut self, now: Instant, socket: &Socket, out: &mut Outbox) -> Result<Option<Outcome>, RtcError> {
        self.repeats.due(now + EARLY, |path, datagram| out.push(socket, path, datagram));
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) if at <= (now + EARLY).max(self.told + TICK) && self.ticks < TICKS_MAX => {
                    // Not in the worker's next turn: the packets of a frame leave as one message.
                    self.told = at.max(self.told + TICK);
                    self.ticks += 1;
                    self.rtc.handle_input(Input::Timeout(self.told))?;
                }
                Output::Timeout(at) => {
                    let at = self.repeats.next().map_or(at, |repeat| repeat.min(at));
                    self.deadline = at.checked_sub(EARLY).unwrap_or(at);
                    self.links.flush();
                    return Ok(None);
                }
                Output::Event(event) => return Ok(Some(Outcome::Event(event))),
                Output::Transmit(transmit) => {
                    if let Some(outcome) = self.transmit(&transmit, now, socket, out) {
                        return Ok(Some(outcome));
                    }
                }
            }
        }
    }

    fn transmit(&mut self, transmit: &Transmit, now: Instant, socket: &Socket, out: &mut Outbox) -> Option<Outcome> {
        let Transmit { proto, destination, ref contents, .. } = *transmit;
        let is_check = stun::is_stun(contents);
        if is_check {
            self.checked_at = now;
        }
        self.handshake.sent(contents, now);
        let media = rtp_payload_type(contents);
        self.resent += u64::from(media.is_some_and(|payload_type| self.rtx.contains(&payload_type)));
        if proto == Protocol::Udp {
            let path = self.path(transmit.source, destination);
            out.push(socket, path, contents);
            // A publisher is asked for what was lost, in no more than a request: the request itself must not be lost.
            if media.is_some() || self.role == Role::Publish && is_rtcp(contents) {
                self.repeats.sent(path, contents, now);
            }
        } else {
            if is_check {
                self.adopt(destination);
            }
            let taken = self.links.to(destination).is_some_and(|link| link.push(contents));
            out.crowded += u64::from(!taken);
        }
        if is_check {
            return (proto == Protocol::Udp).then_some(Outcome::Learned(destination));
        }
        let before = self.sends.replace((proto, destination));
        let transport = if proto == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        before.is_none_or(|(before, _)| before != proto).then_some(Outcome::Transport(transport))
    }

    /// The round trip of the handshake: of the link while no media fills it. The peer's arithmetic is in it.
    pub(crate) fn handshake_round_trip(&self) -> Option<Duration> {
        self.handshake.longest
    }

    /// The real way to `destination`: the announced source is one of this machine's addresses, unless NAT is between.
    fn path(&self, source: SocketAddr, destination: SocketAddr) -> Path {
        let announced = Path { remote: destination, local: source.ip() };
        if self.paths.contains(&announced) {
            return announced;
        }
        self.paths.iter().rev().find(|p| p.remote == destination).copied().unwrap_or(announced)
    }

    /// Prepares retransmissions of a sending stream.
    pub(crate) fn prepare_rtx(&mut self, mid: str0m::media::Mid) {
        let remote = self.rtc.media(mid).map(str0m::media::Media::remote_pts).unwrap_or_default();
        let params = self.rtc.codec_config().params().iter().filter(|p| remote.contains(&p.pt()));
        self.rtx.extend(params.filter_map(|p| p.resend()).map(|pt| *pt));
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            stream.set_rtx_cache(1_024, RTX_AGE, Some(0.4));
        }
    }
}

/// Times the flights of DTLS. A repeated flight of the peer crosses ours and looks like an early answer, so the longest counts.
#[derive(Default)]
struct Handshake {
    sent_at: Option<Instant>,
    longest: Option<Duration>,
}

impl Handshake {
    fn sent(&mut self, datagram: &[u8], now: Instant) {
        if is_dtls(datagram) {
            self.sent_at = Some(now);
        }
    }

    fn received(&mut self, datagram: &[u8], now: Instant) {
        if is_dtls(datagram)
            && let Some(sent_at) = self.sent_at.take()
        {
            let took = now.saturating_duration_since(sent_at);
            self.longest = self.longest.max(Some(took));
        }
    }
}

fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20..=63))
}

/// RFC 5761 §4, RFC 7983 §7.
fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, 192..=223, ..])
}

/// The payload type of an RTP packet, which is in clear; `None` for anything else (RFC 5761 §4, RFC 7983 §7).
fn rtp_payload_type(datagram: &[u8]) -> Option<u8> {
    let &[128..=191, second, ..] = datagram else { return None };
    (!is_rtcp(datagram)).then_some(second & 0x7f)
}

/// str0m's words without the memory addresses its parser puts between them.
fn words(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("PointerOffset")).collect();
    if lines.is_empty() { "it does not parse".into() } else { lines.join("; ") }
}

/// Payload types here are only our names; an answer takes the offer's. High is offered by no browser and decoded by
/// all of them; native clients do offer it.
const H264_FORMATS: &[(u8, u8, u32)] =
    &[(102, 103, 0x42e01f), (104, 105, 0x42001f), (106, 107, 0x4d001f), (112, 113, 0x640c1f), (114, 115, 0x64001f)];

/// Header extensions. Either way the sender learns by transport-wide feedback what its link takes; without send times a
/// viewer sends no REMB, which says the same thing later and worse.
fn extensions(role: Role) -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(3, Extension::TransportSequenceNumber);
    map.set(4, Extension::RtpMid);
    if role == Role::Publish {
        map.set(1, Extension::AudioLevel);
        map.set(2, Extension::AbsoluteSendTime);
        map.set(5, Extension::RtpStreamId);
        map.set(6, Extension::RepairedRtpStreamId);
    }
    map
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::certificate;

    /// As Chromium sends it, shortened.
    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:Od6R\r\na=ice-pwd:sHJggS9mWaEGomoKx99/TWPe\r\n\
        a=fingerprint:sha-256 1F:FD:5A:33:9A:B2:A9:53:36:56:28:F5:83:34:DF:B2:17:02:F4:5C:70:E9:CA:2D:3A:BD:2B:C1:C8:B6:8E:F8\r\n\
        a=setup:actpass\r\na=mid:0\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendonly\r\na=msid:s t\r\na=rtcp-mux\r\n\
        a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=ssrc:31 cname:c\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=sendonly\r\na=rtcp-mux\r\na=rtpmap:102 H264/90000\r\n\
        a=rtcp-fb:102 nack pli\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f\r\n\
        a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\na=ssrc-group:FID 41 42\r\na=ssrc:41 cname:c\r\na=ssrc:42 cname:c\r\n";

    fn identity() -> Arc<Identity> {
        static IDENTITY: OnceLock<Arc<Identity>> = OnceLock::new();
        let make = || Identity {
            certificate: certificate().unwrap(),
            candidates: vec!["127.0.0.1:8000".parse().unwrap()],
            tcp_candidates: Vec::new(),
        };
        IDENTITY.get_or_init(|| Arc::new(make())).clone()
    }

    fn answer(text: &str) -> Result<Peer, Refusal> {
        let offer = Offer::read(text, Role::Publish)?;
        Peer::answer(&identity(), &offer, Role::Publish, Instant::now()).map(|(peer, ..)| peer)
    }

    #[test]
    fn the_unharmed_offer_is_answered() {
        assert_eq!(answer(OFFER).err(), None);
    }

    #[test]
    fn a_refusal_says_why_without_addresses_in_memory() {
        let refusal = answer(&OFFER.replace("SAVPF 111", "SAVPF 111 63")).err().unwrap();
        assert_eq!(refusal.message, "the offer cannot be answered: Missing a=rtp_map:63 for mid: 0");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_offer_is_answered_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..5, any::<u8>()), 1..8),
        ) {
            let mut lines: Vec<String> = OFFER.lines().map(str::to_owned).collect();
            for (at, other, what, byte) in damage {
                let (i, j) = (at.index(lines.len()), other.index(lines.len()));
                match what {
                    0 if lines.len() > 1 => drop(lines.remove(i)),
                    1 => lines.insert(i, lines[j].clone()),
                    2 => lines.swap(i, j),
                    3 => {
                        let len = other.index(lines[i].len() + 1);
                        lines[i].truncate(len);
                    }
                    _ => {
                        let k = other.index(lines[i].len() + 1);
                        lines[i].insert(k, char::from(byte & 0x7f));
                    }
                }
            }
            // Refused or answered; what must not happen is a panic.
            let _ = answer(&lines.join("\r\n"));
        }

        #[test]
        fn any_datagram_leaves_a_peer_alive(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..20)) {
            let Ok(mut peer) = answer(OFFER) else { panic!("the offer is good") };
            let path = Path { remote: "127.0.0.1:9".parse().unwrap(), local: "127.0.0.1".parse().unwrap() };
            for (n, mut datagram) in datagrams.into_iter().enumerate() {
                // Every class of RFC 7983 in turn.
                if let Some(first) = datagram.first_mut() {
                    *first = [0, 1, 22, 0x80, 0x81][n % 5];
                }
                // Only an error may come of it; the worker ends the session then.
                if peer.receive(Instant::now(), Way::Udp(path), &datagram).is_err() {
                    break;
                }
            }
        }
    }
}

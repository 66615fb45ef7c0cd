//! [`Peer`]: one str0m instance with the addresses it has proved. The only file that drives str0m's inputs and
//! outputs.
//!
//! DTLS and SRTP are accepted from an address only after a check with our password came from there: str0m answers
//! such a check, and the answer's destination is what is learned.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use patchbay_contract::{Code, Refusal};
use smallvec::SmallVec;
use str0m::change::SdpOffer;
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use str0m::net::{DatagramRecv, Protocol, Receive};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcError};

use crate::sdp::{Offer, Role};
use crate::socket::{Outbox, Path, Socket};
use crate::stun;

/// Most addresses one session may have proved.
const PATHS_MAX: usize = 8;
/// How long sent video packets can be repeated.
const RTX_AGE: Duration = Duration::from_secs(1);

fn crypto() -> &'static Arc<CryptoProvider> {
    static CRYPTO: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    CRYPTO.get_or_init(|| Arc::new(str0m::crypto::from_feature_flags()))
}

/// Makes the certificate of the process (ECDSA P-256).
pub(crate) fn certificate() -> Option<DtlsCert> {
    crypto().dtls_provider.generate_certificate()
}

/// What every peer is built with.
pub(crate) struct Identity {
    pub(crate) certificate: DtlsCert,
    /// What is announced, and what str0m takes as our addresses.
    pub(crate) candidates: Vec<SocketAddr>,
}

impl Identity {
    /// The address str0m shall believe a datagram to `local` was sent to: itself, or behind NAT what was announced.
    fn seen_as(&self, local: IpAddr) -> Option<SocketAddr> {
        let exact = self.candidates.iter().find(|c| c.ip() == local);
        exact.or_else(|| self.candidates.iter().find(|c| c.is_ipv4() == local.is_ipv4())).copied()
    }
}

/// One WebRTC peer.
pub(crate) struct Peer {
    pub(crate) rtc: Rtc,
    identity: Arc<Identity>,
    /// When str0m wants to be called again.
    pub(crate) deadline: Instant,
    paths: SmallVec<[Path; 2]>,
    /// Last valid ICE check.
    pub(crate) checked_at: Instant,
    /// Payload types of retransmissions we send.
    rtx: SmallVec<[u8; 4]>,
    /// Retransmissions sent.
    pub(crate) resent: u64,
}

/// What came out of str0m.
#[allow(clippy::large_enum_variant, reason = "consumed where it is returned; a box would be an allocation per event")]
pub(crate) enum Outcome {
    /// An event for the session.
    Event(Event),
    /// A new address has proved itself.
    Learned(SocketAddr),
}

impl Peer {
    /// Answers an offer.
    ///
    /// # Errors
    /// `bad_request` with str0m's words for an offer it cannot answer.
    pub(crate) fn answer(identity: &Arc<Identity>, offer: &Offer, role: Role, now: Instant) -> Result<(Self, String, String), Refusal> {
        // Longer than str0m's default: the fragment is what a stranger would have to guess.
        let creds = IceCreds { ufrag: format!("{:016x}", rand::random::<u64>()), pass: format!("{:032x}", rand::random::<u128>()) };
        let ufrag = creds.ufrag.clone();
        let mut config = Rtc::builder()
            .set_crypto_provider(crypto().clone())
            .set_dtls_cert(identity.certificate.clone())
            .set_local_ice_credentials(creds)
            .set_ice_lite(true)
            .clear_codecs()
            .enable_opus(true, false)
            .set_extension_map(extensions(role))
            .set_rtcp_report_interval_video(Duration::from_secs(1))
            .set_rtcp_report_interval_audio(Duration::from_secs(2))
            .set_reordering_timeout_audio(Some(Duration::from_millis(120)))
            .set_stats_interval(Some(Duration::from_secs(2)))
            .set_rtp_mode(role == Role::Play);
        for (pt, rtx, profile) in H264_FORMATS {
            config.codec_config().add_h264((*pt).into(), Some((*rtx).into()), true, *profile);
        }
        let mut rtc = config.build(now);
        for &address in &identity.candidates {
            let candidate = Candidate::host(address, "udp").map_err(|e| Refusal::new(Code::Internal, e.to_string()))?;
            rtc.add_local_candidate(candidate);
        }
        let refuse = |e: &dyn std::fmt::Display| Refusal::new(Code::BadRequest, format!("the offer cannot be answered: {e}"));
        let sdp = SdpOffer::from_sdp_string(&offer.text).map_err(|e| refuse(&e))?;
        let answer = rtc.sdp_api().accept_offer(sdp).map_err(|e| refuse(&e))?;
        let peer = Self {
            rtc,
            identity: identity.clone(),
            deadline: now,
            paths: SmallVec::new(),
            checked_at: now,
            rtx: SmallVec::new(),
            resent: 0,
        };
        Ok((peer, crate::answer::as_one_stream(answer.to_sdp_string()), ufrag))
    }

    /// Takes a datagram from the network.
    pub(crate) fn receive(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Result<(), RtcError> {
        let Some(destination) = self.identity.seen_as(path.local) else { return Ok(()) };
        if stun::is_stun(datagram) && !self.paths.contains(&path) && self.paths.len() < PATHS_MAX {
            // Remembered for the answer's way back; proved only once str0m answers.
            self.paths.push(path);
        }
        let Ok(contents) = DatagramRecv::try_from(datagram) else { return Ok(()) };
        let input = Receive { proto: Protocol::Udp, source: path.remote, destination, contents };
        self.rtc.handle_input(Input::Receive(now, input))
    }

    /// Moves time on.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), RtcError> {
        self.rtc.handle_input(Input::Timeout(now))
    }

    /// The next outcome; what is to be sent goes to `out` on the way.
    pub(crate) fn poll(&mut self, now: Instant, socket: &Socket, out: &mut Outbox) -> Result<Option<Outcome>, RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return Ok(None);
                }
                Output::Event(event) => return Ok(Some(Outcome::Event(event))),
                Output::Transmit(transmit) => {
                    let path = self.path(transmit.source, transmit.destination);
                    // The RTP header is in clear; the payload type is in its second byte.
                    self.resent +=
                        u64::from(transmit.contents.get(1).is_some_and(|b| transmit.contents[0] >= 0x80 && self.rtx.contains(&(b & 0x7f))));
                    out.push(socket, path, &transmit.contents);
                    if stun::is_stun(&transmit.contents) {
                        self.checked_at = now;
                        return Ok(Some(Outcome::Learned(transmit.destination)));
                    }
                }
            }
        }
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

/// Payload types here are only our names; an answer takes the offer's. High is offered by no browser and decoded by
/// all of them; native clients do offer it.
const H264_FORMATS: &[(u8, u8, u32)] =
    &[(102, 103, 0x42e01f), (104, 105, 0x42001f), (106, 107, 0x4d001f), (112, 113, 0x640c1f), (114, 115, 0x64001f)];

/// Header extensions: viewers get no bandwidth estimation, so they are spared its feedback; publishers need it to ramp
/// up.
fn extensions(role: Role) -> ExtensionMap {
    let mut map = ExtensionMap::empty();
    map.set(4, Extension::RtpMid);
    if role == Role::Publish {
        map.set(1, Extension::AudioLevel);
        map.set(2, Extension::AbsoluteSendTime);
        map.set(3, Extension::TransportSequenceNumber);
    }
    map
}

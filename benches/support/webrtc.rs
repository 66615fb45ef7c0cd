//! A WebRTC client with real ICE, DTLS and SRTP that reports, asks again and gives feedback as a browser does, and decodes
//! nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;

/// What a client does with what it gets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Counts datagrams once it is connected, without decrypting and without feedback.
    Mute,
    /// Decrypts packets, and gives feedback.
    Packets,
    /// Sends frames.
    Frames,
}

/// What has come, encrypted; clients may share one.
#[derive(Default)]
pub struct Traffic {
    pub datagrams: AtomicU64,
    pub bytes: AtomicU64,
}

pub struct Peer {
    pub rtc: Rtc,
    manner: Manner,
    socket: UdpSocket,
    address: SocketAddr,
    pub audio: Mid,
    pub video: Mid,
    /// Where the session is ended.
    session: String,
    pub connected: bool,
    pub traffic: Arc<Traffic>,
    buffer: Vec<u8>,
}

impl Peer {
    /// Offers sound and a picture to a WHIP or WHEP endpoint; media go to the server's address, or `through` another that
    /// stands for it.
    pub async fn join(endpoint: String, direction: Direction, manner: Manner, through: Option<Ipv4Addr>) -> Result<Self, String> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
        let address = socket.local_addr().map_err(|e| e.to_string())?;
        let builder = Rtc::builder().set_rtp_mode(manner != Manner::Frames).clear_codecs().enable_opus(true, false).enable_h264(true);
        let mut rtc = builder.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a candidate"));
        let mut api = rtc.sdp_api();
        let audio = api.add_media(MediaKind::Audio, direction, None, None, None);
        let video = api.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = api.apply().expect("an offer");
        let (url, offer) = (endpoint.clone(), offer.to_sdp_string());
        let (path, mut answer) =
            tokio::task::spawn_blocking(move || post(&url, &offer)).await.expect("no panic").map_err(|e| format!("{endpoint}: {e}"))?;
        if let Some(through) = through {
            answer = answer.replace("127.0.0.1", &through.to_string());
        }
        let answer = SdpAnswer::from_sdp_string(&answer).map_err(|e| e.to_string())?;
        rtc.sdp_api().accept_answer(pending, answer).map_err(|e| e.to_string())?;
        let host = endpoint.match_indices('/').nth(2).map_or(endpoint.as_str(), |(at, _)| &endpoint[..at]);
        let session = format!("{host}{path}");
        Ok(Self { rtc, manner, socket, address, audio, video, session, connected: false, traffic: Arc::default(), buffer: vec![0; 2_048] })
    }

    /// The next event; `None` when the session is over. May be given up and called again.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let due = match self.rtc.poll_output().ok()? {
                Output::Transmit(datagram) => {
                    _ = self.socket.try_send_to(&datagram.contents, datagram.destination);
                    continue;
                }
                Output::Event(event) => {
                    self.connected |= matches!(event, Event::Connected);
                    return Some(event);
                }
                Output::Timeout(due) => due,
            };
            if !self.rtc.is_alive() {
                return None;
            }
            let received = match self.socket.try_recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(_) => tokio::select! {
                    received = self.socket.recv_from(&mut self.buffer) => received.ok()?,
                    () = tokio::time::sleep_until(due.into()) => {
                        self.rtc.handle_input(Input::Timeout(Instant::now())).ok()?;
                        continue;
                    }
                },
            };
            self.take(received);
        }
    }

    /// Sends what was written. What happened meanwhile is not for those who only send.
    pub fn flush(&mut self) {
        // Frames become packets then.
        _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(datagram)) => _ = self.socket.try_send_to(&datagram.contents, datagram.destination),
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => return,
            }
        }
    }

    fn take(&mut self, (len, source): (usize, SocketAddr)) {
        // RFC 7983: RTP and RTCP.
        if self.buffer[0] >= 128 {
            self.traffic.datagrams.fetch_add(1, Ordering::Relaxed);
            self.traffic.bytes.fetch_add(len as u64, Ordering::Relaxed);
            if self.connected && self.manner == Manner::Mute {
                return;
            }
        }
        if let Ok(contents) = self.buffer[..len].try_into() {
            let receive = Receive { proto: Protocol::Udp, source, destination: self.address, contents };
            _ = self.rtc.handle_input(Input::Receive(Instant::now(), receive));
        }
    }

    /// Says goodbye.
    pub async fn leave(self) -> Result<(), String> {
        let session = self.session;
        let delete = move || ureq::delete(session).call().map(drop).map_err(|e| e.to_string());
        tokio::task::spawn_blocking(delete).await.expect("no panic")
    }
}

/// The session's path and the answer.
fn post(url: &str, offer: &str) -> Result<(String, String), String> {
    let mut response = ureq::post(url).header("content-type", "application/sdp").send(offer).map_err(|e| e.to_string())?;
    let location = response.headers().get("location").and_then(|l| l.to_str().ok()).ok_or("no Location")?.to_owned();
    Ok((location, response.body_mut().read_to_string().map_err(|e| e.to_string())?))
}

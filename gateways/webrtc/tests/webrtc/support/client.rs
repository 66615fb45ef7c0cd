//! A full (not lite) ICE WebRTC client on str0m.
#![allow(dead_code, reason = "shared by tests, bench and example, each of which uses a part")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::media::{Direction, KeyframeRequestKind, MediaData, MediaKind, MediaTime, Mid};
use str0m::net::Receive;
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};

use super::wire::Wire;

pub struct Client {
    rtc: Rtc,
    wire: Wire,
    address: SocketAddr,
    pub session: String,
    pub answer: String,
    pub video: Mid,
    pub audio: Mid,
    pub connected: bool,
    pub closed: bool,
    /// ICE came up again after [`Client::restart_ice`].
    pub restarted: bool,
    pub media: Vec<MediaData>,
    pub keyframe_requests: usize,
    pub datagrams: usize,
    /// What was sent, if it is to be kept.
    pub sent: Option<Vec<Vec<u8>>>,
}

impl Client {
    /// POSTs an offer for audio and video to `url`.
    pub fn open(url: &str, direction: Direction) -> Self {
        Self::over(Wire::udp(), url, direction)
    }

    /// The same without UDP.
    pub fn open_tcp(url: &str, direction: Direction) -> Self {
        Self::over(Wire::tcp(), url, direction)
    }

    fn over(mut wire: Wire, url: &str, direction: Direction) -> Self {
        let address = wire.candidate().addr();
        let mut rtc = Rtc::builder().build(Instant::now());
        rtc.add_local_candidate(wire.candidate());
        let mut api = rtc.sdp_api();
        let audio = api.add_media(MediaKind::Audio, direction, None, None, None);
        let video = api.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let mut response = ureq::post(url).header("content-type", "application/sdp").send(offer.to_sdp_string()).unwrap();
        assert_eq!(response.status(), 201);
        let base = url.split('/').take(3).collect::<Vec<_>>().join("/");
        let session = format!("{base}{}", response.headers()["location"].to_str().unwrap());
        let answer = response.body_mut().read_to_string().unwrap();
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        wire.connect(&answer);
        Self {
            rtc,
            wire,
            address,
            session,
            answer,
            video,
            audio,
            connected: false,
            closed: false,
            restarted: false,
            media: Vec::new(),
            keyframe_requests: 0,
            datagrams: 0,
            sent: None,
        }
    }

    /// Runs until `done` or the time is over; returns whether it was done.
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + limit;
        while !done(self) {
            if Instant::now() >= end {
                return false;
            }
            self.step(end);
        }
        true
    }

    pub fn connect(&mut self) {
        assert!(self.run(Duration::from_secs(5), |c| c.connected), "no DTLS session within 5 s");
    }

    fn poll(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => return at,
                Output::Transmit(t) => {
                    self.wire.send(&t.contents, t.destination);
                    if let Some(sent) = &mut self.sent {
                        sent.push(t.contents.to_vec());
                    }
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(Event::IceConnectionStateChange(state)) => self.restarted |= self.connected && state.is_connected(),
                Output::Event(Event::MediaData(data)) => self.media.push(data),
                Output::Event(Event::KeyframeRequest(_)) => self.keyframe_requests += 1,
                Output::Event(_) => {}
            }
        }
    }

    fn step(&mut self, end: Instant) {
        let next = self.poll();
        let wait = next.min(end).saturating_duration_since(Instant::now()).clamp(Duration::from_micros(100), Duration::from_millis(5));
        if let Some((datagram, source)) = self.wire.receive(Some(wait)) {
            self.datagrams += 1;
            let input = Receive::new(self.wire.protocol(), source, self.address, &datagram).unwrap();
            self.rtc.handle_input(Input::Receive(Instant::now(), input)).unwrap();
        }
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
    }

    pub fn write(&mut self, mid: Mid, time: MediaTime, data: &[u8]) {
        let writer = self.rtc.writer(mid).unwrap();
        let pt = writer.payload_params().next().unwrap().pt();
        writer.write(pt, Instant::now(), time, data.to_vec()).unwrap();
    }

    /// Sends a datagram that the stack below knows nothing of.
    pub fn inject(&mut self, datagram: &[u8], to: SocketAddr) {
        self.wire.send(datagram, to);
    }

    pub fn request_keyframe(&mut self) {
        let mut writer = self.rtc.writer(self.video).unwrap();
        writer.request_keyframe(None, KeyframeRequestKind::Pli).unwrap();
    }

    /// Begins ICE again, with what `fragment` says of the other side.
    pub fn restart_ice(&mut self, (ufrag, pass): (&str, &str), fragment: &str) {
        let value = |prefix: &str| fragment.lines().find_map(|line| line.strip_prefix(prefix)).unwrap().trim().to_owned();
        let old = Candidate::host(self.address, "udp").unwrap();
        let candidate = Candidate::from_sdp_string(&format!("candidate:{}", value("a=candidate:"))).unwrap();
        let mut api = self.rtc.direct_api();
        api.invalidate_candidate(&old);
        api.set_local_ice_credentials(IceCreds { ufrag: ufrag.into(), pass: pass.into() });
        api.set_remote_ice_credentials(IceCreds { ufrag: value("a=ice-ufrag:"), pass: value("a=ice-pwd:") });
        self.rtc.add_local_candidate(old);
        self.rtc.add_remote_candidate(candidate);
    }

    /// Takes what is there without waiting, and answers it; what was received is forgotten. Returns how many datagrams it was.
    pub fn turn(&mut self) -> usize {
        let mut taken = 0;
        while let Some((datagram, source)) = self.wire.receive(None) {
            taken += 1;
            let input = Receive::new(self.wire.protocol(), source, self.address, &datagram).unwrap();
            self.rtc.handle_input(Input::Receive(Instant::now(), input)).unwrap();
            self.poll();
        }
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        self.poll();
        self.media.clear();
        taken
    }

    pub fn delete(&self) -> u16 {
        ureq::delete(&self.session).call().unwrap().status().as_u16()
    }

    /// Payloads of one kind, in order.
    pub fn received(&self, mid: Mid) -> Vec<&MediaData> {
        self.media.iter().filter(|m| m.mid == mid).collect()
    }
}

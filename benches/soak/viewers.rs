//! Viewers that decode nothing: they tell when pictures came, and with which sound.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use patchbay_h5::ts::{CLOCK_HZ, Demuxer};
use patchbay_media::Kind;
use patchbay_rtmp::flv::tag::{AudioPacket, AudioTag, VideoPacket, VideoTag};
use patchbay_rtmp::proto::client::{ClientEvent, Mode};
use str0m::Event;
use str0m::media::{Direction, Frequency, KeyframeRequestKind};
use str0m::rtp::RtpPacket;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::pictures::{Packet, Pictures, begins_key};
use crate::seen::Seen;
use crate::socket::Socket;
use crate::support::hub::Hub;
use crate::support::rtmp::Rtmp;
use crate::support::webrtc::{Manner, Peer};

/// At most so often a viewer asks for a key frame.
const ASKS_EVERY: Duration = Duration::from_secs(1);
/// A viewer that was thrown out comes back after so long.
const RETURNS_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    Whep,
    Rtmp,
    Flv,
    Jsmpeg,
}

/// A viewer that stays, and what it sees.
pub struct Viewer {
    pub player: Player,
    /// Number of its source.
    pub source: usize,
    pub seen: Arc<Mutex<Seen>>,
}

/// Shared with the task that plays.
type Shared = Arc<Mutex<Seen>>;

impl Viewer {
    /// Begins to play; WebRTC media go `through` an address that stands for the server's.
    pub fn start(hub: Arc<Hub>, player: Player, source: usize, stream: String, through: Ipv4Addr) -> Self {
        let seen = Arc::new(Mutex::new(Seen::new()));
        let shared = seen.clone();
        tokio::spawn(async move {
            loop {
                let (hub, stream, seen) = (hub.clone(), stream.clone(), shared.clone());
                // Whatever ends it is counted, a panic too.
                _ = tokio::spawn(async move { play(&hub, player, &stream, through, &seen).await }).await;
                shared.lock().expect("not poisoned").ended();
                tokio::time::sleep(RETURNS_AFTER).await;
            }
        });
        Self { player, source, seen }
    }
}

async fn play(hub: &Hub, player: Player, stream: &str, through: Ipv4Addr, seen: &Shared) -> Option<()> {
    match player {
        Player::Whep => whep(hub.url(&format!("/whep/{stream}")), through, seen).await,
        Player::Rtmp => rtmp(&hub.rtmp_url(stream), seen).await,
        Player::Flv => flv(hub.http, stream, seen).await,
        Player::Jsmpeg => jsmpeg(hub.http, stream, seen).await,
    }
}

async fn whep(endpoint: String, through: Ipv4Addr, seen: &Shared) -> Option<()> {
    let mut peer = Peer::join(endpoint, Direction::RecvOnly, Manner::Packets, Some(through)).await.ok()?;
    let (mut pictures, mut sound, mut asked) = (Pictures::default(), None, Instant::now());
    loop {
        let Event::RtpPacket(packet) = peer.next().await? else { continue };
        let clock = sender_clock(&packet);
        if packet.time.frequency() != Frequency::NINETY_KHZ {
            sound = clock.or(sound);
            continue;
        }
        let stamp_ms = packet.time.as_seconds() * 1e3;
        let arrived = Packet { ends_picture: packet.header.marker, begins_key: begins_key(&packet.payload), stamp_ms, clock };
        pictures.push(*packet.seq_no, arrived, |picture| {
            let skew = picture.clock.zip(sound).map(|(picture, sound): (f64, f64)| (picture - sound) * 1e3);
            seen.lock().expect("not poisoned").picture(picture.stamp_ms, skew);
        });
        if pictures.is_stuck()
            && asked.elapsed() > ASKS_EVERY
            && let Some(stream) = peer.rtc.direct_api().stream_rx(&packet.header.ssrc)
        {
            stream.request_keyframe(KeyframeRequestKind::Pli);
            asked = Instant::now();
        }
    }
}

/// When the packet was captured by the sender's clock, as its reports map it.
fn sender_clock(packet: &RtpPacket) -> Option<f64> {
    let report = packet.last_sender_info?;
    let ticks = (packet.time.numer() as u32).wrapping_sub(report.rtp_time.numer() as u32) as i32;
    let base = report.ntp_time.duration_since(UNIX_EPOCH).ok()?;
    Some(base.as_secs_f64() + f64::from(ticks) / f64::from(packet.time.frequency().get()))
}

/// Stamps of one stream, milliseconds.
struct Stamps<'a> {
    seen: &'a Shared,
    sound: Option<u32>,
}

impl<'a> Stamps<'a> {
    fn new(seen: &'a Shared) -> Self {
        Self { seen, sound: None }
    }

    /// The body of an FLV video tag: coded frames count, configuration does not.
    fn video(&self, stamp: u32, body: Bytes) {
        if let Ok(Some(VideoTag { packet: VideoPacket::Frame { .. }, .. })) = VideoTag::parse(body) {
            self.picture(stamp);
        }
    }

    /// The same of an audio tag.
    fn audio(&mut self, stamp: u32, body: Bytes) {
        if let Ok(Some(AudioTag { packet: AudioPacket::Frame(_), .. })) = AudioTag::parse(body) {
            self.sound = Some(stamp);
        }
    }

    fn picture(&self, stamp: u32) {
        let skew = self.sound.map(|sound| f64::from(stamp.wrapping_sub(sound) as i32));
        self.seen.lock().expect("not poisoned").picture(stamp.into(), skew);
    }
}

async fn rtmp(url: &str, seen: &Shared) -> Option<()> {
    let (mut client, mut stamps) = (Rtmp::open(url, Mode::Play).await.ok()?, Stamps::new(seen));
    loop {
        match client.next().await.ok()? {
            ClientEvent::Video { timestamp, payload } => stamps.video(timestamp, payload),
            ClientEvent::Audio { timestamp, payload } => stamps.audio(timestamp, payload),
            ClientEvent::Ended => return None,
            _ => {}
        }
    }
}

async fn flv(port: u16, stream: &str, seen: &Shared) -> Option<()> {
    let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.ok()?);
    // HTTP 1.0: the body comes without chunks.
    socket.write_all(format!("GET /flv/{stream} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.ok()?);
    }
    // The file's header and the size of no tag.
    socket.read_exact(&mut [0; 13]).await.ok()?;
    let (mut header, mut stamps) = ([0; 11], Stamps::new(seen));
    loop {
        socket.read_exact(&mut header).await.ok()?;
        let [kind, a, b, c, low @ .., _, _, _] = header;
        let mut body = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        socket.read_exact(&mut body).await.ok()?;
        socket.read_u32().await.ok()?;
        let stamp = u32::from_be_bytes([low[3], low[0], low[1], low[2]]);
        match kind {
            8 => stamps.audio(stamp, body.into()),
            9 => stamps.video(stamp, body.into()),
            _ => {}
        }
    }
}

async fn jsmpeg(port: u16, stream: &str, seen: &Shared) -> Option<()> {
    let mut socket = Socket::open(([127, 0, 0, 1], port).into(), &format!("/h5/{stream}"), "").await;
    if !socket.head.starts_with("HTTP/1.1 101 ") {
        return None;
    }
    let (mut demuxer, mut units, mut stamps) = (Demuxer::new(), Vec::new(), Stamps::new(seen));
    loop {
        let message = socket.binary().await?;
        demuxer.push(&message, &mut units);
        for unit in units.drain(..) {
            let Some(pts) = unit.pts else { continue };
            let stamp = (pts * 1_000 / u64::from(CLOCK_HZ)) as u32;
            match unit.stream_type.kind() {
                Kind::Video => stamps.picture(stamp),
                Kind::Audio => stamps.sound = Some(stamp),
            }
        }
    }
}

//! Sources of every kind, in real time and in a loop; what needs an encoder is made once.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use str0m::format::Codec;
use str0m::media::{Direction, Frequency, MediaTime, Mid};
use tokio::time::{Instant, sleep, sleep_until};

use crate::support::hub::{Hub, publish};
use crate::support::process::Running;
use crate::support::webrtc::{Manner, Peer};

/// Pictures per second of every source.
pub const FPS: u64 = 30;
/// One Opus frame.
const SOUND: Duration = Duration::from_millis(20);
const BASELINE: &str = "fixtures/out/baseline-360p.flv";
const BFRAMES: &str = "fixtures/out/bframes-360p.flv";
/// How long the source that is killed stays away: less than viewers are kept for.
const AWAY: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// RTMP, H.264 Baseline and AAC.
    Rtmp,
    /// RTMP, H.264 High with B-frames and AAC.
    BFrames,
    /// WHIP, H.264 and Opus.
    Whip,
    /// MPEG-1 video and MP2 by HTTP.
    Mpeg1,
    /// As the first, but killed again and again.
    Restarted,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Rtmp, Self::BFrames, Self::Whip, Self::Mpeg1, Self::Restarted];
}

pub struct Source {
    pub kind: Kind,
    pub stream: String,
    /// Milliseconds that it was away so far.
    pub away_ms: Arc<AtomicU64>,
    _process: Option<Running>,
}

impl Source {
    /// Begins to publish; `killed_every` is for the one that is killed.
    pub fn start(hub: &Arc<Hub>, number: usize, killed_every: Duration) -> Self {
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let (stream, away_ms) = (format!("live/{number}"), Arc::<AtomicU64>::default());
        let url = hub.rtmp_url(&stream);
        let process = match kind {
            Kind::Rtmp => Some(publish(BASELINE, "flv", &url)),
            Kind::BFrames => Some(publish(BFRAMES, "flv", &url)),
            Kind::Mpeg1 => Some(publish(&mpeg1(), "mpegts", &hub.url(&format!("/h5/{stream}")))),
            Kind::Whip => {
                tokio::spawn(whip(hub.url(&format!("/whip/{stream}")), Media::read()));
                None
            }
            Kind::Restarted => {
                tokio::spawn(restart(url, killed_every, away_ms.clone()));
                None
            }
        };
        Self { kind, stream, away_ms, _process: process }
    }
}

async fn restart(url: String, every: Duration, away_ms: Arc<AtomicU64>) {
    loop {
        let process = publish(BASELINE, "flv", &url);
        sleep(every).await;
        drop(process);
        let begin = Instant::now();
        sleep(AWAY).await;
        away_ms.fetch_add(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// What FFmpeg makes of a test file, once.
fn made(name: &str, arguments: &[&str]) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    std::fs::create_dir_all(&folder).expect("a folder under target");
    let path = folder.join(name).to_string_lossy().into_owned();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-i", BASELINE]).args(arguments).arg(&path);
    assert!(command.status().is_ok_and(|status| status.success()), "{command:?}");
    path
}

fn mpeg1() -> String {
    let video = ["-c:v", "mpeg1video", "-b:v", "1500k", "-bf", "0", "-g", "30"];
    let sound = ["-c:a", "mp2", "-b:a", "96k", "-ar", "44100", "-ac", "1", "-muxdelay", "0.001", "-f", "mpegts"];
    made("soak.ts", &[&video[..], &sound].concat())
}

/// What a WebRTC publisher sends, again and again.
struct Media {
    /// Access units in Annex B form.
    pictures: Vec<Arc<[u8]>>,
    /// Opus frames of [`SOUND`].
    sound: Vec<Arc<[u8]>>,
}

impl Media {
    fn read() -> Self {
        let filter = "h264_mp4toannexb,h264_metadata=aud=insert";
        let video = made("soak.h264", &["-an", "-c:v", "copy", "-bsf:v", filter, "-f", "h264"]);
        let opus =
            ["-vn", "-c:a", "libopus", "-b:a", "64k", "-ar", "48000", "-ac", "2", "-frame_duration", "20", "-page_duration", "20000"];
        let sound = made("soak.ogg", &[&opus[..], &["-f", "ogg"]].concat());
        let read = |path: &str| std::fs::read(path).expect("it was just made");
        let pictures = access_units(&read(&video));
        let mut sound = ogg_pages(&read(&sound));
        // Two headers come first; sound and picture turn around together.
        sound.drain(..2);
        sound.truncate(pictures.len() * (1_000 / SOUND.as_millis() as usize) / FPS as usize);
        Self { pictures, sound }
    }
}

/// Splits at access unit delimiters.
fn access_units(stream: &[u8]) -> Vec<Arc<[u8]>> {
    let is_start = |at: &usize| stream[*at..].starts_with(&[0, 0, 0, 1, 9]);
    let starts: Vec<usize> = (0..stream.len()).filter(is_start).chain([stream.len()]).collect();
    starts.windows(2).map(|pair| stream[pair[0]..pair[1]].into()).collect()
}

/// The contents of pages (RFC 3533), one packet each as they are made here.
fn ogg_pages(mut file: &[u8]) -> Vec<Arc<[u8]>> {
    let mut pages = Vec::new();
    while file.starts_with(b"OggS") {
        let segments = usize::from(file[26]);
        let len: usize = file[27..27 + segments].iter().map(|&n| usize::from(n)).sum();
        let begin = 27 + segments;
        pages.push(file[begin..begin + len].into());
        file = &file[begin + len..];
    }
    pages
}

/// Publishes until the server ends it.
async fn whip(endpoint: String, media: Media) {
    let mut peer = Peer::join(endpoint, Direction::SendOnly, Manner::Frames, None).await.expect("WHIP is let in");
    while !peer.connected {
        peer.next().await.expect("WHIP connects");
    }
    let (video, audio) = (peer.video, peer.audio);
    let (begin, mut picture, mut sound) = (Instant::now(), 0_u64, 0_u64);
    loop {
        let picture_due = begin + Duration::from_micros(picture * 1_000_000 / FPS);
        let sound_due = begin + SOUND * sound as u32;
        tokio::select! {
            event = peer.next() => if event.is_none() { return },
            () = sleep_until(picture_due) => {
                let time = MediaTime::new(picture * 90_000 / FPS, Frequency::NINETY_KHZ);
                send(&mut peer, video, Codec::H264, picture_due, time, &media.pictures[picture as usize % media.pictures.len()]);
                picture += 1;
            }
            () = sleep_until(sound_due) => {
                let time = MediaTime::new(sound * 960, Frequency::FORTY_EIGHT_KHZ);
                send(&mut peer, audio, Codec::Opus, sound_due, time, &media.sound[sound as usize % media.sound.len()]);
                sound += 1;
            }
        }
    }
}

fn send(peer: &mut Peer, mid: Mid, codec: Codec, due: Instant, time: MediaTime, frame: &Arc<[u8]>) {
    let writer = peer.rtc.writer(mid).expect("it was negotiated");
    let pt = writer.payload_params().find(|params| params.spec().codec == codec).expect("it was negotiated").pt();
    writer.write(pt, due.into(), time, frame.clone()).expect("it is connected");
    peer.flush();
}

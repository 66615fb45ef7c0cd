//! The built-in picture: a moving pattern with clock, frame counter, flash and tone, published as `live/demo`.
//!
//! It is made and encoded on a thread of its own, and goes onto the bus like anybody's publication.

mod font;
mod paint;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use patchbay_bus::{EndReason, TrackWriter, now};
use patchbay_contract::{Caller, Cause, Hub, Publication, PublishRequest};
use patchbay_media::{AudioTarget, Codec, MediaTime, VideoTarget};
use patchbay_rules::EndpointKind;
use patchbay_transcode::{CodecError, RawAudio, RawVideo};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

const STREAM: &str = "live/demo";
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
const FRAME_RATE: i64 = 30;
const SAMPLE_RATE: u32 = 44_100;
/// Flash and tone last this long, at the start of each second of wall-clock time.
const BEEP_MS: u64 = 100;

/// A source that needs no peer. It says it is an RTMP client's stream (H.264 and AAC), so that what browsers get of
/// it is what they get of OBS.
#[derive(Default)]
pub struct Demo {}

impl Demo {
    /// Publishes until `shutdown`.
    pub fn publish(self, hub: Arc<dyn Hub>, shutdown: CancellationToken) {
        tokio::spawn(async move {
            let Ok(stream) = STREAM.parse() else { return };
            let caller = Caller { protocol: "demo", operator: true, ..Caller::default() };
            match hub.publish(PublishRequest { stream, kind: EndpointKind::Rtmp, caller }).await {
                Ok(publication) => {
                    let run = move || run(publication, &shutdown);
                    if let Err(error) = std::thread::Builder::new().name("demo".into()).spawn(run) {
                        tracing::error!(%error, "the demo picture has no thread");
                    }
                }
                Err(refusal) => tracing::error!(%refusal, "the demo picture is not published"),
            }
        });
    }
}

fn run(publication: Publication, shutdown: &CancellationToken) {
    let cause = match Picture::open(&publication).and_then(|mut picture| picture.play(&publication, shutdown)) {
        Ok(()) => Cause::here("stopped"),
        Err(error) => Cause::here("encoder_failed").with(error),
    };
    publication.end(EndReason::Stopped, cause);
}

struct Picture {
    video: RawVideo,
    audio: RawAudio,
    pictures: TrackWriter,
    sound: TrackWriter,
    samples: Vec<f32>,
}

impl Picture {
    fn open(publication: &Publication) -> Result<Self, CodecError> {
        let target = VideoTarget { codec: Codec::H264, size: None, frame_rate_max: None, bitrate_bps: 1_500_000, gop_ms: 2_000 };
        let video = RawVideo::open(WIDTH, HEIGHT, FRAME_RATE as f64, &target)?;
        let audio = RawAudio::open(&AudioTarget { codec: Codec::Aac, sample_rate: SAMPLE_RATE, channels: 2, bitrate_bps: 96_000 })?;
        let pictures = publication.publisher().add_track(video.track_info().clone());
        let sound = publication.publisher().add_track(audio.track_info());
        Ok(Self { video, audio, pictures, sound, samples: Vec::new() })
    }

    /// One round per picture: paint, encode, and as much sound as has passed.
    fn play(&mut self, publication: &Publication, shutdown: &CancellationToken) -> Result<(), CodecError> {
        let counters = publication.counters().clone();
        let begin = now();
        // Wall-clock time at `begin`: clock, flash and tone share it.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let (mut frames, mut heard) = (0i64, 0i64);
        while !shutdown.is_cancelled() && !publication.cancelled().is_cancelled() {
            let pts = begin + MediaTime::from_ticks(frames, FRAME_RATE as u32);
            std::thread::sleep((pts - now()).to_duration());
            let ms = wall + (pts - begin).as_millis() as u64;
            paint::picture(&mut self.video, WIDTH as usize, HEIGHT as usize, frames as u64, ms, ms % 1_000 < BEEP_MS);
            let key = self.pictures.track().keyframes().take(now());
            if let Some(frame) = self.video.encode(pts, key)? {
                counters.frame(frame.payload.len(), 0);
                self.pictures.push(frame);
            }
            frames += 1;
            self.sound_until(begin, wall, now(), &mut heard)?;
        }
        Ok(())
    }

    fn sound_until(&mut self, begin: MediaTime, wall: u64, until: MediaTime, heard: &mut i64) -> Result<(), CodecError> {
        let size = self.audio.frame_samples();
        loop {
            let pts = begin + MediaTime::from_ticks(*heard, SAMPLE_RATE);
            if pts + MediaTime::from_ticks(size as i64, SAMPLE_RATE) > until {
                return Ok(());
            }
            self.samples.clear();
            for n in *heard..*heard + size as i64 {
                let ms = wall as f64 + n as f64 * 1e3 / f64::from(SAMPLE_RATE);
                let on = ms % 1e3 < BEEP_MS as f64;
                let value = if on { 0.5 * (ms / 1e3 * std::f64::consts::TAU * 1e3).sin() as f32 } else { 0.0 };
                self.samples.extend([value, value]);
            }
            *heard += size as i64;
            if let Some(frame) = self.audio.encode(&self.samples, pts)? {
                self.sound.push(frame);
            }
        }
    }
}

/// What to publish and watch, with every URL.
pub fn welcome(config: &Config) -> String {
    let host = if config.http.listen.ip().is_unspecified() { "<this machine>".into() } else { config.http.listen.ip().to_string() };
    let (http, rtmp) = (config.http.listen.port(), config.rtmp.listen.port());
    format!(
        "patchbay {version} demo: a test picture is live as {STREAM}\n\
         \n  watch    in a browser    http://{host}:{http}/play/{STREAM}\
         \n           RTMP player     rtmp://{host}:{rtmp}/{STREAM}\
         \n           HTTP-FLV        http://{host}:{http}/flv/{STREAM}.flv\
         \n           WebSocket-FLV   ws://{host}:{http}/flv/{STREAM}.flv\
         \n           WHEP            http://{host}:{http}/whep/{STREAM}\
         \n           jsmpeg          http://{host}:{http}/h5-play/{STREAM} (its socket: ws://{host}:{http}/h5/{STREAM})\
         \n\n  publish  from a browser  http://{host}:{http}/publish/live/me\
         \n           OBS, FFmpeg     rtmp://{host}:{rtmp}/live/me\
         \n           WHIP            http://{host}:{http}/whip/live/me\
         \n           MPEG-TS         http://{host}:{http}/h5/live/me\
         \n\n  see      all streams     http://{host}:{http}/\
         \n           every decision  http://{host}:{http}/v1/pairs\n\
         \nWebRTC media goes over UDP {webrtc}. Stop with Ctrl-C.",
        version = env!("CARGO_PKG_VERSION"),
        webrtc = config.webrtc.listen,
    )
}

//! What the tests share: sources made by real encoders, sinks that decode with real decoders, and a driver.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use patchbay_bus::{EndReason, Item, Lag, Limits, Reader, Signal, Start, Track, TrackWriter, now};
use patchbay_media::aac::{AudioSpecificConfig, OBJECT_AAC_LC};
use patchbay_media::{AudioShape, AudioTarget, Codec, Frame, Kind, MediaTime, Target, TrackInfo, VideoShape};
use patchbay_transcode::{Engine, EngineConfig, Rendition, RenditionStats};

pub const OPUS: Target = Target::Audio(AudioTarget { codec: Codec::Opus, sample_rate: 48_000, channels: 2, bitrate_bps: 96_000 });
pub const MP2: Target = Target::Audio(AudioTarget { codec: Codec::Mp2, sample_rate: 44_100, channels: 2, bitrate_bps: 128_000 });
pub const AAC: Target = Target::Audio(AudioTarget { codec: Codec::Aac, sample_rate: 48_000, channels: 2, bitrate_bps: 128_000 });

/// Everything that came out of a rendition.
pub struct Outcome {
    pub info: Arc<TrackInfo>,
    pub frames: Vec<Frame>,
    pub ended: EndReason,
    pub stats: RenditionStats,
}

/// A source track that keeps everything, and its rendition.
pub struct Rig {
    pub engine: Arc<Engine>,
    pub writer: TrackWriter,
    pub rendition: Rendition,
    reader: Reader,
    info: Option<Arc<TrackInfo>>,
    frames: Vec<Frame>,
}

pub fn unlimited() -> Limits {
    Limits { bytes_max: 1 << 30, span_max: MediaTime::from_secs(100_000) }
}

/// A rig in real time.
pub fn rig(info: TrackInfo, target: &Target) -> Rig {
    rig_with(info, target, EngineConfig::default().silence_after)
}

/// A rig for input that comes at the test's own pace: silence does not fill its pauses.
pub fn fast_rig(info: TrackInfo, target: &Target) -> Rig {
    rig_with(info, target, Duration::from_secs(3_600))
}

fn rig_with(info: TrackInfo, target: &Target, silence_after: Duration) -> Rig {
    let engine = Engine::new(EngineConfig { threads: 2, silence_after, ..EngineConfig::default() });
    let writer = Track::create(info.kind(), Some(info), unlimited());
    let rendition = engine.start(writer.track(), target).expect("starts");
    let reader = rendition.track().read(Start::Newest, Lag::Keep, Arc::new(Signal::new()));
    Rig { engine, writer, rendition, reader, info: None, frames: Vec::new() }
}

impl Rig {
    /// Pushes `frame` as if it came in now.
    pub fn push(&mut self, frame: &Frame) {
        self.writer.push(Frame { arrival: now(), ..frame.clone() });
    }

    /// Waits until the pipeline has read everything that was pushed.
    pub fn settle(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let pushed = self.writer.track().totals().0;
        while self.rendition.stats().frames_in < pushed {
            assert!(Instant::now() < deadline, "{:?} of {pushed} frames", self.rendition.stats());
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(self.drain(), None);
    }

    /// Keeps what came out, before it leaves the output's window.
    fn drain(&mut self) -> Option<EndReason> {
        loop {
            match self.reader.poll()? {
                Item::Info(info) => self.info = Some(info),
                Item::Frame(frame) => self.frames.push(frame),
                Item::Gap(frames) => panic!("{frames} frames left the window unread"),
                Item::End(reason) => return Some(reason),
            }
        }
    }

    /// Pushes all, faster than real time but never so far ahead that the pipeline skips for lag.
    pub fn push_all(&mut self, frames: &[Frame]) {
        // A loaded machine must not make a video pipeline late: then it would leave pictures out, rightly.
        let ahead = if self.writer.track().kind() == Kind::Video { MediaTime::ZERO } else { MediaTime::from_millis(700) };
        let mut read = frames.first().map_or(MediaTime::ZERO, |f| f.dts);
        for frame in frames {
            if frame.dts - read > ahead {
                self.settle();
                read = frame.dts;
            }
            self.push(frame);
        }
        self.settle();
    }

    /// Ends the source and collects the output.
    pub fn finish(mut self) -> Outcome {
        let Self { writer, .. } = &mut self;
        let source = writer.track().clone();
        let spare = Track::create(source.kind(), None, Limits::default());
        std::mem::replace(writer, spare).end(EndReason::Finished);
        let deadline = Instant::now() + Duration::from_secs(30);
        let ended = loop {
            match self.drain() {
                Some(reason) => break reason,
                None => assert!(Instant::now() < deadline, "the output never ended"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let stats = self.rendition.stats();
        Outcome { info: self.info.expect("described"), frames: self.frames, ended, stats }
    }
}

/// Transcodes `frames` faster than real time; pushes slowly enough that nothing is skipped for lag.
pub fn transcode(info: TrackInfo, frames: &[Frame], target: &Target) -> Outcome {
    let mut rig = fast_rig(info, target);
    rig.push_all(frames);
    rig.finish()
}

pub fn frame(pts: MediaTime, payload: impl Into<Bytes>) -> Frame {
    Frame { pts, dts: pts, duration: MediaTime::ZERO, key: true, loss: 0, arrival: MediaTime::ZERO, payload: payload.into() }
}

fn ffmpeg_path(name: &str, args: &[&str]) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("{}-{name}", std::process::id()));
    let done = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(args).arg(&path).status().expect("ffmpeg runs");
    assert!(done.success(), "ffmpeg {args:?}");
    path
}

/// A file under the target directory, made by the ffmpeg command line.
pub fn ffmpeg_file(name: &str, args: &[&str]) -> Vec<u8> {
    let path = ffmpeg_path(name, args);
    let data = std::fs::read(&path).expect("ffmpeg wrote it");
    let _ = std::fs::remove_file(&path);
    data
}

/// A test picture encoded by x264, as the frames of a source track.
pub fn h264(name: &str, size: &str, seconds: u32, options: &[&str]) -> (TrackInfo, Vec<Frame>) {
    let options = [&["-c:v", "libx264", "-preset", "veryfast", "-threads", "1"], options, &["-f", "mp4"]].concat();
    let (config, frames) = pictures(name, &format!("s={size}:r=30:d={seconds}"), &options);
    (patchbay_media::h264::track_info(&config).expect("avcC"), frames)
}

/// A test picture encoded by libavcodec's MPEG-1 encoder, as the frames of a source track.
pub fn mpeg1(name: &str, size: &str, seconds: u32, options: &[&str]) -> (TrackInfo, Vec<Frame>) {
    let options = [&["-c:v", "mpeg1video", "-b:v", "1M"], options, &["-f", "mpegts"]].concat();
    let (_, frames) = pictures(name, &format!("s={size}:r=30:d={seconds}"), &options);
    (TrackInfo::video(Codec::Mpeg1, Bytes::new(), VideoShape::default()), frames)
}

/// A moving test picture as the ffmpeg command line encodes it: codec configuration and packets.
pub fn pictures(name: &str, source: &str, options: &[&str]) -> (Bytes, Vec<Frame>) {
    let source = format!("testsrc2={source}");
    packets(name, &[&["-f", "lavfi", "-i", &source, "-pix_fmt", "yuv420p"], options].concat())
}

/// Sound as FLAC, as the frames of a source track.
pub fn flac(name: &str, source: &str, options: &[&str]) -> (TrackInfo, Vec<Frame>) {
    let (config, frames) =
        packets(name, &[&["-f", "lavfi", "-i", source, "-c:a", "flac"], options, &["-strict", "-2", "-f", "mp4"]].concat());
    (patchbay_media::flac::track_info(&config).expect("STREAMINFO"), frames)
}

/// What the ffmpeg command line makes: codec configuration and packets.
fn packets(name: &str, args: &[&str]) -> (Bytes, Vec<Frame>) {
    let path = ffmpeg_path(name, args);
    ffmpeg::init().unwrap();
    let mut file = ffmpeg::format::input(&path).expect("the file opens");
    let (base, config) = {
        let stream = file.stream(0).expect("a stream");
        // SAFETY: the parameters live as long as the stream; extradata has the length they say.
        let config = unsafe {
            let raw = stream.parameters().as_ptr();
            if (*raw).extradata.is_null() {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(std::slice::from_raw_parts((*raw).extradata, (*raw).extradata_size as usize))
            }
        };
        (stream.time_base(), config)
    };
    let time = |t: i64| MediaTime::from_nanos(t * 1_000_000_000 * i64::from(base.numerator()) / i64::from(base.denominator()));
    let mut frames = Vec::new();
    let mut packet = ffmpeg::Packet::empty();
    while packet.read(&mut file).is_ok() {
        let payload = Bytes::copy_from_slice(packet.data().unwrap());
        let (pts, dts) = (time(packet.pts().unwrap()), time(packet.dts().unwrap()));
        frames.push(Frame { pts, dts, key: packet.is_key(), ..frame(pts, payload) });
    }
    drop(file);
    let _ = std::fs::remove_file(&path);
    (config, frames)
}

/// Decodes video with the ffmpeg command line, as the bare pictures a player is given one after another; how many
/// come out. Anything it complains of is a failure.
pub fn decoded_by_command(name: &str, format: &str, frames: &[Frame]) -> usize {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
    std::fs::write(&path, frames.iter().flat_map(|f| f.payload.to_vec()).collect::<Vec<_>>()).expect("written");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", format, "-i"]).arg(&path);
    let done = ffmpeg.args(["-fps_mode", "passthrough", "-f", "framemd5", "-"]).output().expect("ffmpeg runs");
    let _ = std::fs::remove_file(&path);
    assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).lines().filter(|line| !line.starts_with('#')).count()
}

/// Decodes H.264 or MPEG-1 with libavcodec; the size of every picture that comes out.
pub fn watch(info: &TrackInfo, frames: &[Frame]) -> Vec<(u32, u32)> {
    let id = if info.codec == Codec::Mpeg1 { ffmpeg::codec::Id::MPEG1VIDEO } else { ffmpeg::codec::Id::H264 };
    let mut decoder = open(id, &info.config).video().unwrap();
    let (mut picture, mut sizes) = (ffmpeg::frame::Video::empty(), Vec::new());
    for frame in frames {
        decoder.send_packet(&ffmpeg::Packet::copy(&frame.payload)).expect("video decodes");
        while decoder.receive_frame(&mut picture).is_ok() {
            assert!(!picture.is_corrupt() && !picture.has_decode_errors());
            sizes.push((picture.width(), picture.height()));
        }
    }
    decoder.send_eof().unwrap();
    while decoder.receive_frame(&mut picture).is_ok() {
        sizes.push((picture.width(), picture.height()));
    }
    sizes
}

/// libavcodec's decoder on one thread.
pub fn open(id: ffmpeg::codec::Id, config: &[u8]) -> ffmpeg::decoder::Opened {
    ffmpeg::init().unwrap();
    let codec = ffmpeg::decoder::find(id).unwrap();
    let mut context = ffmpeg::codec::Context::new_with_codec(codec);
    // SAFETY: a padded copy in FFmpeg's own memory, owned by the context.
    unsafe {
        let raw = context.as_mut_ptr();
        let buffer = ffmpeg::ffi::av_mallocz(config.len() + 64).cast::<u8>();
        std::ptr::copy_nonoverlapping(config.as_ptr(), buffer, config.len());
        (*raw).extradata = buffer;
        (*raw).extradata_size = config.len() as i32;
        (*raw).thread_count = 1;
    }
    context.decoder().open_as(codec).unwrap()
}

/// AAC frames of an ADTS stream, from time zero.
pub fn adts(data: &[u8]) -> (TrackInfo, Vec<Frame>) {
    const RATES: [u32; 13] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
    let (mut at, mut frames, mut asc) = (0, Vec::new(), None);
    while at + 7 <= data.len() {
        let h = &data[at..];
        assert_eq!((h[0], h[1] & 0xf0), (0xff, 0xf0), "ADTS sync at {at}");
        let sample_rate = RATES[usize::from(h[2] >> 2 & 15)];
        let channels = (h[2] & 1) << 2 | h[3] >> 6;
        asc = Some(AudioSpecificConfig { object_type: OBJECT_AAC_LC, sample_rate, channels });
        let len = usize::from(h[3] & 3) << 11 | usize::from(h[4]) << 3 | usize::from(h[5] >> 5);
        let head = if h[1] & 1 == 1 { 7 } else { 9 };
        let pts = MediaTime::from_ticks(frames.len() as i64 * 1_024, sample_rate);
        frames.push(frame(pts, Bytes::copy_from_slice(&h[head..len])));
        at += len;
    }
    (AudioSpecificConfig::track_info(&asc.expect("frames").to_bytes()).unwrap(), frames)
}

/// Opus packets of 20 ms from interleaved stereo samples at 48 kHz.
pub fn opus_packets(samples: &[f32]) -> (TrackInfo, Vec<Frame>) {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Audio).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(128_000)).unwrap();
    let packets = samples.chunks_exact(1_920).map(|c| encoder.encode_vec_float(c, 1_500).unwrap());
    let frames = packets.enumerate().map(|(n, p)| frame(MediaTime::from_millis(n as i64 * 20), p)).collect();
    let shape = AudioShape { sample_rate: 48_000, channels: 2 };
    (TrackInfo::audio(Codec::Opus, Bytes::new(), shape), frames)
}

pub fn tone(seconds: f64, hz: f64) -> Vec<f32> {
    (0..(seconds * 48_000.0) as usize)
        .flat_map(|n| {
            let x = (n as f64 * hz * std::f64::consts::TAU / 48_000.0).sin() as f32 * 0.5;
            [x, x]
        })
        .collect()
}

/// Left channel of decoded packets, with the time of its first sample and its rate.
pub struct Sound {
    pub begin: MediaTime,
    pub rate: u32,
    pub left: Vec<f32>,
}

impl Sound {
    pub fn at(&self, time: MediaTime) -> usize {
        usize::try_from((time - self.begin).to_ticks(self.rate)).expect("inside")
    }

    pub fn part(&self, from_ms: i64, to_ms: i64) -> &[f32] {
        &self.left[self.at(MediaTime::from_millis(from_ms))..self.at(MediaTime::from_millis(to_ms))]
    }

    pub fn rms(&self, from_ms: i64, to_ms: i64) -> f32 {
        let part = self.part(from_ms, to_ms);
        (part.iter().map(|x| x * x).sum::<f32>() / part.len() as f32).sqrt()
    }

    /// Share of the energy of a part that lies at `hz` (Goertzel).
    pub fn purity(&self, from_ms: i64, to_ms: i64, hz: f64) -> f64 {
        let part = self.part(from_ms, to_ms);
        let w = std::f64::consts::TAU * hz / f64::from(self.rate);
        let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
        for (n, &x) in part.iter().enumerate() {
            let (x, a) = (f64::from(x), w * n as f64);
            re += x * a.cos();
            im += x * a.sin();
            all += x * x;
        }
        2.0 * (re * re + im * im) / (part.len() as f64 * all)
    }

    /// Time of the loudest sample in a range.
    pub fn peak(&self, from_ms: i64, to_ms: i64) -> MediaTime {
        let from = self.at(MediaTime::from_millis(from_ms));
        let part = self.part(from_ms, to_ms);
        let best = (0..part.len()).max_by(|&a, &b| part[a].abs().total_cmp(&part[b].abs())).expect("not empty");
        self.begin + MediaTime::from_ticks((from + best) as i64, self.rate)
    }
}

/// Decodes with libavcodec (AAC, MP2) or libopus; packets are laid end to end from the first one's time.
pub fn listen(info: &TrackInfo, frames: &[Frame]) -> Sound {
    let mut sound = Sound { begin: frames[0].pts, rate: 48_000, left: Vec::new() };
    if info.codec == Codec::Opus {
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).unwrap();
        let mut pcm = vec![0.0; 11_520];
        for frame in frames {
            let n = decoder.decode_float(&frame.payload, &mut pcm, false).expect("Opus decodes");
            sound.left.extend(pcm[..n * 2].iter().step_by(2));
        }
        return sound;
    }
    let id = if info.codec == Codec::Mp2 { ffmpeg::codec::Id::MP2 } else { ffmpeg::codec::Id::AAC };
    let mut decoder = open(id, &info.config).audio().unwrap();
    let mut pcm = ffmpeg::frame::Audio::empty();
    for frame in frames {
        decoder.send_packet(&ffmpeg::Packet::copy(&frame.payload)).expect("sound decodes");
        while decoder.receive_frame(&mut pcm).is_ok() {
            sound.rate = pcm.rate();
            // Layer II comes as integers.
            match info.codec {
                Codec::Mp2 => sound.left.extend(pcm.plane::<i16>(0).iter().map(|&x| f32::from(x) / 32_768.0)),
                _ => sound.left.extend_from_slice(pcm.plane::<f32>(0)),
            }
        }
    }
    sound
}

/// Every frame begins where the one before it ended, to the nanosecond of rounding.
pub fn assert_continuous(frames: &[Frame]) {
    for pair in frames.windows(2) {
        let off = (pair[0].pts + pair[0].duration - pair[1].pts).abs();
        assert!(off.as_nanos() <= 2, "{:?} + {:?} is followed by {:?}", pair[0].pts, pair[0].duration, pair[1].pts);
    }
}

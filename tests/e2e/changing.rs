//! A source that changes in the middle of one connection: parts that FFmpeg encoded apart, their FLV tags joined, and
//! FFmpeg again to send them in real time. Each part is repeated until the test says to go on.

use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Proc, fixture};

/// Seconds of each part; whole groups, and longer than the step back that begins a new run of stamps.
const PART_SECONDS: u32 = 4;

const AUDIO: u8 = 8;
const VIDEO: u8 = 9;
/// Milliseconds from one picture to the next, rounded up.
const PICTURE_MS: i64 = 34;

/// What H.264 without B-frames is, in FFmpeg's words.
pub const BASELINE: &[&str] = &["-profile:v", "baseline", "-bf", "0"];
/// The same in a profile that could have them.
pub const HIGH: &[&str] = &["-profile:v", "high", "-bf", "0", "-x264-params", "8x8dct=1:cabac=1"];
/// Three B-frames, each in its place.
pub const B_FRAMES: &[&str] =
    &["-profile:v", "high", "-x264-params", "8x8dct=1:cabac=1:bframes=3:b-adapt=0:b-pyramid=none:rc-lookahead=10"];

/// One part: size of the picture, its encoding, rate and channels of the sound.
#[derive(Clone, Copy)]
pub struct Part {
    pub size: &'static str,
    pub video: &'static [&'static str],
    pub rate: u32,
    pub channels: u32,
    /// What a phone sends while its program is in the background: two pictures a second and no sound.
    pub waiting: bool,
}

impl Part {
    /// 640x360 and 44.1 kHz stereo.
    pub fn of(video: &'static [&'static str]) -> Self {
        Self { size: "640x360", video, rate: 44_100, channels: 2, waiting: false }
    }

    fn encode(self, from: u32) -> Vec<Tag> {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("part-{}-{from}.flv", std::process::id()));
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-ss", &from.to_string(), "-t", &PART_SECONDS.to_string()]);
        command.args(["-i", &fixture("baseline-360p.flv"), "-s", self.size, "-c:v", "libx264", "-preset", "ultrafast", "-b:v", "800k"]);
        command.args(["-g", "30", "-keyint_min", "30", "-sc_threshold", "0"]).args(self.video);
        command.args(["-c:a", "aac", "-b:a", "96k", "-ar", &self.rate.to_string(), "-ac", &self.channels.to_string(), "-f", "flv"]);
        if self.waiting {
            command.args(["-r", "2", "-b:v", "20k", "-an"]);
        }
        assert!(command.arg(&file).status().expect("ffmpeg runs").success(), "{command:?}");
        let tags = tags(&std::fs::read(&file).expect("ffmpeg wrote it"));
        std::fs::remove_file(&file).expect("it was there");
        tags
    }
}

/// One FLV tag.
#[derive(Clone)]
pub struct Tag {
    kind: u8,
    /// Milliseconds.
    pub time: i64,
    pub body: Vec<u8>,
}

impl Tag {
    /// Milliseconds at which the picture is shown.
    fn shown(&self) -> i64 {
        let offset = i32::from_be_bytes([self.body[2], self.body[3], self.body[4], 0]) >> 8;
        self.time + i64::from(offset)
    }

    /// Whether it holds parameter sets.
    pub fn is_header(&self) -> bool {
        self.body[1] == 0
    }

    /// Whether it holds sound.
    pub fn is_audio(&self) -> bool {
        self.kind == AUDIO
    }

    /// Whether it is sent before this time, milliseconds.
    pub fn before(&self, time: i64) -> bool {
        self.time < time
    }

    /// Whether it holds a coded picture.
    pub fn is_picture(&self) -> bool {
        self.kind == VIDEO && !self.is_header()
    }

    /// Whether it holds the parameter sets.
    pub fn is_video_header(&self) -> bool {
        self.kind == VIDEO && self.is_header()
    }

    fn write(&self, at: i64, out: &mut Vec<u8>) {
        let (size, time) = (self.body.len() as u32, (self.time + at).max(0) as u32);
        out.push(self.kind);
        out.extend(&size.to_be_bytes()[1..]);
        out.extend(&time.to_be_bytes()[1..]);
        out.extend([(time >> 24) as u8, 0, 0, 0]);
        out.extend(&self.body);
        out.extend((size + 11).to_be_bytes());
    }
}

/// The tags of a file, without those of its script.
pub fn tags(file: &[u8]) -> Vec<Tag> {
    let (mut rest, mut out) = (&file[13..], Vec::new());
    while let Some((head, after)) = rest.split_at_checked(11) {
        let number = |bytes: &[u8]| bytes.iter().fold(0usize, |n, byte| n << 8 | usize::from(*byte));
        let (size, time) = (number(&head[1..4]), number(&[head[7], head[4], head[5], head[6]]));
        if matches!(head[0], AUDIO | VIDEO) && size > 4 {
            out.push(Tag { kind: head[0], time: time as i64, body: after[..size].to_vec() });
        }
        rest = &after[size + 4..];
    }
    out
}

/// A part on the clock of the whole.
struct Clock {
    /// When the next tag may be sent, and the next picture be shown.
    sent: i64,
    shown: i64,
}

impl Clock {
    /// Where a part begins so that neither decoding nor showing steps back: an encoder's delay only grows.
    fn place(&self, part: &[Tag]) -> i64 {
        let first = part.iter().find(|tag| tag.is_picture()).expect("a picture");
        (self.sent - first.time).max(self.shown - first.shown())
    }

    fn went(&mut self, part: &[Tag], at: i64) {
        let pictures = || part.iter().filter(|tag| tag.is_picture());
        self.sent = at + PICTURE_MS + pictures().map(|tag| tag.time).max().expect("a picture");
        self.shown = at + PICTURE_MS + pictures().map(Tag::shown).max().expect("a picture");
    }
}

/// The source.
pub struct Changing {
    process: Proc,
    part: Arc<AtomicUsize>,
}

impl Changing {
    /// Begins with the first part.
    pub fn publish(parts: &[Part], url: &str) -> Self {
        let parts: Vec<_> = parts.iter().enumerate().map(|(i, part)| part.encode(i as u32 * PART_SECONDS)).collect();
        Self::publish_tags(parts, url)
    }

    /// The same with tags that were made otherwise.
    pub fn publish_tags(parts: Vec<Vec<Tag>>, url: &str) -> Self {
        let mut command = Command::new("ffmpeg");
        command.args([
            "-v",
            "error",
            "-re",
            "-f",
            "flv",
            "-i",
            "pipe:0",
            "-c",
            "copy",
            "-max_interleave_delta",
            "100000",
            "-f",
            "flv",
            url,
        ]);
        let (process, pipe) = Proc::fed(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let part = Arc::new(AtomicUsize::new(0));
        let wanted = part.clone();
        // Ends when FFmpeg does.
        std::thread::spawn(move || feed(&parts, &wanted, pipe));
        Self { process, part }
    }

    /// Falls silent without closing its connection, as a phone does that loses its network.
    pub fn freeze(&self) {
        self.process.signal("STOP");
    }

    /// Goes over to the next part when this one is through.
    pub fn go_on(&self) {
        self.part.fetch_add(1, Ordering::Relaxed);
    }
}

fn feed(parts: &[Vec<Tag>], wanted: &AtomicUsize, mut pipe: ChildStdin) {
    let mut clock = Clock { sent: 0, shown: 0 };
    if pipe.write_all(b"FLV\x01\x05\0\0\0\x09\0\0\0\0").is_err() {
        return;
    }
    loop {
        let Some(part) = parts.get(wanted.load(Ordering::Relaxed)) else { return };
        let at = clock.place(part);
        clock.went(part, at);
        let mut bytes = Vec::new();
        // Sound that is longer than the pictures would overlap with what follows.
        part.iter().filter(|tag| tag.time + at < clock.sent).for_each(|tag| tag.write(at, &mut bytes));
        if pipe.write_all(&bytes).is_err() {
            return;
        }
    }
}

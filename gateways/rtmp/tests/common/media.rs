//! Other people's programs, and the media they are given.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// A folder for this test binary's files.
pub fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("rtmp-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    })
}

fn made(name: &str, video: &[&str]) -> PathBuf {
    let path = folder().join(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30", "-f", "lavfi", "-i", "sine=r=44100"]);
    command.args(["-t", "8", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast"]).args(video);
    command.args(["-c:a", "aac", "-ac", "2", "-f", "flv"]).arg(&path);
    assert!(command.status().expect("ffmpeg is installed").success());
    path
}

/// 320x180 Baseline with a key frame each second, AAC 44.1 kHz stereo; 8 s.
pub fn baseline() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| made("baseline.flv", &["-profile:v", "baseline", "-g", "30", "-b:v", "300k"]))
}

/// The same with a key frame every four seconds.
pub fn long_group() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| made("long.flv", &["-profile:v", "baseline", "-g", "120", "-sc_threshold", "0", "-b:v", "300k"]))
}

/// A process that dies with the test.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn start(program: &str, args: &[&str]) -> Self {
        let log = std::fs::File::create(folder().join(format!("{program}-{:x}.log", rand_u32()))).unwrap();
        let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        Self(child.unwrap_or_else(|e| panic!("{program} does not start: {e}")))
    }
}

fn rand_u32() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0) as u32
}

/// FFmpeg publishes `file` in a loop, in real time.
pub fn publish(file: &std::path::Path, url: &str) -> Running {
    let file = file.to_str().unwrap();
    Running::start("ffmpeg", &["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-f", "flv", url])
}

/// Runs a program to its end, in `seconds` at most.
pub async fn run(seconds: u32, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "2", &seconds.to_string(), program]).args(args).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What ffprobe says of two seconds of `url`: streams, and (stream index, dts in milliseconds) of every packet.
pub async fn probe(url: &str) -> (String, Vec<(u32, i64)>) {
    let args = ["-v", "error", "-rw_timeout", "5000000", "-show_entries", "stream=index,codec_name,profile,width,sample_rate"];
    let packets = ["-show_entries", "packet=stream_index,dts_time", "-read_intervals", "%+2", "-of", "compact=nk=0", url];
    let output = run(15, "ffprobe", &[&args[..], &packets[..]].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "ffprobe {url}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    let field = |line: &str, key: &str| line.split('|').find_map(|f| f.strip_prefix(key).map(str::to_owned));
    let packets = text.lines().filter(|l| l.starts_with("packet|")).filter_map(|line| {
        let dts: f64 = field(line, "dts_time=")?.parse().ok()?;
        Some((field(line, "stream_index=")?.parse().ok()?, (dts * 1000.0).round() as i64))
    });
    (text.lines().filter(|l| l.starts_with("stream|")).collect::<Vec<_>>().join("\n"), packets.collect())
}

/// The largest step between stamps of one stream, milliseconds; panics when one goes back.
pub fn largest_step(packets: &[(u32, i64)], stream: u32) -> i64 {
    let stamps: Vec<i64> = packets.iter().filter(|(s, _)| *s == stream).map(|(_, dts)| *dts).collect();
    assert!(stamps.len() > 20, "{} packets of stream {stream}", stamps.len());
    let steps = stamps.windows(2).map(|w| w[1] - w[0]);
    steps.inspect(|step| assert!(*step >= 0, "a stamp goes back by {step} ms")).max().unwrap_or(0)
}

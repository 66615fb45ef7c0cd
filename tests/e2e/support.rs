//! Starts patchbay and its real peers, waits for what must happen, and stops everything again.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Two cores carry one browser and one source; tests with peers take turns.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A port below the ephemeral range that nobody uses, TCP and UDP.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 21_000 + (std::process::id() % 500) as u16 * 20;
    for _ in 0..200 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000 % (32_000 - base);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port near {base}");
}

/// Polls until `probe` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begin.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// A child process that does not outlive its test.
pub struct Proc(Child);

impl Proc {
    pub fn spawn(command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        Self(
            command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{program} cannot be started ({e}); run scripts/setup.sh test")),
        )
    }

    /// The same, with a pipe to its standard input.
    pub fn fed(command: &mut Command) -> (Self, ChildStdin) {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{program} cannot be started ({e})"));
        let pipe = child.stdin.take().expect("a pipe");
        (Self(child), pipe)
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
    }

    /// Ends it without a goodbye to its peers.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks to stop, and waits for it.
    pub fn stop(mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        self.signal("TERM");
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Ok(Some(status)) = self.0.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running patchbay with its own ports and folder.
pub struct Patchbay {
    process: Option<Proc>,
    pub http: u16,
    pub rtmp: u16,
    /// Port of all WebRTC media; 0 for the demo.
    pub udp: u16,
    log: PathBuf,
    /// The part of its configuration that every test needs.
    listeners: String,
}

impl Patchbay {
    /// Starts with default rules, plus `extra` configuration.
    pub fn start(extra: &str) -> Self {
        Self::announcing(Ipv4Addr::LOCALHOST, extra)
    }

    /// The same, telling WebRTC peers to send to `address`.
    pub fn announcing(address: Ipv4Addr, extra: &str) -> Self {
        let (http, rtmp, udp) = (free_port(), free_port(), free_port());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("patchbay-{http}"));
        std::fs::create_dir_all(&dir).expect("a folder under target");
        let config = dir.join("patchbay.toml");
        let listeners = format!(
            "outbound.allow = [\"127.0.0.0/8\"]\nhttp.listen = \"127.0.0.1:{http}\"\nrtmp.listen = \"127.0.0.1:{rtmp}\"\nwebrtc.listen = \"127.0.0.1:{udp}\"\nwebrtc.public_addresses = [\"{address}\"]\n"
        );
        std::fs::write(&config, format!("{listeners}\n{extra}")).expect("the configuration is written");
        let mut this = Self::launch(&["run", "--config", config.to_str().expect("utf-8 path")], http, rtmp, dir.join("log"));
        this.listeners = listeners;
        this.udp = udp;
        this
    }

    /// Replaces the `extra` part of its configuration file, as a whole.
    pub fn rewrite(&self, extra: &str) {
        let (file, new) = (self.log.with_file_name("patchbay.toml"), self.log.with_file_name("patchbay.toml.new"));
        std::fs::write(&new, format!("{}\n{extra}", self.listeners)).expect("written");
        std::fs::rename(new, file).expect("renamed");
    }

    /// `patchbay demo`.
    pub fn demo() -> Self {
        let (http, rtmp, udp) = (free_port(), free_port(), free_port());
        let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{http}.log"));
        let [h, r, u] = [http, rtmp, udp].map(|p| p.to_string());
        Self::launch(&["demo", "--http-port", &h, "--rtmp-port", &r, "--webrtc-port", &u], http, rtmp, log)
    }

    fn launch(args: &[&str], http: u16, rtmp: u16, log: PathBuf) -> Self {
        let out = File::create(&log).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.args(args).stdout(out.try_clone().expect("dup")).stderr(out);
        let mut this = Self { process: Some(Proc::spawn(&mut command)), http, rtmp, udp: 0, log, listeners: String::new() };
        wait_for("patchbay to be ready", Duration::from_secs(10), || {
            assert!(this.process.as_mut().is_some_and(Proc::is_running), "patchbay ended at start:\n{}", this.log());
            ureq::get(this.url("/readyz")).call().ok().map(|_| ())
        });
        this
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, |p| p.0.id())
    }

    /// Memory in use, KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    pub fn rtmp_url(&self, stream: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{stream}", self.rtmp)
    }

    pub fn get(&self, path: &str) -> Value {
        let mut response = ureq::get(self.url(path)).call().unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()));
        response.body_mut().read_json().expect("JSON")
    }

    /// The ledger's rows of one protocol.
    pub fn pairs(&self, protocol: &str) -> Vec<Value> {
        let all = self.get("/v1/pairs");
        all["pairs"].as_array().expect("pairs").iter().filter(|p| p["protocol"] == protocol).cloned().collect()
    }

    /// The running renditions, as their targets.
    pub fn renditions(&self) -> Vec<String> {
        let all = self.get("/v1/streams");
        let of = |s: &Value| s["renditions"].as_array().expect("renditions").iter().map(|r| text(&r["target"])).collect::<Vec<_>>();
        all["streams"].as_array().expect("streams").iter().flat_map(of).collect()
    }

    /// Waits until `stream` is live with both kinds of track.
    pub fn wait_live(&self, stream: &str) {
        wait_for(&format!("{stream} to be live; log:\n{}", self.log()), Duration::from_secs(15), || {
            let all = self.get("/v1/streams");
            let found = all["streams"].as_array()?.iter().find(|s| s["name"] == stream)?.clone();
            (found["tracks"].as_array()?.len() == 2).then_some(())
        });
    }

    /// Stops it as an operator would.
    pub fn stop(mut self) -> Option<std::process::ExitStatus> {
        self.process.take().and_then(|p| p.stop(Duration::from_secs(10)))
    }
}

impl Drop for Patchbay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- patchbay's log\n{}", self.log());
        }
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A generated test file (fixtures/make.sh).
pub fn fixture(name: &str) -> String {
    let path = root().join("fixtures/out").join(name);
    assert!(path.exists(), "{} is missing; run fixtures/make.sh", path.display());
    path.to_string_lossy().into_owned()
}

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error"]).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Publishes a file in real time, in a loop, without touching its codecs.
pub fn publish(file: &str, url: &str) -> Proc {
    Proc::spawn(ffmpeg().args(["-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-f", "flv", url]))
}

/// Publishes a file over enhanced RTMP in other codecs; `options` say which.
pub fn enhanced(file: &str, url: &str, options: &[&str]) -> Proc {
    let mut command = Command::new(root().join(".venv/bin/python"));
    command.arg(root().join("tests/clients/enhanced_rtmp.py")).args([file, url]).args(options);
    Proc::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Plays with an FFmpeg that announces these FourCCs, and says what it decoded in so many seconds.
#[track_caller]
pub fn play_enhanced(url: &str, announce: &str, seconds: u32) -> Value {
    let mut command = Command::new(root().join(".venv/bin/python"));
    command.arg(root().join("tests/clients/enhanced_play.py")).args([url, "--announce", announce, "--seconds", &seconds.to_string()]);
    let (ok, out, err) = output(&mut command, Duration::from_secs(u64::from(seconds) + 20));
    assert!(ok, "{url} with {announce:?}: {out}{err}");
    serde_json::from_str(&out).expect("JSON")
}

/// Plays with FFmpeg into nothing.
pub fn play(url: &str) -> Proc {
    Proc::spawn(ffmpeg().args(["-rw_timeout", "10000000", "-i", url, "-c", "copy", "-f", "null", "-"]))
}

fn output(command: &mut Command, limit: Duration) -> (bool, String, String) {
    let mut all = Command::new("timeout");
    all.args(["-k", "2", &limit.as_secs().to_string()]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        all.current_dir(dir);
    }
    let out = all.stdin(Stdio::null()).output().expect("timeout(1) runs");
    (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Packets of `url` as ffprobe sees them for some seconds: codec, profile, and time stamps.
pub fn probe(url: &str, seconds: u32) -> Probe {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-rw_timeout", "8000000", "-probesize", "500000", "-analyzeduration", "1000000"]);
    command.args([
        "-show_entries",
        "stream=codec_type,codec_name,profile,width,height,sample_rate,channels:packet=codec_type,pts_time,dts_time,flags",
        "-of",
        "json",
    ]);
    command.args(["-read_intervals", &format!("%+{seconds}"), url]);
    let begin = Instant::now();
    let (ok, out, err) = output(&mut command, Duration::from_secs(u64::from(seconds) + 15));
    let value: Value = serde_json::from_str(&out).unwrap_or_default();
    assert!(ok && value["streams"].is_array(), "ffprobe {url}: {err}{out}");
    Probe { value, took: begin.elapsed() }
}

pub struct Probe {
    pub value: Value,
    pub took: Duration,
}

impl Probe {
    /// Codec of the only stream of that kind; empty if there is none.
    pub fn codec(&self, kind: &str) -> String {
        let streams = self.value["streams"].as_array().expect("streams");
        assert!(streams.len() <= 2, "more than a video and an audio stream: {streams:?}");
        streams.iter().find(|s| s["codec_type"] == kind).map(|s| text(&s["codec_name"])).unwrap_or_default()
    }

    pub fn stream(&self, kind: &str) -> &Value {
        self.value["streams"].as_array().expect("streams").iter().find(|s| s["codec_type"] == kind).expect("a stream of that kind")
    }

    /// DTS of one kind, in seconds.
    pub fn dts(&self, kind: &str) -> Vec<f64> {
        let packets = self.value["packets"].as_array().cloned().unwrap_or_default();
        packets.iter().filter(|p| p["codec_type"] == kind).filter_map(|p| p["dts_time"].as_str()?.parse().ok()).collect()
    }

    /// Asserts that stamps never step back and never leave a hole.
    #[track_caller]
    pub fn assert_continuous(&self, kind: &str, gap_max: f64) {
        let dts = self.dts(kind);
        assert!(dts.len() > 20, "only {} {kind} packets", dts.len());
        for pair in dts.windows(2) {
            let step = pair[1] - pair[0];
            assert!(step >= 0.0 && step <= gap_max, "{kind} stamps step from {} to {}", pair[0], pair[1]);
        }
    }
}

fn run_json(mut command: Command, limit: Duration) -> Value {
    let (ok, out, err) = output(&mut command, limit);
    let start = out.find('{').unwrap_or(0);
    let value: Value = serde_json::from_str(&out[start..]).unwrap_or_default();
    assert!(ok && value.is_object(), "{command:?} failed:\n{out}\n{err}");
    value
}

/// The clients of tests/clients; see its README.
#[derive(Clone, Copy)]
pub enum Client {
    Browser,
    /// Stock jsmpeg in a browser.
    Jsmpeg,
    Aiortc,
    /// FFmpeg, with the stamps read from what it decodes.
    Stamps,
}

impl Client {
    fn command(self, args: &[&str]) -> Command {
        let clients = root().join("tests/clients");
        let (program, script) = match self {
            Self::Browser => ("node".into(), "browser.mjs"),
            Self::Jsmpeg => ("node".into(), "jsmpeg.mjs"),
            Self::Aiortc => (root().join(".venv/bin/python"), "aiortc_client.py"),
            Self::Stamps => (root().join(".venv/bin/python"), "stamp.py"),
        };
        let mut command = Command::new(program);
        command.current_dir(&clients).arg(clients.join(script)).args(args);
        command
    }
}

/// The browser client, to its end.
pub fn browser(args: &[&str], limit: Duration) -> Value {
    run_json(Client::Browser.command(args), limit)
}

/// Stock jsmpeg in a browser, to its end.
pub fn jsmpeg(args: &[&str], limit: Duration) -> Value {
    run_json(Client::Jsmpeg.command(args), limit)
}

/// The aiortc client, to its end.
pub fn aiortc(args: &[&str], limit: Duration) -> Value {
    run_json(Client::Aiortc.command(args), limit)
}

/// The aiortc client in the background.
pub fn aiortc_in_background(args: &[&str]) -> Proc {
    Proc::spawn(Client::Aiortc.command(args).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// The browser client in the background.
pub fn browser_in_background(args: &[&str]) -> Proc {
    Proc::spawn(Client::Browser.command(args).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// A client that measures until it is asked for its report.
pub struct Watching {
    process: Proc,
    what: String,
}

impl Watching {
    /// Starts one that would give up after ten minutes.
    pub fn start(client: Client, args: &[&str]) -> Self {
        let mut command = client.command(args);
        command.args(["--seconds", "600"]).stdout(Stdio::piped()).stderr(Stdio::null());
        Self { process: Proc::spawn(&mut command), what: format!("{command:?}") }
    }

    /// Ends it and reads what it saw.
    pub fn report(mut self) -> Value {
        self.process.signal("USR2");
        wait_for(&format!("the report of {}", self.what), Duration::from_secs(30), || (!self.process.is_running()).then_some(()));
        let mut said = String::new();
        self.process.0.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        let seen: Value = serde_json::from_str(&said).unwrap_or_default();
        assert_eq!(seen["ok"], true, "{}: {said}", self.what);
        seen
    }
}

/// nginx-rtmp as somebody else's server.
pub fn nginx(rtmp: u16, http: u16) -> Proc {
    let mut command = Command::new("bash");
    command.arg(root().join("tests/clients/nginx_rtmp.sh")).args([rtmp.to_string(), http.to_string(), "600".into()]);
    let process = Proc::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("nginx", Duration::from_secs(10), || std::net::TcpStream::connect(("127.0.0.1", rtmp)).ok());
    process
}

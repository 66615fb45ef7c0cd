//! The server under measurement.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::{Figures, Running};

/// A patchbay with ports of its own.
pub struct Hub {
    process: Running,
    pub http: u16,
    pub rtmp: u16,
    pub udp: u16,
}

impl Hub {
    /// Starts one and waits until it is ready; `settings` as for `--set`.
    pub fn start(settings: &[&str]) -> Self {
        let [http, rtmp, udp] = free_ports();
        let listen =
            [format!("http.listen=127.0.0.1:{http}"), format!("rtmp.listen=127.0.0.1:{rtmp}"), format!("webrtc.listen=127.0.0.1:{udp}")];
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command.arg("run").args(listen.iter().map(String::as_str).chain(settings.iter().copied()).flat_map(|s| ["--set", s]));
        let mut process = Running::start(&mut command, &format!("patchbay-{http}.log"));
        while TcpStream::connect(("127.0.0.1", http)).is_err() {
            assert!(process.is_running(), "patchbay ended at its start: {command:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { process, http, rtmp, udp }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.http)
    }

    pub fn rtmp_url(&self, stream: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{stream}", self.rtmp)
    }

    pub fn figures(&self) -> Figures {
        self.process.figures()
    }

    /// A page of the API.
    pub fn get(&self, path: &str) -> Value {
        let mut response = ureq::get(self.url(path)).call().unwrap_or_else(|error| panic!("GET {path}: {error}"));
        response.body_mut().with_config().limit(u64::MAX).read_json().expect("JSON")
    }

    /// The rows of a page of the API.
    pub fn rows(&self, path: &str, name: &str) -> Vec<Value> {
        self.get(path)[name].as_array().cloned().unwrap_or_default()
    }

    /// A metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let mut response = ureq::get(self.url("/metrics")).call().expect("metrics");
        let text = response.body_mut().read_to_string().expect("text");
        let of = |line: &str| line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?.rsplit(' ').next()?.parse::<f64>().ok();
        text.lines().filter_map(of).sum()
    }

    /// The running encoders.
    pub fn renditions(&self) -> Vec<Value> {
        self.rows("/v1/streams", "streams").iter().flat_map(|s| s["renditions"].as_array().cloned().unwrap_or_default()).collect()
    }
}

/// FFmpeg publishes a file in real time, in a loop, as it is.
pub fn publish(file: &str, format: &str, url: &str) -> Running {
    let log = format!("ffmpeg-{}.log", url.rsplit('/').next().unwrap_or_default());
    assert!(std::path::Path::new(file).exists(), "{file} is missing; run fixtures/make.sh all");
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-f", format, url]);
    Running::start(&mut command, &log)
}

/// Below the ephemeral range, free for TCP and UDP.
fn free_ports() -> [u16; 3] {
    let base = 18_000 + (std::process::id() % 250) as u16 * 10;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let mut found = (base..21_000).filter(is_free);
    std::array::from_fn(|_| found.next().expect("a free port"))
}

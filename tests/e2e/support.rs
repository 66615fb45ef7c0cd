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
            "[outbound]\nallow = [\"127.0.0.0/8\"]\n[http]\nlisten = \"127.0.0.1:{http}\"\n[rtmp]\nlisten = \"127.0.0.1:{rtmp}\"\n[webrtc]\nlisten = \"127.0.0.1:{udp}\"\npublic_addresses = [\"{address}\"]\n"

//! Programs of others, started, watched and always ended: a client does not outlive what drives it.
//!
//! Refuses: shells, and waiting without a limit.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How often a program that runs is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a program may take to end when asked; then it is killed.
const GOODBYE_MAX: Duration = Duration::from_secs(3);
/// Longest complaint of a program that is passed on, characters.
const WORDS_MAX: usize = 300;
/// Most that is read of what a program printed, bytes.
const OUTPUT_MAX: u64 = 1 << 20;

/// A folder for what programs write, gone with its value; and what must not be shown of it.
pub struct Workspace {
    folder: PathBuf,
    secrets: Vec<String>,
    files: AtomicU32,
}

impl Workspace {
    pub fn new(secrets: Vec<String>) -> std::io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("patchbay-interop-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, secrets: secrets.into_iter().filter(|s| !s.is_empty()).collect(), files: AtomicU32::new(0) })
    }

    /// A name nobody has yet.
    pub fn file(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}-{what}", self.files.fetch_add(1, Ordering::Relaxed)))
    }

    fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What cannot be removed is in the system's folder for such things.
        _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A program that runs. Dropped, it is asked to end, and killed when it does not.
pub struct Process {
    child: Child,
    printed: PathBuf,
    complaints: PathBuf,
}

impl Process {
    /// Starts it; what it prints is kept in files.
    ///
    /// # Errors
    /// When it cannot be started, in words.
    pub fn start(command: &mut Command, space: &Workspace) -> Result<Self, String> {
        let printed = space.file("out");
        let file = File::create(&printed).map_err(|e| format!("{}: {e}", printed.display()))?;
        Self::spawn(command.stdout(file), printed, space)
    }

    /// The same, with its standard output to read.
    pub fn piped(command: &mut Command, space: &Workspace) -> Result<(Self, ChildStdout), String> {
        let mut process = Self::spawn(command.stdout(Stdio::piped()), space.file("none"), space)?;
        let output = process.child.stdout.take().ok_or("its output cannot be read")?;
        Ok((process, output))
    }

    fn spawn(command: &mut Command, printed: PathBuf, space: &Workspace) -> Result<Self, String> {
        let complaints = space.file("err");
        let file = File::create(&complaints).map_err(|e| format!("{}: {e}", complaints.display()))?;
        let program = command.get_program().to_string_lossy().into_owned();
        // A group of its own, so that what it starts is ended with it.
        let child = command.stdin(Stdio::null()).stderr(file).process_group(0).spawn();
        Ok(Self { child: child.map_err(|e| format!("{program} cannot be started: {e}"))?, printed, complaints })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; `false` when the time is over or all is to stop.
    pub fn ended_by(&mut self, until: Instant, stop: &CancellationToken) -> bool {
        while self.is_running() {
            if Instant::now() > until || stop.is_cancelled() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }

    /// What it printed.
    pub fn printed(&self) -> String {
        read(&self.printed)
    }

    /// What it complained of.
    pub fn complaints(&self) -> String {
        read(&self.complaints)
    }

    /// The last line of its complaints, for people; empty when it had none.
    pub fn last_words(&self, space: &Workspace) -> String {
        let all = self.complaints();
        let line = all.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        space.without_secrets(line.trim()).chars().take(WORDS_MAX).collect()
    }

    fn signal(&self, name: &str) {
        // Its whole group; one that is gone needs none.
        let group = format!("-{}", self.child.id());
        _ = Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("TERM");
            self.ended_by(Instant::now() + GOODBYE_MAX, &CancellationToken::new());
        }
        self.signal("KILL");
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    // A file that is not there has nothing in it.
    _ = File::open(path).and_then(|file| file.take(OUTPUT_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_ended_with_all_it_started_and_its_words_hide_secrets() {
        let space = Workspace::new(vec!["hush".into()]).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", "sleep 60 & echo $!; echo said hush >&2; wait"]);
        let mut process = Process::start(&mut command, &space).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while process.last_words(&space).is_empty() || process.printed().trim().is_empty() {
            assert!(Instant::now() < until, "it never spoke");
            std::thread::sleep(LOOK);
        }
        assert_eq!(process.last_words(&space), "said ***");
        assert!(!process.ended_by(Instant::now(), &CancellationToken::new()));
        let child: u32 = process.printed().trim().parse().unwrap();
        drop(process);
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "the grandchild lives: {state}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let space = Workspace::new(Vec::new()).unwrap();
        let error = Process::start(&mut Command::new("no-such-program"), &space).err().unwrap();
        assert!(error.contains("no-such-program cannot be started"), "{error}");
    }
}

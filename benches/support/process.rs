//! Child processes and what Linux says of them.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process that does not outlive this one.
pub struct Running(Child);

/// What a process holds and has used.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// User and system time so far.
    pub cpu: Duration,
    pub rss_kib: u64,
    pub threads: u64,
    pub descriptors: usize,
}

impl Running {
    /// Starts it without input; what it says goes to a file of that name in target/bench.
    pub fn start(command: &mut Command, log: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
        std::fs::create_dir_all(&folder).expect("a folder under target");
        let out = File::create(folder.join(log)).expect("a file under target");
        let err = out.try_clone().expect("a descriptor");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        Self(child.unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.get_program())))
    }

    pub fn figures(&self) -> Figures {
        figures(self.0.id())
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Of any process of this user.
pub fn figures(id: u32) -> Figures {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_else(|_| panic!("process {id} has ended"));
    let (stat, status) = (read("stat"), read("status"));
    // Behind the name, which may hold anything: fields 14 and 15 of proc(5), in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<u64>().ok()).sum();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    Figures {
        cpu: Duration::from_millis(ticks * 10),
        rss_kib: field("VmRSS:"),
        threads: field("Threads:"),
        descriptors: std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count),
    }
}

//! One row a minute: on standard output for people, and whole as a line of JSON.

use serde_json::{Value, json};

use crate::seen::{Window, middle};

/// How a group of viewers fared in a window.
pub struct Group {
    viewers: usize,
    /// Pictures of what was sent, percent: in the middle and the worst.
    shown_pct: [f64; 2],
    gap_ms: [f64; 2],
    skew_ms: [f64; 2],
    pictures: u64,
    missed: u64,
    ends: u64,
}

impl Group {
    /// Of windows with the number of pictures that each should have had.
    pub fn of<'a>(windows: impl Iterator<Item = (&'a Window, f64)>) -> Self {
        let all: Vec<_> = windows.collect();
        let pair = |values: Vec<f64>, worst: fn(f64, f64) -> f64| {
            let extreme = values.iter().copied().reduce(worst).unwrap_or(f64::NAN);
            [middle(values).unwrap_or(f64::NAN), extreme]
        };
        let further = |a: f64, b: f64| if a.abs() > b.abs() { a } else { b };
        Self {
            viewers: all.len(),
            shown_pct: pair(all.iter().map(|(w, expected)| 100.0 * w.pictures as f64 / expected).collect(), f64::min),
            gap_ms: pair(all.iter().map(|(w, _)| w.gap_ms).collect(), f64::max),
            skew_ms: pair(all.iter().filter_map(|(w, _)| w.skew_ms).collect(), further),
            pictures: all.iter().map(|(w, _)| w.pictures).sum(),
            missed: all.iter().map(|(w, _)| w.missed).sum(),
            ends: all.iter().map(|(w, _)| w.ends).sum(),
        }
    }

    pub fn json(&self) -> Value {
        json!({ "viewers": self.viewers, "pictures": self.pictures, "missed": self.missed, "shown_pct": self.shown_pct, "gap_ms": self.gap_ms, "skew_ms": self.skew_ms, "ends": self.ends })
    }

    fn cells(&self) -> String {
        let ([shown, least], [gap, longest], [skew, furthest]) = (self.shown_pct, self.gap_ms, self.skew_ms);
        format!("{shown:>5.1} {least:>5.1} {gap:>5.0} {longest:>6.0} {skew:>+5.0} {furthest:>+6.0} {:>4}", self.ends)
    }
}

/// The server and the network in a window.
pub struct Row<'a> {
    pub seconds: f64,
    pub network: &'a str,
    pub cpu_s: f64,
    pub rss_mib: f64,
    pub descriptors: usize,
    pub threads: u64,
    /// Of all viewers behind the network.
    pub whep: &'a Group,
    /// Of all players over TCP, on a clean path.
    pub tcp: &'a Group,
    /// The links' estimates, kbit/s, in the middle.
    pub estimate_kbps: f64,
    /// Packets that the network lost, percent.
    pub lost_pct: f64,
    /// CPU of this process: the clients.
    pub clients_cpu_s: f64,
}

const GROUP: &str = "shown worst   gap  worst  skew  worst ends";

impl Row<'_> {
    pub fn head() -> String {
        format!(
            "{:>6} {:<28} {:>6} {:>6} {:>4} {:>3} | WHEP {GROUP:<37} | TCP  {GROUP:<37} | {:>6} {:>5} {:>7}\n{:>6} {:<28} {:>6} {:>6} {:>4} {:>3} | % % ms ms ms ms",
            "s", "network", "CPU s", "MiB", "fds", "thr", "kbit/s", "lost%", "clients", "", "", "/min", "", "", ""
        )
    }

    pub fn line(&self) -> String {
        format!(
            "{:>6.0} {:<28} {:>6.2} {:>6.1} {:>4} {:>3} |      {} |      {} | {:>6.0} {:>5.2} {:>7.2}",
            self.seconds,
            self.network,
            self.cpu_s,
            self.rss_mib,
            self.descriptors,
            self.threads,
            self.whep.cells(),
            self.tcp.cells(),
            self.estimate_kbps,
            self.lost_pct,
            self.clients_cpu_s
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "seconds": self.seconds, "network": self.network, "cpu_s_per_min": self.cpu_s, "rss_mib": self.rss_mib,
            "descriptors": self.descriptors, "threads": self.threads, "whep": self.whep.json(), "tcp": self.tcp.json(),
            "estimate_kbps": self.estimate_kbps, "lost_pct": self.lost_pct, "clients_cpu_s": self.clients_cpu_s,
        })
    }
}

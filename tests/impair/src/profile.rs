//! What one direction of a path does to packets, and how that is written.

use std::str::FromStr;
use std::time::Duration;

/// What one direction does. The default lets everything through at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// Part of the packets that are lost, percent. Datagrams only.
    pub loss: f64,
    /// Mean length of a loss, packets (Gilbert's model); up to 1 every packet is lost on its own.
    pub burst: f64,
    /// How long every packet takes.
    pub delay: Duration,
    /// How much longer at most, evenly spread. Order is kept, as in a queue.
    pub jitter: Duration,
    /// Part of the packets that those behind them overtake, percent. Datagrams only.
    pub reorder: f64,
    /// How much later such a packet comes.
    pub hold: Duration,
    /// Part of the packets that come twice, percent. Datagrams only.
    pub duplicate: f64,
    /// Bit rate of the bottleneck, kbit/s; 0 has none.
    pub rate_kbps: u32,
    /// How much may wait in front of the bottleneck; a datagram behind that is dropped, a TCP sender has to wait.
    pub queue: Duration,
    /// Nothing passes: datagrams are lost, TCP stands still and goes on afterwards.
    pub stall: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            loss: 0.0,
            burst: 1.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            hold: Duration::from_millis(20),
            duplicate: 0.0,
            rate_kbps: 0,
            queue: Duration::from_millis(200),
            stall: false,
        }
    }
}

/// A profile that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum BadProfile {
    /// No such word.
    #[error(
        "`{0}` is unknown; give loss=PERCENT burst=PACKETS delay=MS jitter=MS reorder=PERCENT hold=MS duplicate=PERCENT rate=KBPS queue=MS stall"
    )]
    Unknown(String),
    /// A value out of range, or none.
    #[error("`{0}` needs a number {1}")]
    Value(String, &'static str),
    /// A schedule's step without a time.
    #[error("`{0}` is no step; give SECONDSs: PROFILE, such as `10s: loss=30`")]
    Step(String),
}

/// Longest delay and queue.
const WAIT_MAX_MS: f64 = 60_000.0;

impl Profile {
    /// Sets what `word` says, such as `loss=5`.
    pub fn apply(&mut self, word: &str) -> Result<(), BadProfile> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = |max: f64, range: &'static str| match value.parse::<f64>() {
            Ok(n) if (0.0..=max).contains(&n) => Ok(n),
            _ => Err(BadProfile::Value(word.into(), range)),
        };
        let percent = || number(100.0, "from 0 to 100");
        let wait = || number(WAIT_MAX_MS, "of milliseconds up to 60000").map(|ms| Duration::from_secs_f64(ms / 1e3));
        match key {
            "loss" => self.loss = percent()?,
            "burst" => self.burst = number(1e6, "of packets")?,
            "delay" => self.delay = wait()?,
            "jitter" => self.jitter = wait()?,
            "reorder" => self.reorder = percent()?,
            "hold" => self.hold = wait()?,
            "duplicate" => self.duplicate = percent()?,
            "rate" => self.rate_kbps = number(1e7, "of kbit/s")? as u32,
            "queue" => self.queue = wait()?,
            "stall" if value.is_empty() => self.stall = true,
            _ => return Err(BadProfile::Unknown(word.into())),
        }
        Ok(())
    }
}

/// Words between blanks or commas: `loss=5 delay=40`. `clear` and nothing at all are the default.
impl FromStr for Profile {
    type Err = BadProfile;

    fn from_str(text: &str) -> Result<Self, BadProfile> {
        let mut profile = Self::default();
        let mut words = text.split([' ', ',']).filter(|word| !word.is_empty() && *word != "clear");
        words.try_for_each(|word| profile.apply(word))?;
        Ok(profile)
    }
}

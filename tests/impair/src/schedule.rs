//! What changes when: `0s: loss=5; 10s: up loss=30 delay=80 / down loss=1; 20s: break; 30s: clear`.

use std::str::FromStr;
use std::time::Duration;

use crate::{BadProfile, Profile, Setting};

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a handful of them, read once")]
pub enum Action {
    /// The network changes.
    Set(Setting),
    /// [`crate::Proxy::break_all`].
    Break,
}

/// Steps by time since the start, earliest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    /// When and what.
    pub steps: Vec<(Duration, Action)>,
}

impl FromStr for Schedule {
    type Err = BadProfile;

    fn from_str(text: &str) -> Result<Self, BadProfile> {
        let steps = text.split(';').map(str::trim).filter(|step| !step.is_empty()).map(step);
        let mut steps = steps.collect::<Result<Vec<_>, _>>()?;
        steps.sort_by_key(|(at, _)| *at);
        Ok(Self { steps })
    }
}

fn step(text: &str) -> Result<(Duration, Action), BadProfile> {
    let bad = || BadProfile::Step(text.into());
    let (at, what) = text.split_once(':').ok_or_else(bad)?;
    let seconds: f64 = at.trim().strip_suffix('s').and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    let at = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
    let action = match what.trim() {
        "break" => Action::Break,
        what => Action::Set(setting(what)?),
    };
    Ok((at, action))
}

/// `PROFILE` for both directions, or `up PROFILE / down PROFILE`.
fn setting(text: &str) -> Result<Setting, BadProfile> {
    let mut setting = Setting::default();
    for part in text.split('/').map(str::trim) {
        let (direction, profile) = part.split_once(' ').unwrap_or((part, ""));
        match direction {
            "up" => setting.up = profile.parse()?,
            "down" => setting.down = profile.parse()?,
            _ => setting = Setting::both(part.parse::<Profile>()?),
        }
    }
    Ok(setting)
}

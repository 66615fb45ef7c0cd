//! [`StreamName`]: the canonical, allow-listed name of a stream.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name in bytes.
const LEN_MAX: usize = 128;
/// Most `/`-separated parts.
const PARTS_MAX: usize = 4;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Empty, or an empty part as in `a//b`.
    #[error("stream name has an empty part")]
    Empty,
    /// Over 128 bytes or four parts.
    #[error("stream name is longer than {LEN_MAX} bytes or {PARTS_MAX} parts")]
    TooLong,
    /// A character outside the grammar.
    #[error("stream name may not contain {0:?}; use letters, digits, '-', '_', '.', '~'")]
    Character(char),
    /// A part begins with `.` or `-`.
    #[error("a part of a stream name may not begin with {0:?}")]
    Leading(char),
}

/// A checked stream name: one to four parts of letters (any script), digits, `-`, `_`, `.` and `~`, joined by
/// `/`. No part begins with a dot or a hyphen, so a name is safe as a path and as an argument.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StreamName {
    type Err = BadName;

    fn from_str(s: &str) -> Result<Self, BadName> {
        let s = s.trim_matches('/');
        if s.len() > LEN_MAX || s.split('/').count() > PARTS_MAX {
            return Err(BadName::TooLong);
        }
        for part in s.split('/') {
            let first = part.chars().next().ok_or(BadName::Empty)?;
            if matches!(first, '.' | '-') {
                return Err(BadName::Leading(first));
            }
            if let Some(bad) = part.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))) {
                return Err(BadName::Character(bad));
            }
        }
        Ok(Self(s.into()))
    }
}

impl Borrow<str> for StreamName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_people_type_are_accepted() {
        for name in ["a", "live/demo", "/live/demo/", "live/会议-1", "app/inst/x_y.z~1"] {
            assert_eq!(name.parse::<StreamName>().unwrap().as_str(), name.trim_matches('/'));
        }
    }

    #[test]
    fn names_that_attack_are_refused() {
        let long = "x".repeat(129);
        for name in ["", "a//b", "../x", "a/../b", "-rf", "a;$(id)", "a\0", "a b", "%2e%2e", "a/b/c/d/e", "\u{202e}a", &long] {
            assert!(name.parse::<StreamName>().is_err(), "{name:?}");
        }
    }
}

//! [`Pattern`]: which stream names a rule speaks of.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A pattern of stream names: `*` stands for any run of characters inside a part, `**` for any run across `/`.
/// Matching takes time proportional to name × pattern, whatever both are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    InPart,
    Across,
}

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Nothing would match.
    #[error("a stream pattern may not be empty; leave it out or write \"**\" for every stream")]
    Empty,
    /// Longer than is of any use.
    #[error("a stream pattern may have {max} bytes at most, this one has {0}", max = Pattern::LEN_MAX)]
    TooLong(usize),
}

impl Pattern {
    /// Longest pattern in bytes; one bit of the matcher's state each, and one for the end.
    pub const LEN_MAX: usize = 127;

    /// Matches every name.
    pub fn any() -> Self {
        Self { text: "**".into(), tokens: vec![Token::Across] }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        if self.tokens == [Token::Across] {
            return true;
        }
        // Bit i: the tokens before i have matched what was read so far.
        let mut states = self.skip_empty(1);
        for byte in name.bytes() {
            let mut next = 0u128;
            for (i, token) in self.tokens.iter().enumerate() {
                if states >> i & 1 == 0 {
                    continue;
                }
                next |= match token {
                    Token::Byte(b) if *b == byte => 2 << i,
                    Token::InPart if byte != b'/' => 1 << i,
                    Token::Across => 1 << i,
                    _ => 0,
                };
            }
            states = self.skip_empty(next);
            if states == 0 {
                return false;
            }
        }
        states >> self.tokens.len() & 1 == 1
    }

    /// Wildcards may stand for nothing.
    fn skip_empty(&self, mut states: u128) -> u128 {
        for (i, token) in self.tokens.iter().enumerate() {
            if !matches!(token, Token::Byte(_)) && states >> i & 1 == 1 {
                states |= 2 << i;
            }
        }
        states
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(s: &str) -> Result<Self, BadPattern> {
        match s.len() {
            0 => return Err(BadPattern::Empty),
            n if n > Self::LEN_MAX => return Err(BadPattern::TooLong(n)),
            _ => {}
        }
        let mut tokens = Vec::with_capacity(s.len());
        for byte in s.bytes() {
            match (byte, tokens.last()) {
                (b'*', Some(Token::InPart)) => *tokens.last_mut().unwrap_or(&mut Token::Across) = Token::Across,
                (b'*', Some(Token::Across)) => {}
                (b'*', _) => tokens.push(Token::InPart),
                (b, _) => tokens.push(Token::Byte(b)),
            }
        }
        Ok(Self { text: s.to_owned(), tokens })
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::any()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "StreamPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": Self::LEN_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(name)
    }

    #[test]
    fn one_star_stays_inside_a_part_and_two_cross_parts() {
        assert!(fits("live/*", "live/a") && fits("live/*", "live/"));
        assert!(!fits("live/*", "live/a/b") && !fits("live/*", "live"));
        assert!(fits("live/**", "live/a/b") && fits("**", "") && fits("**/hd", "a/b/hd"));
        assert!(fits("*/cam-*-hd", "room/cam-7-hd") && !fits("*/cam-*-hd", "room/x/cam-7-hd"));
        assert!(fits("a*b**c", "aXbY/Zc") && !fits("a*b**c", "a/bc"));
        assert!(!fits("live", "live2") && !fits("live2", "live"));
    }

    #[test]
    fn many_wildcards_cost_no_more_than_few() {
        let pattern: Pattern = "*a".repeat(63).parse().unwrap();
        assert!(!pattern.matches(&"a".repeat(4_000).replace("aaaa", "aaab")));
    }

    #[test]
    fn patterns_have_limits() {
        assert_eq!("".parse::<Pattern>(), Err(BadPattern::Empty));
        assert_eq!("x".repeat(128).parse::<Pattern>(), Err(BadPattern::TooLong(128)));
        assert!(fits(&"x".repeat(127), &"x".repeat(127)));
    }
}

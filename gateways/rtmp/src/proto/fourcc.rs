//! [`FourCcs`]: the codecs that a peer names in `connect` or in the answer to it (enhanced RTMP v2, "Enhancing
//! NetConnection connect Command").
//!
//! Refuses: to judge names. What cannot be a FourCC is left out, and of a long list the end.

use super::amf0::Value;

/// What is read from publishers and can be sent to players.
pub const CARRIED: [&[u8; 4]; 9] = [b"avc1", b"hvc1", b"av01", b"vp08", b"vp09", b"mp4a", b".mp3", b"Opus", b"fLaC"];
/// Most names that are kept.
const NAMES_MAX: usize = 64;
/// In a map: it decodes the codec, or hands it on to those who do (`FourCcInfoMask`).
const DECODES_OR_FORWARDS: u32 = 1 | 4;
/// Stands for every codec.
const ANY: &str = "*";

/// Which codecs a peer takes, as it says; empty when it says nothing, which means that it knows none of this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FourCcs {
    /// Each with whether it is taken.
    named: Vec<([u8; 4], bool)>,
    /// Whether those not named are.
    others: bool,
}

impl FourCcs {
    /// Reads `fourCcList`, `videoFourCcInfoMap` and `audioFourCcInfoMap` of an object; the maps count where both speak.
    pub fn read(object: &Value) -> Self {
        let mut this = Self::default();
        for key in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
            let Some(Value::Object(map) | Value::EcmaArray(map)) = object.get(key) else { continue };
            for (name, mask) in map {
                this.add(name, mask.as_number().is_some_and(|mask| mask as u32 & DECODES_OR_FORWARDS != 0));
            }
        }
        if let Some(Value::StrictArray(list)) = object.get("fourCcList") {
            list.iter().filter_map(Value::as_str).for_each(|name| this.add(name, true));
        }
        this
    }

    /// `fourCcList` with what is [`CARRIED`].
    pub fn carried() -> (&'static str, Value) {
        ("fourCcList", Value::StrictArray(CARRIED.iter().map(|name| Value::string(String::from_utf8_lossy(*name))).collect()))
    }

    /// The first word on a codec counts.
    fn add(&mut self, name: &str, taken: bool) {
        if name == ANY {
            self.others |= taken;
        } else if let Ok(fourcc) = name.as_bytes().try_into()
            && self.named.len() < NAMES_MAX
            && !self.named.iter().any(|(known, _)| *known == fourcc)
        {
            self.named.push((fourcc, taken));
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && !self.others
    }

    /// Whether it takes a codec.
    pub fn takes(&self, fourcc: [u8; 4]) -> bool {
        self.named.iter().find(|(known, _)| *known == fourcc).map_or(self.others, |(_, taken)| *taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Value {
        Value::StrictArray(names.iter().map(|name| Value::string(*name)).collect())
    }

    #[test]
    fn a_list_names_what_is_taken() {
        let said = FourCcs::read(&Value::object([("fourCcList", list(&["hvc1", "too long", "", "Opus"]))]));
        assert!(said.takes(*b"hvc1") && said.takes(*b"Opus") && !said.takes(*b"av01") && !said.is_empty());
        let all = FourCcs::read(&Value::object([("fourCcList", list(&["*"]))]));
        assert!(all.takes(*b"av01") && !all.is_empty());
        assert!(FourCcs::read(&Value::object([FourCcs::carried()])).takes(*b"vp09"));
    }

    #[test]
    fn maps_say_what_each_is_good_for_and_count_before_the_list() {
        let map = |entries: &[(&str, f64)]| {
            Value::EcmaArray(entries.iter().map(|(name, mask)| ((*name).to_owned(), Value::Number(*mask))).collect())
        };
        let said = FourCcs::read(&Value::object([
            ("fourCcList", list(&["hvc1", "av01"])),
            ("videoFourCcInfoMap", map(&[("*", 4.0), ("hvc1", 2.0), ("vp09", 3.0), ("vp08", f64::NAN)])),
            ("audioFourCcInfoMap", map(&[("Opus", 1.0)])),
        ]));
        assert!(!said.takes(*b"hvc1"), "it only encodes it");
        for taken in [b"av01", b"vp09", b"Opus", b"xyz1"] {
            assert!(said.takes(*taken), "{taken:?}");
        }
        assert!(!said.takes(*b"vp08"));
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for odd in [Value::Null, Value::string("hvc1"), Value::object([("hvc1", Value::Number(1.0))])] {
            assert!(
                FourCcs::read(&Value::object([("fourCcList", odd.clone()), ("videoFourCcInfoMap", Value::Null)])).is_empty(),
                "{odd:?}"
            );
        }
        let many: Vec<String> = (0..2_000).map(|n| format!("{n:04}")).collect();
        let many = FourCcs::read(&Value::object([("fourCcList", Value::StrictArray(many.iter().map(Value::string).collect()))]));
        assert_eq!(many.named.len(), NAMES_MAX);
    }
}

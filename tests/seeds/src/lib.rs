//! The saved inputs of the fuzz targets (`fuzz/seeds`), replayed in the ordinary tests of the crates that own the targets.
//!
//! Owns: finding them, and making more of each. Refuses: to know any target.

use std::path::{Path, PathBuf};

/// Fewer saved inputs than this and a target has been forgotten.
const INPUTS_MIN: usize = 5;
/// Damaged and shortened copies that are made of one input, of each kind.
const COPIES: usize = 64;

/// A fuzz target with its name.
pub type Target<'a> = (&'a str, fn(&[u8]));

/// What [`replay`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Saved inputs.
    pub saved: usize,
    /// Inputs made of them.
    pub made: usize,
}

/// Runs every target on its saved inputs, and on each cut short and damaged at places spread over it. A target returns,
/// whatever the bytes are.
#[track_caller]
pub fn replay(targets: &[Target<'_>]) -> Vec<Replayed> {
    targets.iter().map(|(name, target)| replay_one(name, *target)).collect()
}

#[track_caller]
fn replay_one(name: &str, target: fn(&[u8])) -> Replayed {
    let mut done = Replayed { saved: 0, made: 0 };
    for path in saved(name) {
        let data = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        target(&data);
        done.saved += 1;
        for place in (0..data.len()).step_by(1 + data.len() / COPIES) {
            target(&data[..place]);
            let mut damaged = data.clone();
            damaged[place] ^= 0xFF;
            target(&damaged);
            done.made += 2;
        }
    }
    assert!(done.saved >= INPUTS_MIN, "{} saved inputs for {name}, there must be {INPUTS_MIN}", done.saved);
    println!("replayed {name}: {} saved, {} made of them", done.saved, done.made);
    done
}

#[track_caller]
fn saved(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a folder that can be read").path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_input_is_many() {
        let done = replay(&[("amf0", |_| {})]);
        assert!(done[0].made > done[0].saved, "{done:?}");
    }

    #[test]
    #[should_panic(expected = "damaged")]
    fn what_a_target_does_is_not_hidden() {
        replay(&[("amf0", |bytes| assert_ne!(bytes.first(), Some(&!0x02), "damaged"))]);
    }

    #[test]
    #[should_panic(expected = "no_such_target")]
    fn a_target_without_inputs_is_noticed() {
        replay(&[("no_such_target", |_| {})]);
    }
}

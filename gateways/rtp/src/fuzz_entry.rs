//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use bytes::Bytes;
use patchbay_media::MediaTime;
use patchbay_media::h264::{AccessUnit, ParameterSets};

use crate::{h264, opus};

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 1] = [("rtp_payloads", rtp_payloads)];

/// A packet of sound, and an access unit cut into payloads of at most eight times the first byte; as it is, and as an ingest
/// would have brought it into the bus's layout.
pub fn rtp_payloads(data: &[u8]) {
    let Some((limit, data)) = data.split_first() else { return };
    assert!(opus::duration(data).is_none_or(|t| t > MediaTime::ZERO && t <= MediaTime::from_millis(120)));
    let limit = usize::from(*limit) * 8;
    let mut sets = ParameterSets::default();
    let unit = AccessUnit::from_annex_b(data, &mut sets);
    for frame in [unit.payload, Bytes::copy_from_slice(data)] {
        for payload in h264::packetise(&frame, Some(&sets), limit).iter() {
            assert!(!payload.is_empty() && payload.len() <= limit.max(64));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn saved_inputs_are_survived() {
        patchbay_seeds::replay(&super::TARGETS);
    }
}

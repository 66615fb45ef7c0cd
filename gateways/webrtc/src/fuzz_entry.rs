//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use crate::sdp::{Fragment, Offer, Role};
use crate::stun;

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 2] = [("sdp", sdp), ("stun", stun)];

/// An offer in both roles, and a trickle fragment. An offer that was taken is taken again as it was trimmed.
pub fn sdp(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for role in [Role::Publish, Role::Play] {
        if let Ok(offer) = Offer::read(&text, role) {
            let again = Offer::read(&offer.text, role);
            assert_eq!(again.as_ref(), Ok(&offer));
        }
    }
    // Refused or not, it is read to its end.
    _ = Fragment::read(&text);
}

/// The first bytes of a datagram from anybody.
pub fn stun(data: &[u8]) {
    if let Some(ufrag) = stun::local_ufrag(data) {
        assert!(stun::is_stun(data) && ufrag.len() <= data.len() && !ufrag.contains(':'));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn saved_inputs_are_survived() {
        patchbay_seeds::replay(&super::TARGETS);
    }
}

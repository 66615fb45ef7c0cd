//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use crate::sdp::{Fragment, Offer, Role};
use crate::stun;
use crate::tcp::framing;

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 3] = [("sdp", sdp), ("stun", stun), ("tcp_frames", tcp_frames)];

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
    let is_plain = stun::plain_request(data).is_some();
    if let Some(ufrag) = stun::local_ufrag(data) {
        assert!(!is_plain);
        assert!(stun::is_stun(data) && ufrag.len() <= data.len() && !ufrag.contains(':'));
    }
}

/// A byte stream of RFC 4571, in one piece and cut in two: the same datagrams come out.
pub fn tcp_frames(data: &[u8]) {
    let Ok(end) = framing::whole(data) else { return };
    let frames: Vec<_> = framing::datagrams(&data[..end]).collect();
    assert_eq!(frames.iter().map(|frame| frame.len() + 2).sum::<usize>(), end);
    assert!(frames.iter().all(|frame| (framing::FRAME_MIN..=framing::FRAME_MAX).contains(&frame.len())));
    let cut = framing::whole(&data[..end / 2]).expect("what was good in one piece");
    let pieces = framing::datagrams(&data[..cut]).chain(framing::datagrams(&data[cut..end]));
    assert!(pieces.eq(frames));
}

#[cfg(test)]
mod tests {
    #[test]
    fn saved_inputs_are_survived() {
        patchbay_seeds::replay(&super::TARGETS);
    }
}

//! Datagrams on a byte stream: two bytes of length before each (RFC 4571 §2).

/// Shortest datagram: a header of RTP. Those of STUN, DTLS and SRTCP are longer.
pub(crate) const FRAME_MIN: usize = 12;
/// Longest datagram; those of ICE, DTLS and SRTP fit an Ethernet frame.
pub(crate) const FRAME_MAX: usize = 2_048;

/// What follows is no datagram of a WebRTC peer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is announced; {FRAME_MIN} to {FRAME_MAX} are taken")]
pub(crate) struct BadLength(usize);

/// How many of the first bytes are whole frames.
pub(crate) fn whole(bytes: &[u8]) -> Result<usize, BadLength> {
    let mut end = 0;
    while let Some((head, rest)) = bytes[end..].split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*head));
        if !(FRAME_MIN..=FRAME_MAX).contains(&length) {
            return Err(BadLength(length));
        }
        if rest.len() < length {
            break;
        }
        end += head.len() + length;
    }
    Ok(end)
}

/// The datagrams of whole frames.
pub(crate) fn datagrams(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk()?;
        let (datagram, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*head)))?;
        bytes = rest;
        Some(datagram)
    })
}

/// Appends a frame; `false` when it is too long to be one.
pub(crate) fn append(bytes: &mut Vec<u8>, datagram: &[u8]) -> bool {
    let Ok(length) = u16::try_from(datagram.len()) else { return false };
    bytes.extend(length.to_be_bytes());
    bytes.extend(datagram);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_taken_and_the_beginning_of_the_next_is_left() {
        let mut bytes = Vec::new();
        assert!(append(&mut bytes, &[1; FRAME_MIN]) && append(&mut bytes, &[2; 13]) && append(&mut bytes, &[7; FRAME_MAX]));
        let all = bytes.len();
        for cut in 0..=all {
            let end = whole(&bytes[..cut]).unwrap();
            let lengths: Vec<_> = datagrams(&bytes[..end]).map(<[u8]>::len).collect();
            let expected: &[usize] = match cut {
                ..14 => &[],
                14..29 => &[FRAME_MIN],
                29.. if cut < all => &[FRAME_MIN, 13],
                _ => &[FRAME_MIN, 13, FRAME_MAX],
            };
            assert_eq!(lengths, expected, "{cut} bytes");
        }
    }

    #[test]
    fn a_length_that_nobody_needs_is_refused_before_it_has_come() {
        for length in [0, 1, FRAME_MIN - 1, FRAME_MAX + 1, usize::from(u16::MAX)] {
            let mut bytes = Vec::new();
            append(&mut bytes, &[7; FRAME_MIN]);
            bytes.extend((length as u16).to_be_bytes());
            assert_eq!(whole(&bytes), Err(BadLength(length)));
        }
        let mut bytes = Vec::new();
        assert!(!append(&mut bytes, &[0; 1 << 16]));
    }
}

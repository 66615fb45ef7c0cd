//! Datagrams on a byte stream: two bytes of length before each (RFC 4571 §2).

/// Longest datagram; those of ICE, DTLS and SRTP fit an Ethernet frame.
pub(crate) const FRAME_MAX: usize = 2_048;

/// What follows is no datagram of a WebRTC peer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is announced; at most {FRAME_MAX} are taken")]
pub(crate) struct TooLong(usize);

/// How many of the first bytes are whole frames.
pub(crate) fn whole(bytes: &[u8]) -> Result<usize, TooLong> {
    let mut end = 0;
    while let Some((head, rest)) = bytes[end..].split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*head));
        if length > FRAME_MAX {
            return Err(TooLong(length));
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
        assert!(append(&mut bytes, b"one") && append(&mut bytes, b"") && append(&mut bytes, &[7; FRAME_MAX]));
        let all = bytes.len();
        for cut in 0..=all {
            let end = whole(&bytes[..cut]).unwrap();
            let lengths: Vec<_> = datagrams(&bytes[..end]).map(<[u8]>::len).collect();
            let expected: &[usize] = match cut {
                ..5 => &[],
                5..7 => &[3],
                7.. if cut < all => &[3, 0],
                _ => &[3, 0, FRAME_MAX],
            };
            assert_eq!(lengths, expected, "{cut} bytes");
        }
    }

    #[test]
    fn a_length_that_nobody_needs_is_refused_before_it_has_come() {
        let mut bytes = vec![0, 1, 9];
        bytes.extend((FRAME_MAX as u16 + 1).to_be_bytes());
        assert_eq!(whole(&bytes), Err(TooLong(FRAME_MAX + 1)));
        assert!(!append(&mut bytes, &[0; 1 << 16]));
    }
}

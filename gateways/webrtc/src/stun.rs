//! The one thing read from STUN before a session is known: whose it is. Everything else is str0m's.

const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0, 1];
const USERNAME: u16 = 0x0006;
/// Longest USERNAME (RFC 8489 §14.3).
const USERNAME_MAX: usize = 513;

/// Whether a datagram is of the STUN range (RFC 7983 §7).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|&b| b < 4)
}

/// The ufrag of ours that a binding request names: what stands before the colon of its USERNAME (RFC 8445 §7.2.2).
pub(crate) fn local_ufrag(datagram: &[u8]) -> Option<&str> {
    let head = datagram.get(..HEADER)?;
    let declared = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[..2] != BINDING_REQUEST || head[4..8] != MAGIC_COOKIE || declared != datagram.len() - HEADER {
        return None;
    }
    let mut rest = &datagram[HEADER..];
    while let Some((attribute, after)) = rest.split_at_checked(4) {
        let len = usize::from(u16::from_be_bytes([attribute[2], attribute[3]]));
        if u16::from_be_bytes([attribute[0], attribute[1]]) == USERNAME {
            let name = after.get(..len).filter(|n| n.len() <= USERNAME_MAX)?;
            return std::str::from_utf8(name).ok()?.split_once(':').map(|(ours, _)| ours);
        }
        rest = after.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend(kind.to_be_bytes());
            body.extend((value.len() as u16).to_be_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut out = vec![0, 1];
        out.extend((body.len() as u16).to_be_bytes());
        out.extend(MAGIC_COOKIE);
        out.extend([7; 12]);
        out.extend(body);
        out
    }

    #[test]
    fn the_part_before_the_colon_is_ours() {
        let datagram = request(&[(0x8022, b"agent"), (USERNAME, b"ours:theirs"), (0x24, &[0; 4])]);
        assert_eq!(local_ufrag(&datagram), Some("ours"));
    }

    #[test]
    fn garbage_names_nobody() {
        let good = request(&[(0x8022, b"agent"), (USERNAME, b"ours:theirs")]);
        for len in 0..good.len() {
            assert_eq!(local_ufrag(&good[..len]), None, "{len} bytes");
        }
        assert_eq!(local_ufrag(&request(&[(USERNAME, b"nocolon")])), None);
        assert_eq!(local_ufrag(&request(&[(USERNAME, &[0xff, b':'])])), None);
        assert_eq!(local_ufrag(&request(&[(USERNAME, &[b'a'; 600])])), None);
        let mut lying = request(&[(0x8022, b"agent")]);
        lying[23] = 0xff;
        assert_eq!(local_ufrag(&lying), None);
    }
}

//! What is read from STUN before a session is known: whose it is, or that it is for none. Everything else is str0m's.

const HEADER: usize = 20;
pub(crate) const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: [u8; 2] = [0, 1];
const USERNAME: u16 = 0x0006;
/// Attributes from here on may be ignored.
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
/// Longest USERNAME (RFC 8489 §14.3).
const USERNAME_MAX: usize = 513;

/// Whether a datagram is of the STUN range (RFC 7983 §7).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|&b| b < 4)
}

/// Attributes in their order; `None` for what does not fit.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        let (head, after) = self.0.split_at_checked(4)?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = after.get(..len);
        self.0 = after.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(value.map(|value| (u16::from_be_bytes([head[0], head[1]]), value)))
    }
}

/// The attributes of a binding request.
fn attributes(datagram: &[u8]) -> Option<Attributes<'_>> {
    let head = datagram.get(..HEADER)?;
    let declared = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let is_request = head[..2] == BINDING_REQUEST && head[4..8] == MAGIC_COOKIE && declared == datagram.len() - HEADER;
    is_request.then(|| Attributes(&datagram[HEADER..]))
}

/// The ufrag of ours that a binding request names: what stands before the colon of its USERNAME (RFC 8445 §7.2.2).
pub(crate) fn local_ufrag(datagram: &[u8]) -> Option<&str> {
    for attribute in attributes(datagram)? {
        let (kind, value) = attribute?;
        if kind == USERNAME {
            let name = Some(value).filter(|n| n.len() <= USERNAME_MAX)?;
            return std::str::from_utf8(name).ok()?.split_once(':').map(|(ours, _)| ours);
        }
    }
    None
}

/// The transaction of a binding request that asks for nothing that has to be understood (RFC 8489 §14).
pub(crate) fn plain_request(datagram: &[u8]) -> Option<[u8; 12]> {
    let is_plain = attributes(datagram)?.all(|attribute| attribute.is_some_and(|(kind, _)| kind >= COMPREHENSION_OPTIONAL));
    is_plain.then(|| datagram[8..HEADER].try_into().ok()).flatten()
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

//! H.264 payload format (RFC 6184), packetization-mode 1: single NAL units, STAP-A and FU-A.
//!
//! Packets of one NAL unit are made equally long, so that a peer's share of a frame can leave as one segmented
//! (GSO) message.

use bytes::{BufMut, Bytes, BytesMut};
use patchbay_media::h264::{ParameterSets, nals};

use crate::Payloads;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const NRI: u8 = 0x60;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
/// FU indicator and FU header.
const FU_HEAD: usize = 2;
/// Smallest limit that still makes progress with every unit.
const LIMIT_MIN: usize = 64;

/// Makes the payloads of one access unit (`frame`: NAL units with 4-byte length prefixes), none longer than `limit`
/// bytes (at least 64). `sets` go first; give them with every key frame, so that a receiver can begin there.
pub fn packetise(frame: &Bytes, sets: Option<&ParameterSets>, limit: usize) -> Payloads {
    let sets_size: usize = sets.map_or(0, |s| s.sps.iter().chain(&s.pps).map(|set| set.len() + 4).sum());
    let mut packer = Packer {
        limit: limit.max(LIMIT_MIN),
        out: BytesMut::with_capacity(frame.len() + sets_size + 64),
        ends: Vec::with_capacity(frame.len() / limit.max(LIMIT_MIN) + 2),
        small: Vec::new(),
        small_size: 1,
    };
    for set in sets.into_iter().flat_map(|s| s.sps.iter().chain(&s.pps)) {
        packer.unit(set.clone());
    }
    for nal in nals(frame) {
        packer.unit(nal);
    }
    packer.flush();
    Payloads::new(packer.out.freeze(), packer.ends)
}

struct Packer {
    limit: usize,
    out: BytesMut,
    ends: Vec<usize>,
    /// Units waiting to share a STAP-A.
    small: Vec<Bytes>,
    /// Size of that STAP-A.
    small_size: usize,
}

impl Packer {
    fn unit(&mut self, nal: Bytes) {
        if nal.is_empty() {
            return;
        }
        if nal.len() > self.limit {
            self.flush();
            self.fragment(&nal);
            return;
        }
        if self.small_size + 2 + nal.len() > self.limit {
            self.flush();
        }
        self.small_size += 2 + nal.len();
        self.small.push(nal);
    }

    /// Sends what waits: alone as a single NAL unit packet, together as STAP-A.
    fn flush(&mut self) {
        match self.small.as_slice() {
            [] => return,
            [one] => self.out.put_slice(one),
            many => {
                let nri = many.iter().map(|nal| nal[0] & NRI).max().unwrap_or(0);
                self.out.put_u8(nri | STAP_A);
                for nal in many {
                    // A unit here is below `limit`; the caller's limit is a packet's, far below 64 KiB.
                    self.out.put_u16(nal.len() as u16);
                    self.out.put_slice(nal);
                }
            }
        }
        self.small.clear();
        self.small_size = 1;
        self.ends.push(self.out.len());
    }

    fn fragment(&mut self, nal: &Bytes) {
        let (head, body) = (nal[0], &nal[1..]);
        let count = body.len().div_ceil(self.limit - FU_HEAD);
        let each = body.len().div_ceil(count);
        let mut flag = FU_START;
        let mut rest = body;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(each.min(rest.len()));
            if after.is_empty() {
                flag |= FU_END;
            }
            self.out.put_u8(head & 0xe0 | FU_A);
            self.out.put_u8(flag | head & 0x1f);
            self.out.put_slice(piece);
            self.ends.push(self.out.len());
            flag = 0;
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(units: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        for unit in units {
            out.put_u32(unit.len() as u32);
            out.put_slice(unit);
        }
        out.freeze()
    }

    /// Written from RFC 6184 §5.7 and §5.8, not from the code above.
    fn depacketise(payloads: &Payloads) -> Vec<Vec<u8>> {
        let mut units: Vec<Vec<u8>> = Vec::new();
        let mut open = false;
        for payload in payloads.iter() {
            match payload[0] & 0x1f {
                24 => {
                    let mut rest = &payload[1..];
                    while !rest.is_empty() {
                        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                        units.push(rest[2..2 + len].to_vec());
                        rest = &rest[2 + len..];
                    }
                }
                28 => {
                    let (start, end) = (payload[1] & 0x80 != 0, payload[1] & 0x40 != 0);
                    assert_ne!(start, open, "a fragment begins when none is open");
                    assert!(!(start && end), "a unit that fits is not fragmented");
                    if start {
                        units.push(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
                    }
                    units.last_mut().unwrap().extend_from_slice(&payload[2..]);
                    open = !end;
                }
                1..=23 => units.push(payload.to_vec()),
                other => panic!("packet type {other}"),
            }
        }
        assert!(!open);
        units
    }

    fn unit() -> impl Strategy<Value = Vec<u8>> {
        let body = prop_oneof![4 => proptest::collection::vec(any::<u8>(), 0..200), 1 => proptest::collection::vec(any::<u8>(), 0..9_000)];
        ((0u8..4, 1u8..13), body).prop_map(|((nri, kind), mut body)| {
            body.insert(0, nri << 5 | kind);
            body
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_the_same_units_within_the_limit(
            units in proptest::collection::vec(unit(), 1..12),
            limit in 64usize..1_500,
        ) {
            let payloads = packetise(&frame(&units), None, limit);
            prop_assert!(payloads.iter().all(|p| p.len() <= limit && !p.is_empty()));
            prop_assert_eq!(depacketise(&payloads), units);
        }
    }

    #[test]
    fn a_large_slice_becomes_equal_packets() {
        let payloads = packetise(&frame(&[vec![0x41; 5_000]]), None, crate::PAYLOAD_MAX);
        let sizes: Vec<_> = payloads.iter().map(|p| p.len()).collect();
        assert_eq!(sizes, [1_002, 1_002, 1_002, 1_002, 1_001]);
    }

    #[test]
    fn parameter_sets_lead_a_key_frame_in_one_aggregate() {
        let sets = ParameterSets { sps: vec![Bytes::from_static(&[0x67, 1, 2])], pps: vec![Bytes::from_static(&[0x68, 3])] };
        let payloads = packetise(&frame(&[vec![0x65; 3_000]]), Some(&sets), crate::PAYLOAD_MAX);
        assert_eq!(payloads.iter().next().unwrap()[..], [0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 3]);
        assert_eq!(payloads.len(), 1 + 3);
    }

    #[test]
    fn a_lying_length_ends_the_unit_list_without_a_packet() {
        assert!(packetise(&Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]), None, 1_180).is_empty());
    }
}

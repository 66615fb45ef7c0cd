//! The simple RTMP handshake (RTMP 1.0 section 5.2), both sides.
//!
//! Owns the 1 + 1536 + 1536 bytes before the chunk stream. A first packet that carries the digest
//! of the undocumented "complex" handshake is answered the simple way, which every known client
//! accepts. Refuses RTMPE, TLS and HTTP on the port by name.

use bytes::{Buf, Bytes, BytesMut};

/// Length of C1, S1, C2 and S2 in bytes.
pub const PACKET_LEN: usize = 1536;
/// The only protocol version that is spoken.
pub const VERSION: u8 = 3;

/// Why the first byte already ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Version outside 3..=31.
    #[error("version {0} is not RTMP")]
    Version(u8),
    /// Versions 6, 8 and 9 are the encrypted RTMPE.
    #[error("RTMPE (version {0}) is not supported")]
    Encrypted(u8),
    /// The first byte is that of a TLS record.
    #[error("TLS on a plain RTMP port")]
    Tls,
    /// The first byte is that of an HTTP request.
    #[error("HTTP on an RTMP port")]
    Http,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    First,
    Second,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// One side of the handshake.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    stage: Stage,
    seed: u64,
    partial: BytesMut,
}

impl Handshake {
    /// The accepting side. `seed` fills the random part of S1; it guards nothing.
    pub fn server(seed: u64) -> Self {
        Self::new(Role::Server, seed)
    }

    /// The dialling side; writes C0 and C1 to `out` at once.
    pub fn client(seed: u64, out: &mut BytesMut) -> Self {
        let this = Self::new(Role::Client, seed);
        this.write_first(out);
        this
    }

    fn new(role: Role, seed: u64) -> Self {
        Self { role, stage: Stage::Version, seed, partial: BytesMut::new() }
    }

    /// True once the chunk stream may start.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Takes handshake bytes from the front of `input` and leaves the rest; answers go to `out`.
    /// Returns true when the handshake is complete.
    pub fn receive(&mut self, input: &mut Bytes, out: &mut BytesMut) -> Result<bool, HandshakeError> {
        while !input.is_empty() {
            match self.stage {
                Stage::Version => {
                    check_version(input.get_u8())?;
                    self.stage = Stage::First;
                }
                Stage::First => {
                    if !self.fill(input) {
                        break;
                    }
                    // S2 and C2 are the other side's first packet, sent back as it came. The
                    // second time field stays as it is: no peer reads it.
                    if self.role == Role::Server {
                        self.write_first(out);
                    }
                    out.extend_from_slice(&self.partial);
                    self.partial.clear();
                    self.stage = Stage::Second;
                }
                Stage::Second => {
                    if !self.fill(input) {
                        break;
                    }
                    // The echo is not compared: clients that tried the digest form answer with a
                    // digest here, and a mismatch proves nothing.
                    self.partial = BytesMut::new();
                    self.stage = Stage::Done;
                }
                Stage::Done => break,
            }
        }
        Ok(self.is_done())
    }

    /// Collects one packet; true when it is whole.
    fn fill(&mut self, input: &mut Bytes) -> bool {
        let missing = PACKET_LEN - self.partial.len();
        let part = input.split_to(missing.min(input.len()));
        self.partial.extend_from_slice(&part);
        self.partial.len() == PACKET_LEN
    }

    fn write_first(&self, out: &mut BytesMut) {
        out.reserve(1 + PACKET_LEN);
        out.extend_from_slice(&[VERSION]);
        // Time 0, then the zero that says "no digest in here".
        out.extend_from_slice(&[0; 8]);
        let mut state = self.seed;
        for _ in 0..(PACKET_LEN - 8) / 8 {
            out.extend_from_slice(&splitmix64(&mut state).to_be_bytes());
        }
    }
}

fn check_version(version: u8) -> Result<(), HandshakeError> {
    match version {
        6 | 8 | 9 => Err(HandshakeError::Encrypted(version)),
        // A 4..=31 peer speaks something newer; section 5.2.2 says to answer 3 and let it decide.
        3..=31 if version != 0x16 => Ok(()),
        0x16 => Err(HandshakeError::Tls),
        b'G' | b'P' | b'H' | b'D' | b'O' | b'C' | b'T' => Err(HandshakeError::Http),
        _ => Err(HandshakeError::Version(version)),
    }
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_finish_when_bytes_arrive_one_by_one() {
        let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
        let mut client = Handshake::client(1, &mut to_server);
        let mut server = Handshake::server(2);
        for _ in 0..2 {
            for byte in to_server.split().freeze() {
                let mut one = Bytes::copy_from_slice(&[byte]);
                server.receive(&mut one, &mut to_client).unwrap();
            }
            for byte in to_client.split().freeze() {
                let mut one = Bytes::copy_from_slice(&[byte]);
                client.receive(&mut one, &mut to_server).unwrap();
            }
        }
        assert!(client.is_done() && server.is_done());
    }

    #[test]
    fn bytes_after_the_handshake_are_left_alone() {
        let mut all = BytesMut::new();
        Handshake::client(1, &mut all);
        all.extend_from_slice(&[9; PACKET_LEN]);
        all.extend_from_slice(b"rest");
        let mut input = all.freeze();
        let mut out = BytesMut::new();
        let mut server = Handshake::server(0);
        assert!(server.receive(&mut input, &mut out).unwrap());
        assert_eq!(&input[..], b"rest");
        assert_eq!(out.len(), 1 + 2 * PACKET_LEN);
    }

    #[test]
    fn wrong_first_bytes_are_named() {
        for (byte, error) in [
            (0, HandshakeError::Version(0)),
            (2, HandshakeError::Version(2)),
            (6, HandshakeError::Encrypted(6)),
            (255, HandshakeError::Version(255)),
            (0x16, HandshakeError::Tls),
            (b'G', HandshakeError::Http),
        ] {
            let mut input = Bytes::copy_from_slice(&[byte]);
            let got = Handshake::server(0).receive(&mut input, &mut BytesMut::new());
            assert_eq!(got, Err(error), "first byte {byte}");
        }
    }
}

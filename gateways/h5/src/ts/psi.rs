//! Program association and program map tables (ISO/IEC 13818-1 §2.4.4): sections written, gathered from packets and read.
//!
//! Refuses: other tables, descriptors, sections whose CRC is wrong.

use super::StreamType;

/// Longest section of these tables, bytes (§2.4.4.3: the two top bits of the length are zero).
const SECTION_MAX: usize = 1_024;
const PAT: u8 = 0;
const PMT: u8 = 2;
/// Table id to last section number.
const HEAD: usize = 8;
const CRC: usize = 4;

/// A PAT of one program, number 1.
pub(super) fn pat(pmt_pid: u16) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend((0xe000 | pmt_pid).to_be_bytes());
    section(PAT, 0, &body)
}

/// The PMT of program 1.
pub(super) fn pmt(version: u8, pcr_pid: u16, streams: &[(StreamType, u16)]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((0xe000 | pcr_pid).to_be_bytes());
    body.extend([0xf0, 0]);
    for (kind, pid) in streams {
        body.push(kind.byte());
        body.extend((0xe000 | pid).to_be_bytes());
        body.extend([0xf0, 0]);
    }
    section(PMT, version, &body)
}

fn section(table: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEAD - 3 + body.len() + CRC) as u16;
    let mut out = vec![table];
    out.extend((0xb000 | length).to_be_bytes());
    // Identifier 1, current, section 0 of 0.
    out.extend([0, 1, 0xc1 | (version & 31) << 1, 0, 0]);
    out.extend(body);
    out.extend(crc32(&out).to_be_bytes());
    out
}

/// CRC of annex A; 0 over a section that ends with its own.
fn crc32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 })
    })
}

/// PID of the map of the first program in a PAT section.
pub(super) fn read_pat(section: &[u8]) -> Option<u16> {
    let body = body_of(section, PAT)?;
    let programs = body.chunks_exact(4);
    let mut maps = programs.filter(|p| p[..2] != [0, 0]).map(|p| pid(p[2], p[3]));
    maps.find(|pid| (0x10..0x1fff).contains(pid))
}

/// The streams of a PMT section: (stream type, PID).
pub(super) fn read_pmt(section: &[u8]) -> Option<Vec<(u8, u16)>> {
    let body = body_of(section, PMT)?;
    let program_info = usize::from(pid(*body.get(2)?, *body.get(3)?) & 0xfff);
    let mut rest = body.get(4 + program_info..)?;
    let mut streams = Vec::new();
    while let Some((entry, after)) = rest.split_first_chunk::<5>() {
        streams.push((entry[0], pid(entry[1], entry[2])));
        let descriptors = usize::from(pid(entry[3], entry[4]) & 0xfff);
        rest = after.get(descriptors..).unwrap_or_default();
    }
    Some(streams)
}

/// What lies between head and CRC, if it is that table and in force now.
fn body_of(section: &[u8], table: u8) -> Option<&[u8]> {
    let body = section.get(HEAD..section.len().checked_sub(CRC)?)?;
    (section[0] == table && section[5] & 1 == 1).then_some(body)
}

/// 13 bits.
pub(super) fn pid(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high & 0x1f, low])
}

/// Gathers the sections of one PID.
#[derive(Default)]
pub(super) struct Sections {
    buffer: Vec<u8>,
    filling: bool,
}

impl Sections {
    /// Takes a packet's payload; `start` is its payload unit start indicator. Gives every section that is whole and whose CRC
    /// is right.
    pub(super) fn push(&mut self, start: bool, payload: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut rest = payload;
        if start {
            let Some((tail, head)) = payload.split_first().and_then(|(pointer, after)| after.split_at_checked(usize::from(*pointer)))
            else {
                self.filling = false;
                return found;
            };
            self.fill(tail, &mut found);
            self.buffer.clear();
            self.filling = true;
            rest = head;
        }
        self.fill(rest, &mut found);
        found
    }

    fn fill(&mut self, bytes: &[u8], found: &mut Vec<Vec<u8>>) {
        if !self.filling {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        while let Some(head) = self.buffer.first_chunk::<3>() {
            let size = 3 + usize::from(u16::from_be_bytes([head[1] & 0x0f, head[2]]));
            if head[0] == 0xff || size > SECTION_MAX {
                // Padding, or nonsense: nothing before the next start.
                self.filling = false;
                self.buffer.clear();
                return;
            }
            if self.buffer.len() < size {
                return;
            }
            let section: Vec<u8> = self.buffer.drain(..size).collect();
            if crc32(&section) == 0 {
                found.push(section);
            }
        }
    }
}

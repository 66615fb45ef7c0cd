//! [`Demuxer`]: a byte stream that should be a transport stream, taken apart into PES packets.
//!
//! Owns synchronisation, tables and reassembly of the first video and the first audio stream of the first program. What is
//! damaged is left out and counted. Refuses: to grow with what the input declares; a PES packet is bounded, everything else
//! is of fixed size.

use bytes::{Buf, Bytes, BytesMut};
use patchbay_media::Kind;

use super::psi::{self, Sections};
use super::{PACKET, SYNC, StreamType};

/// Longest PES packet, bytes: an intra picture of 8K at a rate no browser takes.
const VIDEO_MAX: usize = 4 << 20;
/// The same for sound.
const AUDIO_MAX: usize = 256 << 10;
/// Smallest PES packet with the optional header (§2.4.3.6).
const PES_HEAD: usize = 9;

/// One PES packet, without its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pes {
    /// What the program map says it is.
    pub stream_type: StreamType,
    /// Presentation time stamp, 33 bits at 90 kHz.
    pub pts: Option<u64>,
    /// Decoding time stamp, when it differs.
    pub dts: Option<u64>,
    /// PES packets of this stream known to be lost or damaged just before.
    pub lost: u32,
    /// The payload.
    pub data: Bytes,
}

/// Takes a transport stream apart.
#[derive(Default)]
pub struct Demuxer {
    /// Less than three packets, except inside `push`.
    pub(super) input: BytesMut,
    synced: bool,
    pat: Sections,
    pmt_pid: Option<u16>,
    pmt: Sections,
    video: Option<Slot>,
    audio: Option<Slot>,
    damage: u64,
}

impl Demuxer {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes, cut anywhere, and appends what is whole to `out`.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<Pes>) {
        self.input.extend_from_slice(data);
        self.drain(out);
    }

    /// Nothing follows: gives what was waiting for more.
    pub fn finish(&mut self, out: &mut Vec<Pes>) {
        // There is nothing left to compare with: what looks like a packet is taken for one.
        self.synced = self.input.first() == Some(&SYNC);
        self.drain(out);
        self.slots().for_each(|slot| slot.emit(out));
    }

    /// Losses of synchronisation, broken packets and gaps in continuity so far.
    pub fn damage(&self) -> u64 {
        self.damage
    }

    /// Whether a program map with a stream that is understood was seen.
    pub fn has_streams(&self) -> bool {
        self.video.is_some() || self.audio.is_some()
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        [&mut self.video, &mut self.audio].into_iter().flatten()
    }

    fn drain(&mut self, out: &mut Vec<Pes>) {
        let mut input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(packet) = self.next_packet(&mut rest) {
            self.packet(packet, out);
        }
        let done = input.len() - rest.len();
        input.advance(done);
        self.input = input;
    }

    fn next_packet<'a>(&mut self, rest: &mut &'a [u8]) -> Option<&'a [u8; PACKET]> {
        let first = *rest.first()?;
        if !self.synced || first != SYNC {
            if std::mem::replace(&mut self.synced, false) {
                // The packet before may have lost bytes, or have strange ones in it.
                self.damage += 1;
                self.slots().for_each(Slot::give_up);
            }
            let (skipped, found) = find_sync(rest);
            *rest = &rest[skipped..];
            if !found {
                return None;
            }
            self.synced = true;
        }
        let (packet, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(packet)
    }

    fn packet(&mut self, packet: &[u8; PACKET], out: &mut Vec<Pes>) {
        let (failed, start) = (packet[1] & 0x80 != 0, packet[1] & 0x40 != 0);
        let scrambled = packet[3] & 0xc0 != 0;
        if failed || scrambled {
            return;
        }
        let Some(content) = Content::of(packet) else {
            self.damage += 1;
            return;
        };
        let payload = content.payload;
        let pid = psi::pid(packet[1], packet[2]);
        if pid == 0 {
            self.pat.push(start, payload).iter().for_each(|section| self.take_pat(section));
        } else if Some(pid) == self.pmt_pid {
            self.pmt.push(start, payload).iter().for_each(|section| self.take_pmt(section, out));
        } else {
            let slot = self.slots().find(|slot| slot.pid == pid);
            let whole = slot.is_none_or(|slot| slot.packet(start, packet[3] & 0x0f, &content, out));
            self.damage += u64::from(!whole);
        }
    }

    fn take_pat(&mut self, section: &[u8]) {
        let found = psi::read_pat(section);
        if found.is_some() && found != self.pmt_pid {
            self.pmt_pid = found;
            self.pmt = Sections::default();
        }
    }

    fn take_pmt(&mut self, section: &[u8], out: &mut Vec<Pes>) {
        let Some(streams) = psi::read_pmt(section) else { return };
        for (kind, slot) in [(Kind::Video, &mut self.video), (Kind::Audio, &mut self.audio)] {
            let known = streams.iter().filter_map(|(byte, pid)| Some((StreamType::from_byte(*byte)?, *pid)));
            let wanted = known.into_iter().find(|(stream_type, _)| stream_type.kind() == kind);
            if slot.as_ref().map(|s| (s.stream_type, s.pid)) == wanted {
                continue;
            }
            if let Some(slot) = slot {
                slot.emit(out);
            }
            *slot = wanted.map(|(stream_type, pid)| Slot::new(stream_type, pid));
        }
    }
}

/// How much to skip to a place where three packets begin in a row (or all that can be seen of three do), and whether all
/// three were seen.
fn find_sync(bytes: &[u8]) -> (usize, bool) {
    for at in 0..bytes.len() {
        let seen = |n: usize| bytes.get(at + n * PACKET);
        if (0..3).all(|n| seen(n).is_none_or(|byte| *byte == SYNC)) {
            return (at, seen(2).is_some());
        }
    }
    (bytes.len(), false)
}

/// What follows the head of a packet.
struct Content<'a> {
    /// The continuity counter may leap here.
    discontinuity: bool,
    /// The adaptation field says nothing: it is there to fill the packet, as the last of a PES packet needs.
    padded: bool,
    payload: &'a [u8],
}

impl<'a> Content<'a> {
    /// `None` when the adaptation field does not fit.
    fn of(packet: &'a [u8; PACKET]) -> Option<Self> {
        let body = &packet[4..];
        let control = packet[3] >> 4 & 3;
        if control == 1 {
            return Some(Self { discontinuity: false, padded: false, payload: body });
        }
        let length = usize::from(body[0]);
        let payload = body.get(1 + length..).filter(|_| control > 1)?;
        let flags = if length > 0 { body[1] } else { 0 };
        let payload = if control == 3 { payload } else { &[] };
        Some(Self { discontinuity: flags & 0x80 != 0, padded: flags == 0, payload })
    }
}

/// One elementary stream.
struct Slot {
    stream_type: StreamType,
    pid: u16,
    continuity: Option<u8>,
    /// Header and payload of the PES packet under way.
    buffer: BytesMut,
    filling: bool,
    /// The PES packet before was as long as it said, and none has begun since.
    full: bool,
    lost: u32,
}

impl Slot {
    fn new(stream_type: StreamType, pid: u16) -> Self {
        Self { stream_type, pid, continuity: None, buffer: BytesMut::new(), filling: false, full: false, lost: 0 }
    }

    /// Takes a packet; `false` when others are missing before it.
    fn packet(&mut self, start: bool, counter: u8, content: &Content<'_>, out: &mut Vec<Pes>) -> bool {
        let Content { discontinuity, padded, payload } = *content;
        if payload.is_empty() {
            // Such packets do not count, but may announce that the counter leaps.
            self.continuity = self.continuity.filter(|_| !discontinuity);
            return true;
        }
        let last = self.continuity.replace(counter).filter(|_| !discontinuity);
        if last == Some(counter) {
            // A packet may be sent twice (§2.4.3.3).
            return true;
        }
        let whole = last.is_none_or(|last| (last + 1) & 0x0f == counter);
        if !whole {
            self.give_up();
        }
        let whole = whole && (start || !self.full);
        if start {
            self.emit(out);
            self.filling = true;
        }
        if self.filling {
            self.fill(payload, out);
        } else if std::mem::take(&mut self.full) {
            // It is longer than it said: what was given is cut off.
            self.lost = self.lost.saturating_add(1);
        }
        if padded && !start && declared(&self.buffer).is_none() {
            // Else a picture would wait for the next one.
            self.emit(out);
        }
        whole
    }

    fn fill(&mut self, payload: &[u8], out: &mut Vec<Pes>) {
        let max = if self.stream_type.kind() == Kind::Video { VIDEO_MAX } else { AUDIO_MAX };
        if self.buffer.len() + payload.len() > max {
            return self.give_up();
        }
        self.buffer.extend_from_slice(payload);
        if let Some(total) = declared(&self.buffer)
            && self.buffer.len() >= total
        {
            self.buffer.truncate(total);
            self.emit(out);
            self.full = true;
        }
    }

    /// The PES packet under way is damaged.
    fn give_up(&mut self) {
        if self.filling {
            self.lost = self.lost.saturating_add(1);
        }
        self.filling = false;
        self.buffer.clear();
    }

    /// The PES packet under way is complete.
    fn emit(&mut self, out: &mut Vec<Pes>) {
        self.full = false;
        if !std::mem::take(&mut self.filling) {
            return;
        }
        let bytes = self.buffer.split().freeze();
        match read_pes(bytes) {
            Some((pts, dts, data)) => {
                out.push(Pes { stream_type: self.stream_type, pts, dts, lost: std::mem::take(&mut self.lost), data });
            }
            None => self.lost = self.lost.saturating_add(1),
        }
    }
}

/// Size of a PES packet that says it; video need not.
fn declared(pes: &[u8]) -> Option<usize> {
    let length = u16::from_be_bytes([*pes.get(4)?, *pes.get(5)?]);
    (length > 0).then_some(6 + usize::from(length))
}

type Read = (Option<u64>, Option<u64>, Bytes);

/// Stamps and payload of a PES packet with the optional header (§2.4.3.6); `None` for anything else.
fn read_pes(mut pes: Bytes) -> Option<Read> {
    let head = pes.first_chunk::<PES_HEAD>()?;
    let (is_media, marked) = (matches!(head[3], 0xbd | 0xc0..=0xef | 0xfd), head[6] >> 6 == 2);
    if head[..3] != [0, 0, 1] || !is_media || !marked {
        return None;
    }
    let flags = head[7] >> 6;
    let fields = usize::from(head[8]);
    let stamps = pes.get(PES_HEAD..PES_HEAD + fields)?;
    let pts = if flags >= 2 { stamps.first_chunk().map(read_stamp) } else { None };
    let dts = if flags == 3 { stamps.get(5..).and_then(|s| s.first_chunk()).map(read_stamp) } else { None };
    pes.advance(PES_HEAD + fields);
    Some((pts, dts, pes))
}

fn read_stamp(field: &[u8; 5]) -> u64 {
    let [a, b, c, d, e] = field.map(u64::from);
    (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1
}

//! [`Muxer`]: pictures and sound made into a transport stream that jsmpeg decodes at once.
//!
//! jsmpeg finds streams by PES stream id, not by tables, and takes a picture for complete when its PES packet says how long
//! it is, or else when a packet that does not begin one has an adaptation field. So lengths are written where 16 bits
//! suffice, adaptation fields appear only in first and last packets, and last packets of longer pictures always have one.

use bytes::{Buf, BufMut, BytesMut};
use patchbay_media::Kind;

use super::{PACKET, STAMP_MASK, SYNC, StreamType, psi};

const PMT_PID: u16 = 0x1000;
const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;
/// Bytes of a packet after its head.
const ROOM: usize = PACKET - 4;
/// Length, flags and clock reference.
const PCR_FIELD: usize = 8;
/// How far decoding runs behind the clock reference, ticks: 100 ms.
const PCR_LEAD: u64 = 9_000;

/// What becomes one PES packet.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// Which stream.
    pub kind: Kind,
    /// Presentation time stamp; 33 bits are used.
    pub pts: u64,
    /// Decoding time stamp; written when it differs.
    pub dts: u64,
    /// Whether decoding can begin with it.
    pub key: bool,
    /// One picture, or sound.
    pub payload: &'a [u8],
}

/// Writes one program of a video and an audio stream.
pub struct Muxer {
    video: Option<StreamType>,
    audio: Option<StreamType>,
    pat: Vec<u8>,
    pmt: Vec<u8>,
    pat_counter: u8,
    pmt_counter: u8,
    video_counter: u8,
    audio_counter: u8,
}

impl Muxer {
    /// A program of these streams.
    pub fn new(video: Option<StreamType>, audio: Option<StreamType>) -> Self {
        let streams: Vec<_> = [(video, VIDEO_PID), (audio, AUDIO_PID)].into_iter().filter_map(|(t, pid)| Some((t?, pid))).collect();
        let pcr_pid = if video.is_some() { VIDEO_PID } else { AUDIO_PID };
        // Another version for another set of streams, because viewers change between muxers.
        let version = u8::from(video.is_some()) | u8::from(audio.is_some()) << 1;
        let (pat, pmt) = (psi::pat(PMT_PID), psi::pmt(version, pcr_pid, &streams));
        Self { video, audio, pat, pmt, pat_counter: 0, pmt_counter: 0, video_counter: 0, audio_counter: 0 }
    }

    /// Writes both tables; one can begin to read here.
    pub fn write_tables(&mut self, out: &mut BytesMut) {
        for (pid, section, counter) in [(0, &self.pat, &mut self.pat_counter), (PMT_PID, &self.pmt, &mut self.pmt_counter)] {
            head(out, true, pid, 1, counter);
            out.put_u8(0);
            out.put_slice(section);
            // Two streams without descriptors: always less than a packet.
            out.put_bytes(0xff, (ROOM - 1).saturating_sub(section.len()));
        }
    }

    /// Writes one PES packet. A unit of a stream that is not in the program is left out.
    pub fn write(&mut self, unit: &Unit<'_>, out: &mut BytesMut) {
        let (present, pid, counter) = match unit.kind {
            Kind::Video => (self.video.is_some(), VIDEO_PID, &mut self.video_counter),
            Kind::Audio => (self.audio.is_some(), AUDIO_PID, &mut self.audio_counter),
        };
        if !present {
            return;
        }
        let with_clock = unit.kind == Kind::Video || self.video.is_none();
        let (header, sized) = pes_header(unit);
        let mut left = header.len() + unit.payload.len();
        let mut source = header.chain(unit.payload);
        let mut first = true;
        out.reserve((left / ROOM + 2) * PACKET);
        while left > 0 {
            let mut field = if first && with_clock { PCR_FIELD } else { 0 };
            if first && !sized && left > ROOM - field && (left - (ROOM - field)).is_multiple_of(ROOM) {
                // Else the last packet would be full.
                field += 1;
            }
            let size = left.min(ROOM - field);
            field = ROOM - size;
            head(out, first, pid, if field > 0 { 3 } else { 1 }, counter);
            let clock = (first && with_clock).then_some(unit);
            adaptation_field(out, field, clock);
            out.put((&mut source).take(size));
            left -= size;
            first = false;
        }
    }
}

fn head(out: &mut BytesMut, start: bool, pid: u16, control: u8, counter: &mut u8) {
    out.put_u8(SYNC);
    out.put_u16(u16::from(start) << 14 | pid);
    out.put_u8(control << 4 | *counter & 0x0f);
    *counter = counter.wrapping_add(1);
}

/// `size` bytes, with a clock reference for `clock` if there is room for it.
fn adaptation_field(out: &mut BytesMut, size: usize, clock: Option<&Unit<'_>>) {
    let Some(length) = size.checked_sub(1) else { return };
    out.put_u8(length as u8);
    if length == 0 {
        return;
    }
    let clock = clock.filter(|_| size >= PCR_FIELD);
    let key = clock.is_some_and(|unit| unit.key);
    out.put_u8(u8::from(key) << 6 | u8::from(clock.is_some()) << 4);
    let mut padding = length - 1;
    if let Some(unit) = clock {
        let base = unit.dts.saturating_sub(PCR_LEAD) & STAMP_MASK;
        // 33 bits of base, 6 reserved, 9 of extension.
        out.put_uint(base << 15 | 0x3f << 9, 6);
        padding -= 6;
    }
    out.put_bytes(0xff, padding);
}

/// The header, and whether it says how long the packet is.
fn pes_header(unit: &Unit<'_>) -> (BytesMut, bool) {
    let reordered = unit.dts & STAMP_MASK != unit.pts & STAMP_MASK;
    let fields = if reordered { 10 } else { 5 };
    let length = u16::try_from(3 + fields + unit.payload.len()).unwrap_or(0);
    let mut out = BytesMut::with_capacity(19);
    out.put_slice(&[0, 0, 1, if unit.kind == Kind::Video { 0xe0 } else { 0xc0 }]);
    out.put_u16(length);
    // Data is aligned: a PES packet begins with a picture.
    out.put_slice(&[0x84, if reordered { 0xc0 } else { 0x80 }, fields as u8]);
    write_stamp(&mut out, if reordered { 3 } else { 2 }, unit.pts);
    if reordered {
        write_stamp(&mut out, 1, unit.dts);
    }
    (out, length > 0)
}

fn write_stamp(out: &mut BytesMut, prefix: u64, stamp: u64) {
    let (high, middle, low) = (stamp >> 30 & 7, stamp >> 15 & 0x7fff, stamp & 0x7fff);
    out.put_uint(prefix << 36 | high << 33 | 1 << 32 | middle << 17 | 1 << 16 | low << 1 | 1, 5);
}

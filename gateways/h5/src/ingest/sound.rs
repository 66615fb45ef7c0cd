//! Frames of MPEG audio (ISO/IEC 11172-3 §2.4, 13818-3) and of AAC in ADTS (14496-3 §1.A.2): headers, and [`Splitter`], which
//! cuts PES payloads into frames wherever they begin and end.
//!
//! Refuses: layer I, free format, and ADTS frames of several blocks.

use bytes::{Buf, Bytes, BytesMut};
use patchbay_media::aac::AudioSpecificConfig;
use patchbay_media::{AudioShape, Codec, TrackInfo};

/// Which headers to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Mpeg,
    Adts,
}

/// What the header of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) codec: Codec,
    pub(crate) shape: AudioShape,
    /// AAC only: `audioObjectType`.
    object_type: u8,
    /// Samples per channel.
    pub(crate) samples: u32,
    /// Bytes of the frame with its header.
    size: usize,
    /// Bytes at its begin that are not for the bus.
    skip: usize,
}

impl Header {
    /// The track of such frames.
    pub(crate) fn track_info(&self) -> TrackInfo {
        let config = match self.codec {
            Codec::Aac => {
                AudioSpecificConfig { object_type: self.object_type, sample_rate: self.shape.sample_rate, channels: self.shape.channels }
                    .to_bytes()
            }
            _ => Bytes::new(),
        };
        TrackInfo::audio(self.codec, config, self.shape)
    }

    fn same_stream(&self, other: &Self) -> bool {
        (self.codec, self.shape, self.object_type) == (other.codec, other.shape, other.object_type)
    }
}

impl Format {
    fn header(self, bytes: &[u8]) -> Option<Header> {
        match self {
            Self::Mpeg => mpeg_header(bytes),
            Self::Adts => adts_header(bytes),
        }
    }

    /// Bytes that a header needs to be judged.
    const fn head(self) -> usize {
        match self {
            Self::Mpeg => 4,
            Self::Adts => 7,
        }
    }
}

/// Bit rates of layers II and III of MPEG-1, and of both with the lower sample rates, kbit/s.
const LAYER_2: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
const LAYER_3: [u32; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const LOWER: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

fn mpeg_header(bytes: &[u8]) -> Option<Header> {
    let word = u32::from_be_bytes(*bytes.first_chunk()?);
    if word >> 20 != 0xfff {
        // Eleven ones would admit MPEG-2.5, which no transport stream has.
        return None;
    }
    let lower = word >> 19 & 1 == 0;
    let (codec, rates) = match (word >> 17 & 3, lower) {
        (2, false) => (Codec::Mp2, &LAYER_2),
        (2, true) => (Codec::Mp2, &LOWER),
        (1, false) => (Codec::Mp3, &LAYER_3),
        (1, true) => (Codec::Mp3, &LOWER),
        _ => return None,
    };
    let kbps = *rates.get((word >> 12 & 15).checked_sub(1)? as usize)?;
    let sample_rate = [44_100, 48_000, 32_000].get((word >> 10 & 3) as usize)? >> u32::from(lower);
    let samples = if codec == Codec::Mp3 && lower { 576 } else { 1_152 };
    let size = samples / 8 * kbps * 1_000 / sample_rate + (word >> 9 & 1);
    let channels = if word >> 6 & 3 == 3 { 1 } else { 2 };
    Some(Header { codec, shape: AudioShape { sample_rate, channels }, object_type: 0, samples, size: size as usize, skip: 0 })
}

/// `sampling_frequency_index` (14496-3 table 1.18).
const ADTS_RATES: [u32; 12] = [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000];

fn adts_header(bytes: &[u8]) -> Option<Header> {
    let [a, b, c, d, e, f, g] = *bytes.first_chunk()?;
    let (sync, layer, blocks) = (a == 0xff && b >> 4 == 0xf, b >> 1 & 3, g & 3);
    if !sync || layer != 0 || blocks != 0 {
        return None;
    }
    let sample_rate = *ADTS_RATES.get(usize::from(c >> 2 & 15))?;
    let channels = match (c & 1) << 2 | d >> 6 {
        0 => return None,
        7 => 8,
        n => n,
    };
    let size = usize::from(d & 3) << 11 | usize::from(e) << 3 | usize::from(f >> 5);
    let skip = if b & 1 == 1 { 7 } else { 9 };
    let shape = AudioShape { sample_rate, channels };
    (size > skip).then_some(Header { codec: Codec::Aac, shape, object_type: (c >> 6) + 1, samples: 1_024, size, skip })
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SoundFrame {
    pub(crate) header: Header,
    /// In the bus's layout.
    pub(crate) payload: Bytes,
    /// Time stamp, 90 kHz, not reduced to 33 bits; `None` before the first one that is known.
    pub(crate) stamp: Option<u64>,
    /// Stretches of bytes before it that were no frames.
    pub(crate) lost: u32,
}

/// Cuts a stream of frames.
pub(crate) struct Splitter {
    format: Format,
    /// Less than two frames.
    buffer: BytesMut,
    /// What the last frame was.
    known: Option<Header>,
    /// Of the next frame: stamp of the PES packet, and samples since.
    stamp: Option<u64>,
    samples: u64,
    astray: bool,
    lost: u32,
}

impl Splitter {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, buffer: BytesMut::new(), known: None, stamp: None, samples: 0, astray: false, lost: 0 }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Something is missing before what comes next.
    pub(crate) fn interrupted(&mut self) {
        self.buffer.clear();
    }

    /// Takes the payload of a PES packet. Its stamp is that of the first frame that begins in it (§2.4.3.7).
    pub(crate) fn push(&mut self, data: &[u8], stamp: Option<u64>, out: &mut Vec<SoundFrame>) {
        let mut before = self.buffer.len();
        let mut stamp = stamp;
        self.buffer.extend_from_slice(data);
        loop {
            if before == 0 && stamp.is_some() {
                (self.stamp, self.samples) = (stamp.take(), 0);
            }
            let Some(frame) = self.next() else { break };
            let (taken, frame) = frame;
            before = before.saturating_sub(taken);
            out.extend(frame);
        }
        if before == 0 && stamp.is_some() {
            (self.stamp, self.samples) = (stamp, 0);
        }
    }

    /// Takes a frame, or a byte that belongs to none, off the buffer: (bytes taken, frame). `None`: more is needed.
    fn next(&mut self) -> Option<(usize, Option<SoundFrame>)> {
        if self.buffer.len() < self.format.head() {
            return None;
        }
        let Some(header) = self.format.header(&self.buffer).filter(|h| self.believable(h)) else {
            if !std::mem::replace(&mut self.astray, true) {
                self.lost = self.lost.saturating_add(1);
            }
            self.buffer.advance(1);
            return Some((1, None));
        };
        if self.buffer.len() < header.size {
            return None;
        }
        let mut payload = self.buffer.split_to(header.size).freeze();
        payload.advance(header.skip);
        let elapsed = self.samples * 90_000 / u64::from(header.shape.sample_rate);
        let stamp = self.stamp.map(|stamp| stamp + elapsed);
        self.samples += u64::from(header.samples);
        self.astray = false;
        if !self.known.is_some_and(|known| known.same_stream(&header)) {
            // What was counted so far was counted with another rate.
            (self.stamp, self.samples) = (stamp.map(|s| s + u64::from(header.samples) * 90_000 / u64::from(header.shape.sample_rate)), 0);
        }
        self.known = Some(header);
        Some((header.size, Some(SoundFrame { header, payload, stamp, lost: std::mem::take(&mut self.lost) })))
    }

    /// A header like the last frame's is; any other only if the frame ends here or the same follows.
    fn believable(&self, header: &Header) -> bool {
        if !self.astray && self.known.is_some_and(|known| known.same_stream(header)) {
            return true;
        }
        let after = self.buffer.get(header.size..).unwrap_or_default();
        after.len() < self.format.head() || self.format.header(after).is_some_and(|next| next.same_stream(header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layer II, 128 kbit/s, 44.1 kHz, stereo: 417 bytes.
    fn mp2(fill: u8) -> Vec<u8> {
        let mut frame = vec![fill; 417];
        frame[..4].copy_from_slice(&[0xff, 0xfd, 0x80, 0x04]);
        frame
    }

    /// AAC-LC, 48 kHz, stereo.
    fn adts(payload: &[u8]) -> Vec<u8> {
        let size = 7 + payload.len();
        let mut frame = vec![0xff, 0xf1, 0x4c, 0x80 | (size >> 11) as u8, (size >> 3) as u8, (size << 5) as u8 | 0x1f, 0xfc];
        frame.extend(payload);
        frame
    }

    fn split(splitter: &mut Splitter, data: &[u8], stamp: Option<u64>) -> Vec<(usize, Option<u64>, u32)> {
        let mut out = Vec::new();
        splitter.push(data, stamp, &mut out);
        out.iter().map(|f| (f.payload.len(), f.stamp, f.lost)).collect()
    }

    #[test]
    fn headers_say_codec_rate_channels_and_size() {
        let header = mpeg_header(&mp2(0)).unwrap();
        assert_eq!((header.codec, header.size, header.samples), (Codec::Mp2, 417, 1_152));
        assert_eq!(header.shape, AudioShape { sample_rate: 44_100, channels: 2 });
        // Layer III, 128 kbit/s, 44.1 kHz; and layer II at 22.05 kHz, 64 kbit/s, mono.
        assert_eq!(mpeg_header(&[0xff, 0xfb, 0x90, 0x64]).map(|h| (h.codec, h.size)), Some((Codec::Mp3, 417)));
        assert_eq!(mpeg_header(&[0xff, 0xf5, 0x80, 0xc4]).map(|h| (h.shape.sample_rate, h.size)), Some((22_050, 417)));
        assert!(mpeg_header(&[0xff, 0xfd, 0xf0, 0x04]).is_none() && mpeg_header(&[0xff, 0xfd, 0x00, 0x04]).is_none());
        let aac = adts_header(&adts(b"12345")).unwrap();
        assert_eq!((aac.size, aac.skip, aac.shape), (12, 7, AudioShape { sample_rate: 48_000, channels: 2 }));
        assert_eq!(&aac.track_info().config[..], [0x11, 0x90]);
    }

    #[test]
    fn frames_of_one_packet_are_a_frame_time_apart() {
        let mut splitter = Splitter::new(Format::Mpeg);
        let seen = split(&mut splitter, &[mp2(1), mp2(2), mp2(3)].concat(), Some(90_000));
        assert_eq!(seen, [(417, Some(90_000), 0), (417, Some(92_351), 0), (417, Some(94_702), 0)]);
    }

    #[test]
    fn a_frame_over_two_packets_keeps_the_first_ones_time() {
        let mut splitter = Splitter::new(Format::Mpeg);
        let bytes = [mp2(1), mp2(2), mp2(3)].concat();
        assert_eq!(split(&mut splitter, &bytes[..600], Some(1_000)), [(417, Some(1_000), 0)]);
        assert_eq!(split(&mut splitter, &bytes[600..], Some(50_000)), [(417, Some(3_351), 0), (417, Some(50_000), 0)]);
    }

    #[test]
    fn garbage_is_skipped_and_counted_once() {
        let mut splitter = Splitter::new(Format::Mpeg);
        assert_eq!(split(&mut splitter, &mp2(1), Some(0)).len(), 1);
        let bytes = [&[0xff, 0xfd, 7, 7, 7][..], &mp2(2), &mp2(3)].concat();
        let seen = split(&mut splitter, &bytes, None);
        assert_eq!(seen.iter().map(|f| (f.0, f.2)).collect::<Vec<_>>(), [(417, 1), (417, 0)]);
    }

    #[test]
    fn adts_frames_lose_their_headers() {
        let mut splitter = Splitter::new(Format::Adts);
        let mut out = Vec::new();
        splitter.push(&[adts(b"one"), adts(b"three")].concat(), Some(0), &mut out);
        assert_eq!(out.iter().map(|f| (&f.payload[..], f.stamp)).collect::<Vec<_>>(), [(&b"one"[..], Some(0)), (b"three", Some(1_920))]);
    }

    #[test]
    fn the_buffer_stays_small_whatever_comes() {
        let mut splitter = Splitter::new(Format::Adts);
        let mut out = Vec::new();
        (0..2_000u32).for_each(|i| splitter.push(&[(i * 7) as u8, 0xff, 0xf1, 0x4c, 0xff, 0xff, 0xff, 0xfc], Some(0), &mut out));
        assert!(splitter.buffer.len() <= 2 * 8_192, "{}", splitter.buffer.len());
    }
}

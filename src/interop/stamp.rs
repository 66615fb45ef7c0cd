//! The stamp in the picture: written by FFmpeg's filters, read back from a thin row of grey, and what a run of them says.
//!
//! Layout, as in tests/clients/stamp.py: a strip along the top, 1/18 of the height, of 32 equal cells: white, black, 24 bits
//! of value, 4 bits of checksum (sum of the value's nibbles modulo 16), black, white. Refuses: to play anything.

use serde::{Deserialize, Serialize};

const CELLS: usize = 32;
const BITS: usize = 24;
/// Stamps wrap here.
pub const MODULUS: u32 = 1 << BITS;
/// Grey values per cell in the row that is read; the middle one is far from both neighbours.
const TAPS: usize = 3;
/// Bytes of the row that [`row_filter`] makes of a picture.
pub const ROW: usize = CELLS * TAPS;
/// Least difference between white and black.
const CONTRAST_MIN: u8 = 60;

/// FFmpeg's filters that stamp each picture with its number. `drawbox` alone: no expression per pixel.
pub fn picture_filter() -> String {
    let cell = |cell: usize| format!("drawbox=x={cell}*iw/{CELLS}:y=0:w=iw/{CELLS}:h=ih/18:color=white:t=fill");
    let bit = |value: &str, weight: usize| format!(":enable='gte(mod(floor(({value})/{}),2),1)'", 1 << weight);
    let nibbles: Vec<String> = (0..BITS / 4).map(|j| format!("mod(floor(n/{}),16)", 1 << (4 * j))).collect();
    let checksum = format!("mod({},16)", nibbles.join("+"));
    let mut filters = vec!["drawbox=x=0:y=0:w=iw:h=ih/18:color=black:t=fill".to_owned(), cell(0), cell(CELLS - 1)];
    filters.extend((0..BITS).map(|i| cell(2 + i) + &bit("n", BITS - 1 - i)));
    filters.extend((0..4).map(|i| cell(2 + BITS + i) + &bit(&checksum, 3 - i)));
    filters.join(",")
}

/// FFmpeg's filters that make the row [`read`] reads: the middle third of the strip, as one line of grey.
pub fn row_filter() -> String {
    format!("crop=iw:ih/54:0:ih/54,scale={ROW}:1:flags=area,format=gray")
}

/// The stamp in a row, or none: no strip, or a wrong checksum.
pub fn read(row: &[u8; ROW]) -> Option<u32> {
    let level = |cell: usize| row[cell * TAPS + TAPS / 2];
    let low = level(1).midpoint(level(CELLS - 2));
    let high = level(0).midpoint(level(CELLS - 1));
    if high.checked_sub(low)? < CONTRAST_MIN {
        return None;
    }
    let bits =
        |from: usize, count: usize| (from..from + count).fold(0, |bits, cell| bits << 1 | u32::from(level(cell) > low.midpoint(high)));
    let value = bits(2, BITS);
    let checksum = (0..BITS / 4).map(|nibble| value >> (4 * nibble) & 15).sum::<u32>() & 15;
    (checksum == bits(2 + BITS, 4)).then_some(value)
}

/// What a source's stamps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Pictures: what is missing is known exactly.
    Pictures,
    /// Milliseconds of the wall clock: how many pictures there were is asked of the deployment.
    Milliseconds,
}

impl Counts {
    /// As the script clients are told.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pictures => "n",
            Self::Milliseconds => "wall",
        }
    }

    fn per_picture(self, fps: f64) -> f64 {
        match self {
            Self::Pictures => 1.0,
            Self::Milliseconds => 1e3 / fps,
        }
    }
}

/// Figures of the stamps of a viewer. The script clients report the same under the same names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stamps {
    /// Different pictures seen.
    pub distinct: u64,
    /// Pictures there were between the first and the last stamp.
    pub expected: u64,
    /// Pictures that came after a later one.
    pub out_of_order: u64,
    /// Most pictures missing in a row.
    pub longest_gap_frames: u64,
    /// First stamp.
    pub first: Option<u32>,
    /// Last stamp.
    pub last: Option<u32>,
}

impl Stamps {
    /// Of the values in their order of arrival.
    pub fn of(values: &[u32], counts: Counts, fps: f64) -> Self {
        let Some(&first) = values.first() else { return Self::default() };
        let mut all = Self { first: Some(first), last: Some(first), ..Self::default() };
        let (mut seen, mut newest, mut gap) = (std::collections::BTreeSet::new(), 0, 0.0f64);
        for &value in values {
            // Since the first, so that a clock may wrap; what is more than half a turn ahead lies behind.
            let turn = value.wrapping_sub(first) % MODULUS;
            let since = if turn < MODULUS / 2 { i64::from(turn) } else { i64::from(turn) - i64::from(MODULUS) };
            if !seen.insert(since) {
                continue;
            }
            if since < newest {
                all.out_of_order += 1;
                continue;
            }
            gap = gap.max((since - newest) as f64 / counts.per_picture(fps) - 1.0);
            (newest, all.last) = (since, Some(value));
        }
        all.distinct = seen.len() as u64;
        all.expected = (newest as f64 / counts.per_picture(fps)).round() as u64 + 1;
        all.longest_gap_frames = gap.round() as u64;
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: u32) -> [u8; ROW] {
        let checksum = (0..6).map(|nibble| value >> (4 * nibble) & 15).sum::<u32>() & 15;
        let bits = 0b10 << 30 | value << 6 | checksum << 2 | 0b01;
        std::array::from_fn(|i| if bits >> (CELLS - 1 - i / TAPS) & 1 == 1 { 220 } else { 30 })
    }

    #[test]
    fn a_strip_is_read_and_a_damaged_one_is_not() {
        for value in [0, 1, 0x00ab_cdef, MODULUS - 1] {
            assert_eq!(read(&row(value)), Some(value));
        }
        let mut damaged = row(77);
        damaged[3 * 10 + 1] = 255 - damaged[3 * 10 + 1];
        assert_eq!(read(&damaged), None);
        assert_eq!((read(&[0; ROW]), read(&[128; ROW])), (None, None));
    }

    #[test]
    fn losses_gaps_and_disorder_are_counted() {
        let stamps = Stamps::of(&[10, 11, 13, 12, 13, 17], Counts::Pictures, 30.0);
        let want = Stamps { distinct: 5, expected: 8, out_of_order: 1, longest_gap_frames: 3, first: Some(10), last: Some(17) };
        assert_eq!(stamps, want);
        let clock = [MODULUS - 40, MODULUS - 7, 26, 59].map(|ms| ms % MODULUS);
        let stamps = Stamps::of(&clock, Counts::Milliseconds, 30.0);
        assert_eq!((stamps.distinct, stamps.expected, stamps.longest_gap_frames, stamps.last), (4, 4, 0, Some(59)));
        assert_eq!(Stamps::of(&[], Counts::Pictures, 30.0), Stamps::default());
    }
}

//! Paints one picture: colour bars that move, a bouncing box, the clock, the frame counter, the flash, and a strip
//! that programs read.

use patchbay_transcode::{Plane, RawVideo};

use super::font::{COLUMNS, ROWS, glyph};

/// Luma of black and white (ITU-R BT.601, limited range).
const BLACK: u8 = 16;
const WHITE: u8 = 235;
/// Chroma without colour.
const GREY: u8 = 128;

/// Cells of the machine-readable strip: white, black, 24 bits of wall-clock milliseconds, 4 bits of checksum,
/// black, white.
const CELLS: usize = 32;

/// Bars of 75 % colour: Y, Cb, Cr.
const BARS: [[u8; 3]; 8] =
    [[180, 128, 128], [162, 44, 142], [131, 156, 44], [112, 72, 58], [84, 184, 198], [65, 100, 212], [35, 212, 114], [60, 128, 128]];

/// Paints picture number `count`, at `ms` of wall-clock time.
pub fn picture(video: &mut RawVideo, width: usize, height: usize, count: u64, ms: u64, flash: bool) {
    let (dot, left) = (width / 160, width / 16);
    let side = height / 10;
    let strip_area = [0, 0, width, height / 18];
    let panel = [left - dot * 2, height / 8, dot * 80, dot * 26];
    let centre = [width * 3 / 8, height * 3 / 8, width / 4, height / 4];
    let ball = [bounce(count * 5, width - side), height * 5 / 8 + bounce(count * 3, height / 4), side, side];
    for component in 0..3 {
        let shift = usize::from(component > 0);
        bars(video.plane(component), width >> shift, height >> shift, component, count);
        if component > 0 {
            let mut chroma = Canvas { plane: video.plane(component), width: width / 2, height: height / 2 };
            for area in [strip_area, panel, centre, ball] {
                chroma.fill(area.map(|edge| edge / 2), GREY);
            }
        }
    }
    let mut luma = Canvas { plane: video.plane(0), width, height };
    strip(&mut luma, ms);
    luma.fill(panel, BLACK);
    luma.write(left, height / 8 + dot * 2, dot, &clock(ms));
    luma.write(left, height / 8 + dot * 14, dot, &format!("#{count}"));
    luma.fill(centre, if flash { WHITE } else { BLACK });
    luma.fill(ball, WHITE);
}

fn clock(ms: u64) -> String {
    let s = ms / 1_000;
    format!("{:02}:{:02}:{:02}.{:03}", s / 3_600 % 24, s / 60 % 60, s % 60, ms % 1_000)
}

/// A position that goes back and forth between 0 and `end`.
fn bounce(n: u64, end: usize) -> usize {
    let (n, end) = (n as usize, end.max(1));
    let at = n % (2 * end);
    at.min(2 * end - at)
}

fn bars(plane: Plane<'_>, width: usize, height: usize, component: usize, count: u64) {
    let scroll = count as usize * width / 640;
    let Some((first, rest)) = plane.data.split_at_mut_checked(plane.stride) else { return };
    for (x, sample) in first.iter_mut().take(width).enumerate() {
        *sample = BARS[(x + scroll) * BARS.len() / width % BARS.len()][component];
    }
    for row in rest.chunks_mut(plane.stride).take(height - 1) {
        let n = row.len().min(width);
        row[..n].copy_from_slice(&first[..n]);
    }
}

fn strip(luma: &mut Canvas<'_>, ms: u64) {
    let value = ms & 0xff_ffff;
    let checksum = (0..6).map(|nibble| value >> (4 * nibble) & 15).sum::<u64>() & 15;
    let bits = 0b10 << 30 | value << 6 | checksum << 2 | 0b01;
    for cell in 0..CELLS {
        let on = bits >> (CELLS - 1 - cell) & 1 == 1;
        let (from, to) = (luma.width * cell / CELLS, luma.width * (cell + 1) / CELLS);
        let height = luma.height / 18;
        luma.fill([from, 0, to - from, height], if on { WHITE } else { BLACK });
    }
}

struct Canvas<'a> {
    plane: Plane<'a>,
    width: usize,
    height: usize,
}

impl Canvas<'_> {
    /// Fills the rectangle of left, top, width and height.
    fn fill(&mut self, [x, y, width, height]: [usize; 4], value: u8) {
        let (right, bottom) = ((x + width).min(self.width), (y + height).min(self.height));
        for row in y..bottom {
            let start = row * self.plane.stride;
            if let Some(samples) = self.plane.data.get_mut(start + x..start + right) {
                samples.fill(value);
            }
        }
    }

    fn write(&mut self, x: usize, y: usize, dot: usize, text: &str) {
        for (place, c) in text.chars().enumerate() {
            for (row, bits) in glyph(c).into_iter().enumerate().take(ROWS) {
                for column in (0..COLUMNS).filter(|c| bits >> (COLUMNS - 1 - c) & 1 == 1) {
                    self.fill([x + (place * (COLUMNS + 1) + column) * dot, y + row * dot * 3 / 2, dot, dot * 3 / 2], WHITE);
                }
            }
        }
    }
}

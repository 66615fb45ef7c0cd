//! RTP packetising of H.264: nanoseconds per packet, once per frame whatever the number of viewers, beside a plain
//! copy of the same bytes.

use std::hint::black_box;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use patchbay_rtp::{PAYLOAD_MAX, h264};

const ROUNDS: u32 = 20_000;

/// One slice of `size` bytes in the bus's layout.
fn access_unit(size: usize) -> Bytes {
    let mut unit = BytesMut::with_capacity(size + 4);
    unit.put_u32(size as u32);
    unit.put_u8(0x41);
    unit.put_bytes(0xa5, size - 1);
    unit.freeze()
}

fn nanoseconds(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
}

fn main() {
    println!("{:>12} {:>8} {:>12} {:>12} {:>12}", "frame bytes", "packets", "ns/frame", "ns/packet", "copy ns");
    for size in [600, 8_000, 60_000] {
        let unit = access_unit(size);
        let packets = h264::packetise(&unit, None, PAYLOAD_MAX).len();
        let ours = nanoseconds(|| _ = black_box(h264::packetise(black_box(&unit), None, PAYLOAD_MAX)));
        let copy = nanoseconds(|| _ = black_box(BytesMut::from(&black_box(&unit)[..])));
        println!("{size:>12} {packets:>8} {ours:>12.0} {:>12.1} {copy:>12.0}", ours / packets as f64);
    }
}

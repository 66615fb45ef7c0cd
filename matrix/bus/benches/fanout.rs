//! Bus fan-out: CPU per frame and reader, beside the 0.67 µs per message of an in-process message bus
//! (docs/performance.md).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use patchbay_bus::{Item, Lag, Limits, Signal, Start, Track};
use patchbay_media::{Codec, Frame, Kind, MediaTime, TrackInfo, VideoShape};

const FRAMES: i64 = 20_000;

fn main() {
    println!("{:>8} {:>16} {:>16}", "readers", "ns/frame/reader", "floor ns (anchor)");
    for readers in [1, 2, 10, 100, 1_000] {
        println!("{readers:>8} {:>16.1} {:>16}", run(readers), 670);
    }
}

fn run(count: usize) -> f64 {
    let info = TrackInfo::video(Codec::H264, Bytes::new(), VideoShape::default());
    let mut writer = Track::create(Kind::Video, Some(info), Limits::default());
    let mut readers: Vec<_> = (0..count).map(|_| writer.track().read(Start::Live, Lag::Keep, Arc::new(Signal::new()))).collect();
    let payload = Bytes::from(vec![0u8; 4_096]);
    let begin = Instant::now();
    let frames = FRAMES / (count as i64).min(100);
    let mut delivered = 0u64;
    for n in 0..frames {
        let time = MediaTime::from_millis(n * 33);
        let key = n % 60 == 0;
        writer.push(Frame { pts: time, dts: time, duration: MediaTime::ZERO, key, loss: 0, arrival: time, payload: payload.clone() });
        for reader in &mut readers {
            while let Some(item) = reader.poll() {
                delivered += u64::from(matches!(item, Item::Frame(_)));
            }
        }
    }
    assert_eq!(delivered, frames as u64 * count as u64, "every reader gets every frame");
    begin.elapsed().as_nanos() as f64 / delivered as f64
}

//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use std::sync::Arc;

use bytes::BytesMut;
use patchbay_bus::{Bus, EndReason};
use patchbay_contract::{Cause, Publication};
use patchbay_media::{Kind, MediaTime};
use tokio_util::sync::CancellationToken;

use crate::ingest::sound::{Format, Splitter};
use crate::ingest::{Ingest, mpeg_video};
use crate::ts::{Demuxer, Muxer, Pes, StreamType, Unit};

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 2] = [("ts_demux", ts_demux), ("ts_ingest", ts_ingest)];

fn demux(data: &[u8], piece: usize) -> Vec<Pes> {
    let (mut demuxer, mut out) = (Demuxer::new(), Vec::new());
    data.chunks(piece.max(1)).for_each(|bytes| demuxer.push(bytes, &mut out));
    demuxer.finish(&mut out);
    out
}

/// The first byte says how the rest is cut; what is read must not depend on it, must survive what comes after the demuxer,
/// and being written and read again.
pub fn ts_demux(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let packets = demux(data, data.len());
    assert_eq!(packets, demux(data, usize::from(*cut)));
    let mut splitters = [Splitter::new(Format::Mpeg), Splitter::new(Format::Adts)];
    let mut frames = Vec::new();
    let mut out = BytesMut::new();
    let mut muxer = Muxer::new(Some(StreamType::Mpeg1Video), Some(StreamType::Mpeg1Audio));
    muxer.write_tables(&mut out);
    for pes in &packets {
        for picture in mpeg_video::pictures(&pes.data) {
            assert!(!pes.data[picture.range].is_empty());
        }
        splitters.iter_mut().for_each(|s| s.push(&pes.data, pes.pts, &mut frames));
        let pts = pes.pts.unwrap_or(0);
        let kind = pes.stream_type.kind();
        muxer.write(&Unit { kind, pts, dts: pes.dts.unwrap_or(pts), key: false, payload: &pes.data }, &mut out);
    }
    let again = demux(&out, 1_000);
    for kind in [Kind::Video, Kind::Audio] {
        let of = |all: &[Pes]| all.iter().filter(|p| p.stream_type.kind() == kind).map(|p| p.data.clone()).collect::<Vec<_>>();
        assert_eq!(of(&packets), of(&again));
    }
}

/// A publisher from its first byte to its end, on a bus of its own.
pub fn ts_ingest(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let (Ok(name), bus) = ("live/a".parse(), Bus::new()) else { return };
    let Ok(publisher) = bus.publish(name) else { return };
    let publication = Publication::new(1, publisher, Arc::default(), CancellationToken::new(), Box::new(|_, _| {}));
    let mut ingest = Ingest::new(publication);
    for (i, bytes) in data.chunks(usize::from(*cut).max(1) * 20).enumerate() {
        if ingest.push(bytes, MediaTime::from_millis(10 * i as i64)).is_err() {
            break;
        }
    }
    ingest.end(EndReason::Finished, Cause::peer("closed"));
}

#[cfg(test)]
mod tests {
    #[test]
    fn saved_inputs_are_survived() {
        patchbay_seeds::replay(&super::TARGETS);
    }
}

//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use bytes::BytesMut;
use patchbay_media::Kind;

use crate::ingest::mpeg_video;
use crate::ingest::sound::{Format, Splitter};
use crate::ts::{Demuxer, Muxer, Pes, StreamType, Unit};

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 1] = [("ts_demux", ts_demux)];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_inputs_are_survived() {
        for (name, target) in TARGETS {
            let folder = format!("{}/../../fuzz/seeds/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut inputs = 0;
            for entry in std::fs::read_dir(&folder).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs >= 5, "{inputs} inputs in {folder}");
        }
    }
}

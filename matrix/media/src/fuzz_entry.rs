//! One function per fuzz target, so that the fuzzer and the replay of saved inputs in this crate's tests run the same code.
//! Each must return, whatever the bytes are.

use bytes::{Buf, Bytes};

use crate::aac::AudioSpecificConfig;
use crate::av1::{Sequence, TemporalUnit};
use crate::nal::{AccessUnit, NalError, SIDE_MAX, Sets, nals};
use crate::vpx::Header;
use crate::{Codec, flac, h264, hevc};

/// A target's name and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target with the name of its folder of saved inputs.
pub const TARGETS: [Target; 6] =
    [("h264", h264), ("hevc", hevc), ("aac_config", aac_config), ("flac_config", flac_config), ("vpx", vpx), ("av1", av1)];

/// The first byte says what the rest is: a configuration record, a byte stream, or units behind lengths of so many bytes.
pub fn h264(data: &[u8]) {
    nal_units(data, h264::ParameterSets::default(), h264::ParameterSets::from_avcc);
}

/// The same for H.265.
pub fn hevc(data: &[u8]) {
    nal_units(data, hevc::ParameterSets::default(), hevc::ParameterSets::from_hvcc);
}

fn nal_units<S: Sets>(data: &[u8], mut sets: S, read: impl Fn(&Bytes) -> Result<(S, usize), NalError>) {
    let Some((layout, data)) = data.split_first() else { return };
    let data = Bytes::copy_from_slice(data);
    let unit = match layout % 4 {
        0 => {
            let Ok((sets, prefix)) = read(&data) else { return };
            assert!((1..=4).contains(&prefix));
            return check(&sets, read);
        }
        3 => AccessUnit::from_annex_b(&data, &mut sets),
        prefix => match AccessUnit::from_length_prefixed(&data, [1, 2, 4][usize::from(prefix) % 3], &mut sets) {
            Ok(unit) => unit,
            Err(_) => return,
        },
    };
    let held: usize = nals(&unit.payload).map(|nal| nal.len() + 4).sum();
    assert_eq!(held, unit.payload.len(), "every byte belongs to a unit");
    check(&sets, read);
}

/// What is described can be decoded, and is the same when it is written and read again.
fn check<S: Sets>(sets: &S, read: impl Fn(&Bytes) -> Result<(S, usize), NalError>) {
    let Ok(info) = sets.track_info() else { return };
    let shape = info.video_shape().copied().unwrap_or_default();
    assert!(shape.width <= SIDE_MAX && shape.height <= SIDE_MAX);
    let again = read(&info.config).and_then(|(sets, _)| sets.track_info());
    assert_eq!(again.map(|info| info.shape), Ok(info.shape));
}

/// A frame of VP8 or VP9, as the first byte says.
pub fn vpx(data: &[u8]) {
    let Some((which, frame)) = data.split_first() else { return };
    let codec = if which % 2 == 0 { Codec::Vp8 } else { Codec::Vp9 };
    if let Some(info) = Header::read(codec, frame).and_then(|header| header.track_info(codec)) {
        let shape = info.video_shape().copied().unwrap_or_default();
        assert!((1..=SIDE_MAX).contains(&shape.width) && (1..=SIDE_MAX).contains(&shape.height), "{shape:?}");
    }
}

/// The first byte says what the rest is: a configuration record, or temporal units behind lengths of two bytes.
pub fn av1(data: &[u8]) {
    let Some((layout, data)) = data.split_first() else { return };
    let mut data = Bytes::copy_from_slice(data);
    let mut sequence = None;
    if layout % 2 == 0 {
        sequence = Sequence::from_av1c(&data).ok().flatten();
        return sequence.iter().for_each(check_sequence);
    }
    while data.len() >= 2 {
        let length = usize::from(data.get_u16()).min(data.len());
        let unit = data.split_to(length);
        let Ok(read) = TemporalUnit::read(&unit, &mut sequence) else { continue };
        assert!(read.payload.len() <= unit.len());
        // What is left has nothing more to leave out.
        let again = TemporalUnit::read(&read.payload, &mut sequence.clone());
        assert_eq!(again.map(|unit| (unit.payload, unit.key)), Ok((read.payload, read.key)));
        sequence.iter().for_each(check_sequence);
    }
}

/// What is described can be decoded, and is the same when it is written and read again.
fn check_sequence(sequence: &Sequence) {
    let info = sequence.track_info();
    let shape = info.video_shape().copied().unwrap_or_default();
    assert!((1..=SIDE_MAX).contains(&shape.width) && (1..=SIDE_MAX).contains(&shape.height), "{shape:?}");
    assert_eq!(Sequence::from_av1c(&info.config).as_ref(), Ok(&Some(sequence.clone())));
}

/// A configuration record of AAC.
pub fn aac_config(data: &[u8]) {
    let config = Bytes::copy_from_slice(data);
    if let Ok(info) = AudioSpecificConfig::track_info(&config) {
        let shape = info.audio_shape().copied().unwrap_or_default();
        assert!(shape.sample_rate > 0 && shape.channels > 0, "{shape:?}");
    }
}

/// A description of FLAC.
pub fn flac_config(data: &[u8]) {
    if let Ok(info) = flac::track_info(data) {
        let shape = info.audio_shape().copied().unwrap_or_default();
        assert!(shape.sample_rate > 0 && shape.channels > 0, "{shape:?}");
        assert_eq!(flac::track_info(&info.config), Ok(info), "what is written is read");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn saved_inputs_are_survived() {
        patchbay_seeds::replay(&super::TARGETS);
    }
}

//! What a peer takes: what its kind usually does, and the codecs of enhanced RTMP that it says it knows.

use patchbay_contract::{Code, Refusal};
use patchbay_media::Codec;
use patchbay_rules::{EndpointKind, Sink};

use crate::proto::fourcc::FourCcs;

/// What is sent only to those who say that they take it.
const ENHANCED: [(Codec, [u8; 4]); 5] =
    [(Codec::H265, *b"hvc1"), (Codec::Av1, *b"av01"), (Codec::Vp9, *b"vp09"), (Codec::Opus, *b"Opus"), (Codec::Flac, *b"fLaC")];

/// A peer of this kind that announced these codecs.
pub(crate) fn sink(kind: EndpointKind, announced: &FourCcs) -> Sink {
    let mut sink = kind.default_sink();
    sink.take_also(ENHANCED.into_iter().filter(|(_, fourcc)| announced.takes(*fourcc)).map(|(codec, _)| codec));
    sink
}

/// The codecs that a player says it takes, in one of `queries` (`codecs=h265,opus`): who plays FLV has no other way to say so.
///
/// # Errors
/// A codec that is not among those.
pub(crate) fn named(queries: &[&str]) -> Result<Vec<Codec>, Refusal> {
    let pairs = queries.iter().flat_map(|query| url::form_urlencoded::parse(query.as_bytes()));
    let mut said = pairs.filter(|(name, _)| name == "codecs").map(|(_, value)| value);
    let Some(list) = said.next() else { return Ok(Vec::new()) };
    list.split(',').filter(|word| !word.is_empty()).take(ENHANCED.len()).map(codec).collect()
}

fn codec(word: &str) -> Result<Codec, Refusal> {
    ENHANCED.into_iter().map(|(codec, _)| codec).find(|codec| codec.name() == word).ok_or_else(|| {
        let (word, known): (String, _) = (word.chars().take(32).collect(), ENHANCED.map(|(codec, _)| codec.name()).join(", "));
        Refusal::new(
            Code::BadRequest,
            format!("?codecs= names {word:?}, which is none of {known}; what every player takes needs no naming"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::amf0::Value;

    fn takes(sink: &Sink) -> Vec<&'static str> {
        sink.video.iter().map(|a| a.codec.name()).chain(sink.audio.iter().map(|a| a.codec.name())).collect()
    }

    #[test]
    fn who_announces_nothing_takes_what_its_kind_does() {
        assert_eq!(sink(EndpointKind::Rtmp, &FourCcs::default()), EndpointKind::Rtmp.default_sink());
    }

    #[test]
    fn what_is_announced_is_taken_after_what_everybody_takes() {
        let announced = FourCcs::read(&Value::object([FourCcs::carried()]));
        assert_eq!(takes(&sink(EndpointKind::Cdn, &announced)), ["h264", "h265", "av1", "vp9", "aac", "mp3", "opus", "flac"]);
        let small = sink(EndpointKind::Miniprogram, &announced);
        assert!(small.video.iter().all(|a| a.reorder_frames_max == Some(0)), "{small:?}");
    }

    #[test]
    fn a_player_names_codecs_in_its_url_and_is_told_when_there_is_no_such() {
        assert_eq!(named(&["key=a", "codecs=h265,opus"]), Ok(vec![Codec::H265, Codec::Opus]));
        assert_eq!(named(&["key=a", "codecs="]), Ok(Vec::new()));
        for wrong in ["codecs=hevc", "codecs=h264", "codecs=h265,,x"] {
            let refusal = named(&[wrong]).unwrap_err();
            assert_eq!(refusal.code, Code::BadRequest);
            assert!(refusal.message.contains("h265, av1, vp9, opus, flac"), "{refusal}");
        }
    }
}

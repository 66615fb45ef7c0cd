//! Bus frames as FLV tag bodies: the one place where codecs of the bus become codecs of FLV on the way out.
//!
//! Refuses: codecs FLV has no place for; the rule table never sends them here, and a track of one is left out.

use bytes::{BufMut, Bytes, BytesMut};
use patchbay_media::{Codec, Frame, MediaTime, Shape, TrackInfo};

use crate::flv::mux::Metadata;
use crate::flv::tag::{AudioCodec, AudioPacket, AudioTag, SoundFormat, VideoCodec, VideoPacket, VideoTag};

/// Who we are in `onMetaData`.
const ENCODER: &str = concat!("patchbay/", env!("CARGO_PKG_VERSION"));

/// The FLV codec of a bus codec.
#[derive(Clone, Copy)]
enum Carried {
    Video(VideoCodec),
    Audio(AudioCodec),
}

fn carried(codec: Codec) -> Option<Carried> {
    Some(match codec {
        Codec::H264 => Carried::Video(VideoCodec::Avc),
        Codec::H265 => Carried::Video(VideoCodec::Hevc),
        Codec::Av1 => Carried::Video(VideoCodec::Av1),
        Codec::Vp8 => Carried::Video(VideoCodec::Vp8),
        Codec::Vp9 => Carried::Video(VideoCodec::Vp9),
        Codec::Aac => Carried::Audio(AudioCodec::Aac),
        Codec::Mp3 => Carried::Audio(AudioCodec::Mp3),
        Codec::Flac => Carried::Audio(AudioCodec::Flac),
        Codec::Opus => Carried::Audio(AudioCodec::Opus),
        Codec::Pcma => Carried::Audio(AudioCodec::G711A),
        Codec::Pcmu => Carried::Audio(AudioCodec::G711U),
        Codec::Mpeg1 | Codec::Mpeg2 | Codec::Mp2 | Codec::G722 => return None,
    })
}

/// The legacy sound description of a track.
fn sound(info: &TrackInfo, codec: AudioCodec) -> SoundFormat {
    match (codec, info.audio_shape()) {
        (AudioCodec::Mp3 | AudioCodec::G711A | AudioCodec::G711U, Some(shape)) => {
            SoundFormat { rate_hz: shape.sample_rate, wide: true, stereo: shape.channels > 1 }
        }
        _ => SoundFormat::AAC,
    }
}

/// Writes the sequence header of a track; `false` for codecs that have none.
pub(crate) fn sequence_header(info: &TrackInfo, out: &mut BytesMut) -> bool {
    match carried(info.codec) {
        Some(Carried::Video(codec)) if !info.config.is_empty() => {
            let packet = VideoPacket::SequenceStart(info.config.clone());
            VideoTag { codec, keyframe: true, packet }.encode(out);
            true
        }
        Some(Carried::Audio(codec @ (AudioCodec::Aac | AudioCodec::Opus | AudioCodec::Flac))) => {
            let config = if codec == AudioCodec::Opus { opus_head(info) } else { info.config.clone() };
            AudioTag { codec, sound: SoundFormat::AAC, packet: AudioPacket::SequenceStart(config) }.encode(out);
            !info.config.is_empty() || codec == AudioCodec::Opus
        }
        _ => false,
    }
}

/// `OpusHead` (RFC 7845 §5.1) without pre-skip.
fn opus_head(info: &TrackInfo) -> Bytes {
    let channels = info.audio_shape().map_or(2, |s| s.channels.clamp(1, 2));
    let mut head = BytesMut::with_capacity(19);
    head.put_slice(b"OpusHead");
    head.put_slice(&[1, channels]);
    head.put_u16_le(0);
    head.put_u32_le(48_000);
    head.put_slice(&[0, 0, 0]);
    head.freeze()
}

/// Writes a frame's tag body; `false` when FLV has no place for the codec.
pub(crate) fn frame(info: &TrackInfo, frame: &Frame, out: &mut BytesMut) -> bool {
    match carried(info.codec) {
        Some(Carried::Video(codec)) => {
            // Both rounded, not their difference: players add them up again.
            let composition_ms = (frame.pts.to_ticks(1_000) - frame.dts.to_ticks(1_000)) as i32;
            let packet = VideoPacket::Frame { composition_ms, data: frame.payload.clone() };
            VideoTag { codec, keyframe: frame.key, packet }.encode(out);
        }
        Some(Carried::Audio(codec)) => {
            AudioTag { codec, sound: sound(info, codec), packet: AudioPacket::Frame(frame.payload.clone()) }.encode(out);
        }
        None => return false,
    }
    true
}

/// Milliseconds from `epoch` to a bus time; what lies before it is pulled up to it.
pub(crate) fn millis(time: MediaTime, epoch: MediaTime) -> i64 {
    (time.to_ticks(1_000) - epoch.to_ticks(1_000)).max(0)
}

/// The same as an FLV timestamp, which wraps after 49.7 days.
pub(crate) fn timestamp(time: MediaTime, epoch: MediaTime) -> u32 {
    millis(time, epoch) as u32
}

/// `onMetaData` of a pair of tracks.
pub(crate) fn metadata(video: Option<&TrackInfo>, audio: Option<&TrackInfo>) -> Metadata {
    let mut out = Metadata { encoder: Some(ENCODER.to_owned()), ..Metadata::default() };
    if let Some(info) = video
        && let Shape::Video(shape) = &info.shape
    {
        out.width = Some(shape.width).filter(|n| *n > 0);
        out.height = Some(shape.height).filter(|n| *n > 0);
        out.frame_rate = shape.frame_rate;
        out.video_codec_id = match carried(info.codec) {
            Some(Carried::Video(VideoCodec::Avc)) => Some(7),
            Some(Carried::Video(codec)) => Some(u32::from_be_bytes(codec.fourcc())),
            _ => None,
        };
    }
    if let Some(info) = audio
        && let Shape::Audio(shape) = &info.shape
    {
        out.sample_rate = Some(shape.sample_rate).filter(|n| *n > 0);
        out.stereo = Some(shape.channels > 1);
        out.audio_codec_id = match carried(info.codec) {
            Some(Carried::Audio(AudioCodec::Aac)) => Some(10),
            Some(Carried::Audio(AudioCodec::Mp3)) => Some(2),
            Some(Carried::Audio(AudioCodec::G711A)) => Some(7),
            Some(Carried::Audio(AudioCodec::G711U)) => Some(8),
            Some(Carried::Audio(codec)) => codec.fourcc().map(u32::from_be_bytes),
            _ => None,
        };
    }
    out
}

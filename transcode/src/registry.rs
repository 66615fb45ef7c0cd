//! Which codec is decoded and encoded by what: one line each.

use std::collections::BTreeSet;

use patchbay_media::{AudioTarget, Codec, TrackInfo, VideoTarget};

use crate::audio::{self, AudioDecoder, AudioEncoder};
use crate::error::{CodecError, LibraryError};
use crate::ff;
use crate::video::{self, Picture, VideoDecoder, VideoEncoder};

type OpenAudioDecoder = fn(&TrackInfo) -> Result<Box<dyn AudioDecoder>, CodecError>;
type OpenAudioEncoder = fn(&AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError>;
type OpenVideoDecoder = fn(&TrackInfo) -> Result<Box<dyn VideoDecoder>, CodecError>;
type OpenVideoEncoder = fn(&VideoTarget, &Picture, f64) -> Result<Box<dyn VideoEncoder>, CodecError>;

/// A codec, whether this build has it, and its constructor.
type Line<T> = (Codec, fn(Codec) -> bool, T);

const ALWAYS: fn(Codec) -> bool = |_| true;

const AUDIO_DECODERS: &[Line<OpenAudioDecoder>] = &[
    (Codec::Opus, ALWAYS, audio::decode::opus::open),
    (Codec::Aac, ff::has_decoder, audio::decode::ffmpeg::open),
    (Codec::Flac, ff::has_decoder, audio::decode::ffmpeg::open),
    (Codec::Mp2, ff::has_decoder, audio::decode::ffmpeg::open),
    (Codec::Mp3, ff::has_decoder, audio::decode::ffmpeg::open),
    (Codec::Pcma, ff::has_decoder, audio::decode::ffmpeg::open),
    (Codec::Pcmu, ff::has_decoder, audio::decode::ffmpeg::open),
    (Codec::G722, ff::has_decoder, audio::decode::ffmpeg::open),
];

const AUDIO_ENCODERS: &[Line<OpenAudioEncoder>] = &[
    (Codec::Opus, ALWAYS, audio::encode::opus::open),
    #[cfg(feature = "fdk")]
    (Codec::Aac, ALWAYS, audio::encode::fdk::open),
    #[cfg(not(feature = "fdk"))]
    (Codec::Aac, |_| ff::has_encoder("aac"), audio::encode::ffmpeg_aac::open),
    (Codec::Mp2, |_| ff::has_encoder("mp2"), audio::encode::mp2::open),
    (Codec::Pcma, |_| ff::has_encoder("pcm_alaw"), audio::encode::telephone::open),
    (Codec::Pcmu, |_| ff::has_encoder("pcm_mulaw"), audio::encode::telephone::open),
    (Codec::G722, |_| ff::has_encoder("g722"), audio::encode::telephone::open),
];

const VIDEO_DECODERS: &[Line<OpenVideoDecoder>] = &[
    (Codec::H264, ff::has_decoder, video::decode::open),
    (Codec::H265, ff::has_decoder, video::decode::open),
    (Codec::Vp8, ff::has_decoder, video::decode::open),
    (Codec::Vp9, ff::has_decoder, video::decode::open),
    (Codec::Av1, ff::has_decoder, video::decode::open),
    (Codec::Mpeg1, ff::has_decoder, video::decode::open),
    (Codec::Mpeg2, ff::has_decoder, video::decode::open),
];

const VIDEO_ENCODERS: &[Line<OpenVideoEncoder>] = &[
    (Codec::H264, |_| ff::has_encoder("libx264"), video::encode_h264::open),
    (Codec::Mpeg1, |_| ff::has_encoder("mpeg1video"), video::encode_mpeg1::open),
];

fn present<T>(lines: &[Line<T>]) -> impl Iterator<Item = Codec> + '_ {
    lines.iter().filter(|(codec, present, _)| present(*codec)).map(|(codec, ..)| *codec)
}

fn find<T: Copy>(lines: &[Line<T>], codec: Codec, role: &'static str) -> Result<T, CodecError> {
    lines.iter().find(|(c, present, _)| *c == codec && present(codec)).map(|(.., open)| *open).ok_or(CodecError::Open {
        codec,
        role,
        why: LibraryError::Missing,
    })
}

/// Codecs that can be decoded, and codecs that can be encoded.
pub fn abilities() -> (BTreeSet<Codec>, BTreeSet<Codec>) {
    (present(AUDIO_DECODERS).chain(present(VIDEO_DECODERS)).collect(), present(AUDIO_ENCODERS).chain(present(VIDEO_ENCODERS)).collect())
}

pub(crate) fn audio_decoder(info: &TrackInfo) -> Result<Box<dyn AudioDecoder>, CodecError> {
    find(AUDIO_DECODERS, info.codec, "decoder")?(info)
}

pub(crate) fn audio_encoder(target: &AudioTarget) -> Result<Box<dyn AudioEncoder>, CodecError> {
    find(AUDIO_ENCODERS, target.codec, "encoder")?(target)
}

pub(crate) fn video_decoder(info: &TrackInfo) -> Result<Box<dyn VideoDecoder>, CodecError> {
    find(VIDEO_DECODERS, info.codec, "decoder")?(info)
}

/// `picture` is the first one to encode, `frame_rate` the rate to expect.
pub(crate) fn video_encoder(target: &VideoTarget, picture: &Picture, frame_rate: f64) -> Result<Box<dyn VideoEncoder>, CodecError> {
    find(VIDEO_ENCODERS, target.codec, "encoder")?(target, picture, frame_rate)
}

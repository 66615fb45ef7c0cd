//! Thin helpers on ffmpeg-next: one-time set-up, opening codecs, padded packets. All `unsafe` on plain codec
//! contexts is in this file; resampling and pictures keep theirs next to their use.

use std::sync::Once;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi;
use patchbay_media::{Codec, MediaTime};

use crate::error::{CodecError, LibraryError};
use crate::limits::{AREA_MAX, PACKET_MAX};

static INIT: Once = Once::new();

/// Silences the library's own logging: it would print what hostile input makes it say. Errors come as values.
pub(crate) fn init() {
    INIT.call_once(|| {
        // Only registers formats on old versions; nothing here can fail in a way that matters later.
        let _ = ffmpeg::init();
        ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    });
}

/// FFmpeg's name for a codec. Opus is missing on purpose: libavcodec's libopus wrapper would resolve to the
/// symbols of the statically linked libopus.
fn id_of(codec: Codec) -> Option<ffmpeg::codec::Id> {
    use ffmpeg::codec::Id;
    Some(match codec {
        Codec::H264 => Id::H264,
        Codec::H265 => Id::HEVC,
        Codec::Vp8 => Id::VP8,
        Codec::Vp9 => Id::VP9,
        Codec::Av1 => Id::AV1,
        Codec::Mpeg1 => Id::MPEG1VIDEO,
        Codec::Mpeg2 => Id::MPEG2VIDEO,
        Codec::Aac => Id::AAC,
        Codec::Flac => Id::FLAC,
        Codec::Mp2 => Id::MP2,
        Codec::Mp3 => Id::MP3,
        Codec::Pcma => Id::PCM_ALAW,
        Codec::Pcmu => Id::PCM_MULAW,
        Codec::G722 => Id::ADPCM_G722,
        Codec::Opus => return None,
    })
}

fn decoder(codec: Codec) -> Option<ffmpeg::Codec> {
    if codec == Codec::Av1 {
        // libavcodec's own needs hardware, and says so only with the first packet.
        return ["libdav1d", "libaom-av1"].into_iter().find_map(ffmpeg::codec::decoder::find_by_name);
    }
    id_of(codec).and_then(ffmpeg::codec::decoder::find)
}

/// Whether this libavcodec decodes `codec`.
pub(crate) fn has_decoder(codec: Codec) -> bool {
    init();
    decoder(codec).is_some()
}

/// Whether this libavcodec has the encoder `name`.
pub(crate) fn has_encoder(name: &str) -> bool {
    init();
    ffmpeg::codec::encoder::find_by_name(name).is_some()
}

/// What a decoder is told before it is opened.
#[derive(Default)]
pub(crate) struct DecoderSetup<'a> {
    /// Codec-specific configuration; may be empty.
    pub(crate) extradata: &'a [u8],
    /// Sample rate and channels, for codecs that do not carry them.
    pub(crate) audio: Option<(u32, u8)>,
    /// Pictures come in the order they are shown in: none is held back.
    pub(crate) low_delay: bool,
}

/// Opens libavcodec's decoder on one thread, with nanoseconds as packet time base.
pub(crate) fn open_decoder(codec: Codec, setup: &DecoderSetup<'_>) -> Result<ffmpeg::decoder::Opened, CodecError> {
    init();
    let failed = |why| CodecError::Open { codec, role: "decoder", why };
    let library = decoder(codec).ok_or(failed(LibraryError::Missing))?;
    let mut context = ffmpeg::codec::Context::new_with_codec(library);
    set_extradata(&mut context, setup.extradata).map_err(|e| failed(e.into()))?;
    // SAFETY: `context` owns a live AVCodecContext that is not open yet; these are plain fields of it.
    unsafe {
        let raw = context.as_mut_ptr();
        if raw.is_null() {
            return Err(failed(LibraryError::Unexpected("no context")));
        }
        (*raw).thread_count = 1;
        (*raw).max_pixels = AREA_MAX as i64;
        (*raw).pkt_timebase = ffi::AVRational { num: 1, den: 1_000_000_000 };
        if setup.low_delay {
            (*raw).flags |= ffi::AV_CODEC_FLAG_LOW_DELAY as i32;
        }
        if let Some((rate, channels)) = setup.audio {
            (*raw).sample_rate = rate as i32;
            ffi::av_channel_layout_default(&mut (*raw).ch_layout, i32::from(channels));
        }
    }
    context.decoder().open_as(library).map_err(|e| failed(e.into()))
}

fn set_extradata(context: &mut ffmpeg::codec::Context, data: &[u8]) -> Result<(), ffmpeg::Error> {
    if data.is_empty() {
        return Ok(());
    }
    if data.len() > PACKET_MAX {
        return Err(ffmpeg::Error::InvalidData);
    }
    let padding = ffi::AV_INPUT_BUFFER_PADDING_SIZE as usize;
    // SAFETY: the buffer comes from FFmpeg's allocator, is zeroed, holds `data` plus the padding the API asks
    // for, and is owned (and freed) by the context from here on.
    unsafe {
        let raw = context.as_mut_ptr();
        if raw.is_null() {
            return Err(ffmpeg::Error::InvalidData);
        }
        let buffer = ffi::av_mallocz(data.len() + padding).cast::<u8>();
        if buffer.is_null() {
            return Err(ffmpeg::Error::InvalidData);
        }
        std::ptr::copy_nonoverlapping(data.as_ptr(), buffer, data.len());
        (*raw).extradata = buffer;
        (*raw).extradata_size = data.len() as i32;
    }
    Ok(())
}

/// The extradata of an opened codec.
pub(crate) fn extradata(context: &ffmpeg::codec::Context) -> Vec<u8> {
    // SAFETY: extradata and its size are set together by the library; null means none.
    unsafe {
        let raw = context.as_ptr();
        if raw.is_null() || (*raw).extradata.is_null() || (*raw).extradata_size <= 0 {
            return Vec::new();
        }
        std::slice::from_raw_parts((*raw).extradata, (*raw).extradata_size as usize).to_vec()
    }
}

/// A packet with the padding that decoders read into: this is why the payload is copied.
pub(crate) fn packet(codec: Codec, data: &[u8], pts: MediaTime, dts: MediaTime) -> Result<ffmpeg::Packet, CodecError> {
    if data.len() > PACKET_MAX {
        return Err(CodecError::PacketTooLarge { codec, len: data.len() });
    }
    let mut packet = ffmpeg::Packet::copy(data);
    packet.set_pts(Some(pts.as_nanos()));
    packet.set_dts(Some(dts.as_nanos()));
    Ok(packet)
}

/// Whether `error` only says "nothing now": feed more, or all is out.
pub(crate) fn is_dry(error: &ffmpeg::Error) -> bool {
    matches!(error, ffmpeg::Error::Eof | ffmpeg::Error::Other { errno: libc::EAGAIN })
}

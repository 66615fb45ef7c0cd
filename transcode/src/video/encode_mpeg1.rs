//! MPEG-1 video by libavcodec for pages that decode it themselves: no B-pictures, nothing held back, one of the
//! eight legal frame rates.

use bytes::Bytes;
use ffmpeg_next as ffmpeg;
use ffmpeg_next::{Rational, picture};
use patchbay_media::{Codec, TrackInfo, VideoShape, VideoTarget};

use super::{Encoded, Form, Picture, VideoEncoder, slice_threads};
use crate::error::{CodecError, LibraryError};
use crate::ff;

/// Largest width and height: twelve bits each (ISO/IEC 11172-2 §2.4.2.3), kept even.
pub(super) const SIDE_MAX: u32 = 4_094;
/// Highest legal rate.
pub(super) const FRAME_RATE_MAX: u32 = 60;
/// `picture_rate` (ISO/IEC 11172-2 §2.4.3.2).
const FRAME_RATES: [(i32, i32); 8] = [(24_000, 1_001), (24, 1), (25, 1), (30_000, 1_001), (30, 1), (50, 1), (60_000, 1_001), (60, 1)];
/// A legal rate this near is meant, whatever the source says exactly.
const SAME_RATE: f64 = 0.02;
/// Luma samples per second that one thread encodes in real time with reserve (measured: 720p30 takes a fifth of a
/// core); above it slices are encoded in parallel.
const SAMPLES_PER_THREAD: f64 = 1_280.0 * 720.0 * 75.0;
/// What every sequence begins with.
const SEQUENCE_HEADER: [u8; 4] = [0, 0, 1, 0xb3];

struct Mpeg1 {
    inner: ffmpeg::encoder::Video,
    packet: ffmpeg::Packet,
    info: TrackInfo,
    form: Form,
    /// Pictures so far: the encoder's clock, because its time base must be the legal rate, which the source's
    /// timestamps need not keep.
    count: i64,
}

/// The rate to declare for pictures that come at `rate`: the one that is meant, else the next above.
fn legal_rate(rate: f64) -> Rational {
    let value = |&(num, den): &(i32, i32)| f64::from(num) / f64::from(den);
    let off = |legal: &(i32, i32)| (value(legal) - rate).abs() / rate;
    let nearest = FRAME_RATES.iter().min_by(|a, b| off(a).total_cmp(&off(b))).filter(|legal| off(legal) < SAME_RATE);
    let above = || FRAME_RATES.iter().find(|legal| value(legal) >= rate);
    let &(num, den) = nearest.or_else(above).unwrap_or(&(FRAME_RATE_MAX as i32, 1));
    Rational(num, den)
}

fn options(target: &VideoTarget, picture: Form, frame_rate: f64, legal: f64) -> ffmpeg::Dictionary<'static> {
    // Rate control counts pictures, not time: where fewer come than declared, each may be larger by that much.
    let bitrate = (f64::from(target.bitrate_bps) * (legal / frame_rate).max(1.0)).clamp(50e3, 100e6) as u64;
    let threads = slice_threads(picture, frame_rate, SAMPLES_PER_THREAD);
    let mut options = ffmpeg::Dictionary::new();
    // Both are needed, or one picture is held back.
    options.set("flags", "+low_delay+cgop");
    options.set("strict", "unofficial");
    options.set("bf", "0");
    // Key pictures come by time and on request, not by scene.
    options.set("sc_threshold", "1000000000");
    options.set("threads", &threads.to_string());
    options.set("b", &bitrate.to_string());
    options.set("maxrate", &bitrate.to_string());
    options.set("bufsize", &bitrate.to_string());
    options
}

/// Opens libavcodec's encoder for pictures like `picture`.
pub(crate) fn open(target: &VideoTarget, picture: &Picture, frame_rate: f64) -> Result<Box<dyn VideoEncoder>, CodecError> {
    ff::init();
    let failed = |why: LibraryError| CodecError::Open { codec: Codec::Mpeg1, role: "encoder", why };
    let library = ffmpeg::encoder::find_by_name("mpeg1video").ok_or(failed(LibraryError::Missing))?;
    let context = ffmpeg::codec::Context::new_with_codec(library);
    let mut setup = context.encoder().video().map_err(|e| failed(e.into()))?;
    let (form, legal) = (Form::of(picture), legal_rate(frame_rate));
    setup.set_format(form.format);
    setup.set_width(form.width);
    setup.set_height(form.height);
    setup.set_aspect_ratio(picture.frame.aspect_ratio());
    setup.set_time_base(legal.invert());
    setup.set_frame_rate(Some(legal));
    // The pipeline forces key pictures by time; this only bounds it should the rate be other than expected.
    let gop = (frame_rate * f64::from(target.gop_ms) / 1_000.0).ceil().clamp(1.0, 600.0);
    setup.set_gop(gop as u32);
    let options = options(target, form, frame_rate, f64::from(legal));
    let inner = setup.open_as_with(library, options).map_err(|e| failed(e.into()))?;
    let shape = VideoShape { width: form.width, height: form.height, frame_rate: Some(frame_rate), ..VideoShape::default() };
    let info = TrackInfo::video(Codec::Mpeg1, Bytes::new(), shape);
    Ok(Box::new(Mpeg1 { inner, packet: ffmpeg::Packet::empty(), info, form, count: 0 }))
}

impl VideoEncoder for Mpeg1 {
    fn encode(&mut self, picture: &mut Picture, key: bool) -> Result<Option<Encoded>, CodecError> {
        let broken = |why: LibraryError| CodecError::Broken { codec: Codec::Mpeg1, role: "encoder", why };
        picture.frame.set_pts(Some(self.count));
        self.count += 1;
        picture.frame.set_kind(if key { picture::Type::I } else { picture::Type::None });
        self.inner.send_frame(&picture.frame).map_err(|e| broken(e.into()))?;
        match self.inner.receive_packet(&mut self.packet) {
            Ok(()) => {}
            Err(e) if ff::is_dry(&e) => return Ok(None),
            Err(e) => return Err(broken(e.into())),
        }
        let payload = Bytes::copy_from_slice(self.packet.data().unwrap_or_default());
        let key = self.packet.is_key();
        if payload.is_empty() || key != payload.starts_with(&SEQUENCE_HEADER) {
            return Err(broken(LibraryError::Unexpected("picture without its headers")));
        }
        Ok(Some(Encoded { payload, key }))
    }

    fn track_info(&self) -> &TrackInfo {
        &self.info
    }

    fn fits(&self, picture: &Picture) -> bool {
        Form::of(picture) == self.form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_rate_becomes_the_legal_one_that_is_meant_or_the_next_above() {
        let cases = [
            (1.0, (24_000, 1_001)),
            (15.0, (24_000, 1_001)),
            (23.976, (24_000, 1_001)),
            (24.0, (24, 1)),
            (24.5, (25, 1)),
            (25.1, (25, 1)),
            (29.97, (30_000, 1_001)),
            (30.0, (30, 1)),
            (30.2, (30, 1)),
            (40.0, (50, 1)),
            (59.94, (60_000, 1_001)),
            (60.0, (60, 1)),
            (240.0, (60, 1)),
        ];
        for (rate, (num, den)) in cases {
            assert_eq!(legal_rate(rate), Rational(num, den), "{rate}");
        }
    }
}

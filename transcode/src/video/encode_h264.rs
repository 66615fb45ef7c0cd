//! H.264 by x264 for viewers that take no B-frames: Constrained Baseline, superfast, zerolatency.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::picture;
use patchbay_media::h264::{AccessUnit, ParameterSets};
use patchbay_media::{Codec, Shape, TrackInfo, VideoTarget};

use super::{Encoded, Form, Picture, VideoEncoder, slice_threads};
use crate::error::{CodecError, LibraryError};
use crate::ff;

/// Clock of the encoder's timestamps.
const TICKS: u32 = 90_000;
/// Luma samples per second that one x264 thread encodes in real time with reserve (measured: 720p30 takes a third
/// of a core); above it slices are encoded in parallel.
const SAMPLES_PER_THREAD: f64 = 1_280.0 * 720.0 * 45.0;

struct X264 {
    inner: ffmpeg::encoder::Video,
    packet: ffmpeg::Packet,
    info: TrackInfo,
    sets: ParameterSets,
    form: Form,
    last_ticks: Option<i64>,
}

fn options(target: &VideoTarget, threads: usize) -> ffmpeg::Dictionary<'static> {
    let mut options = ffmpeg::Dictionary::new();
    options.set("preset", "superfast");
    options.set("tune", "zerolatency");
    options.set("profile", "baseline");
    options.set("forced-idr", "1");
    options.set("sc_threshold", "0");
    options.set("bf", "0");
    options.set("threads", &threads.to_string());
    options.set("b", &target.bitrate_bps.to_string());
    options.set("maxrate", &target.bitrate_bps.to_string());
    options.set("bufsize", &target.bitrate_bps.to_string());
    options
}

/// Opens x264 for pictures like `picture`.
pub(crate) fn open(target: &VideoTarget, picture: &Picture, frame_rate: f64) -> Result<Box<dyn VideoEncoder>, CodecError> {
    ff::init();
    let failed = |why: LibraryError| CodecError::Open { codec: Codec::H264, role: "encoder", why };
    let library = ffmpeg::encoder::find_by_name("libx264").ok_or(failed(LibraryError::Missing))?;
    let context = ffmpeg::codec::Context::new_with_codec(library);
    let mut setup = context.encoder().video().map_err(|e| failed(e.into()))?;
    let form = Form::of(picture);
    setup.set_format(form.format);
    setup.set_width(form.width);
    setup.set_height(form.height);
    setup.set_aspect_ratio(picture.frame.aspect_ratio());
    setup.set_time_base((1, TICKS as i32));
    setup.set_frame_rate(Some(((frame_rate * 1_000.0) as i32, 1_000)));
    // The pipeline forces key pictures by time; this only bounds it should the rate be other than expected.
    let gop = (frame_rate * f64::from(target.gop_ms) / 1_000.0).ceil().clamp(1.0, 10_000.0);
    setup.set_gop(gop as u32);
    setup.set_flags(ffmpeg::codec::Flags::GLOBAL_HEADER);
    let options = options(target, slice_threads(form, frame_rate, SAMPLES_PER_THREAD));
    let inner = setup.open_as_with(library, options).map_err(|e| failed(e.into()))?;
    let mut sets = ParameterSets::default();
    AccessUnit::from_annex_b(&ff::extradata(&inner), &mut sets);
    let mut info = sets.track_info()?;
    if let Shape::Video(shape) = &mut info.shape {
        shape.frame_rate = Some(frame_rate);
        shape.reorder_frames = 0;
    }
    Ok(Box::new(X264 { inner, packet: ffmpeg::Packet::empty(), info, sets, form, last_ticks: None }))
}

impl VideoEncoder for X264 {
    fn encode(&mut self, picture: &mut Picture, key: bool) -> Result<Option<Encoded>, CodecError> {
        let broken = |why: LibraryError| CodecError::Broken { codec: Codec::H264, role: "encoder", why };
        let ticks = picture.pts.to_ticks(TICKS);
        let ticks = self.last_ticks.map_or(ticks, |last| ticks.max(last + 1));
        self.last_ticks = Some(ticks);
        picture.frame.set_pts(Some(ticks));
        // The decoder left the source's picture type here, which x264 would take as an order.
        picture.frame.set_kind(if key { picture::Type::I } else { picture::Type::None });
        self.inner.send_frame(&picture.frame).map_err(|e| broken(e.into()))?;
        match self.inner.receive_packet(&mut self.packet) {
            Ok(()) => {}
            Err(e) if ff::is_dry(&e) => return Ok(None),
            Err(e) => return Err(broken(e.into())),
        }
        let data = self.packet.data().unwrap_or_default();
        let unit = AccessUnit::from_annex_b(data, &mut self.sets);
        if unit.payload.is_empty() {
            return Err(broken(LibraryError::Unexpected("empty picture")));
        }
        Ok(Some(Encoded { payload: unit.payload, key: unit.key }))
    }

    fn track_info(&self) -> &TrackInfo {
        &self.info
    }

    fn fits(&self, picture: &Picture) -> bool {
        Form::of(picture) == self.form
    }
}

//! The decoding half of video renditions: packets to pictures, catching up with live, damage tolerated.

use std::sync::Arc;

use patchbay_bus::{EndReason, now};
use patchbay_media::{Frame, MediaTime, TrackInfo};

use super::share::Audience;
use super::{Picture, VideoDecoder};
use crate::error::CodecError;
use crate::registry;
use crate::rendition::{Output, Stage};
use crate::stats::{RenditionState, thread_cpu_ns};

/// Behind its source by more than this, a decoder shows nothing…
const LATE: MediaTime = MediaTime::from_secs(1);
/// …until it is this close again. It starts that way: the newest group may be seconds long.
const NEAR: MediaTime = MediaTime::from_millis(200);
/// Undecodable packets in a row after which the decoder is rebuilt.
const BAD_MAX: u32 = 30;

pub(super) struct DecodeStage {
    audience: Arc<Audience>,
    info: Option<Arc<TrackInfo>>,
    decoder: Option<Box<dyn VideoDecoder>>,
    catching_up: bool,
    /// The newest picture that was decoded but not shown while catching up.
    held: Option<Picture>,
    /// Whether anything was shown: before that, nothing can be missed.
    began: bool,
    /// Frames missing before the next one that is shown.
    loss: u32,
    bad: u32,
}

impl DecodeStage {
    /// A stage that shows its pictures to `audience`.
    pub(super) fn new(audience: Arc<Audience>) -> Self {
        Self { audience, info: None, decoder: None, catching_up: true, held: None, began: false, loss: 0, bad: 0 }
    }

    /// A packet was bad: counts it, or gives up on the decoder.
    fn tolerate(&mut self, error: CodecError, out: &Output<'_>) -> Result<(), CodecError> {
        if !error.is_packet() || self.bad >= BAD_MAX {
            return Err(error);
        }
        tracing::debug!(%error, "video packet counts as lost");
        self.bad += 1;
        self.loss = self.loss.saturating_add(1);
        self.audience.dropped(1);
        out.ask_source_for_key();
        Ok(())
    }

    /// Shows what the decoder has ready.
    fn receive(&mut self, out: &Output<'_>) -> Result<(), CodecError> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(()) };
            match decoder.receive() {
                Ok(Some(picture)) => {
                    self.bad = 0;
                    self.picture(picture);
                }
                Ok(None) => return Ok(()),
                // An error from here consumes the picture, so the loop comes to an end.
                Err(e) => self.tolerate(e, out)?,
            }
        }
    }

    fn picture(&mut self, picture: Picture) {
        if !self.catching_up {
            self.held = None;
            return self.show(picture);
        }
        if self.held.replace(picture).is_some() && self.began {
            self.loss = self.loss.saturating_add(1);
            self.audience.dropped(1);
        }
    }

    fn show(&mut self, picture: Picture) {
        let Some(info) = &self.info else { return };
        self.began = true;
        self.audience.show(picture, info, std::mem::take(&mut self.loss));
    }

    /// Takes what the old decoder still holds.
    fn drain(&mut self, out: &Output<'_>) -> Result<(), CodecError> {
        if let Some(decoder) = &mut self.decoder {
            decoder.drain();
        }
        let result = self.receive(out);
        self.decoder = None;
        result
    }

    fn decode(&mut self, frame: &Frame, out: &Output<'_>) -> Result<(), CodecError> {
        if self.decoder.is_none() {
            let Some(info) = self.info.clone().filter(|_| frame.key) else {
                self.audience.dropped(1);
                return Ok(());
            };
            self.decoder = Some(registry::video_decoder(&info)?);
        }
        let lag = now() - frame.arrival;
        self.catching_up = if self.catching_up { lag > NEAR } else { lag > LATE };
        self.loss = self.loss.saturating_add(frame.loss);
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        decoder.hurry(self.catching_up);
        if let Err(e) = decoder.send(frame) {
            self.tolerate(e, out)?;
        }
        self.receive(out)
    }
}

impl Stage for DecodeStage {
    fn describe(&mut self, info: &Arc<TrackInfo>, out: &mut Output<'_>) -> Result<(), CodecError> {
        let same = self.info.as_ref().is_some_and(|old| old.codec == info.codec && old.config == info.config);
        let drained = if same { Ok(()) } else { self.drain(out) };
        self.info = Some(info.clone());
        drained
    }

    fn frame(&mut self, frame: &Frame, out: &mut Output<'_>) -> Result<(), CodecError> {
        let before = thread_cpu_ns();
        let result = self.decode(frame, out);
        self.audience.read(thread_cpu_ns().saturating_sub(before));
        result
    }

    fn skip(&mut self) {
        self.audience.dropped(1);
        self.audience.read(0);
    }

    fn gap(&mut self, frames: u64, out: &mut Output<'_>) {
        self.audience.dropped(frames);
        self.loss = self.loss.saturating_add(u32::try_from(frames).unwrap_or(u32::MAX));
        // A group follows that does not refer to what the decoder still has; its pictures are still good.
        if let Err(error) = self.drain(out) {
            tracing::debug!(%error, "pictures before a gap are lost");
        }
    }

    fn idle(&mut self, _: MediaTime, _: &mut Output<'_>) -> Result<Option<MediaTime>, CodecError> {
        // All there is has been decoded: this is as near as it gets.
        if let Some(picture) = self.held.take() {
            self.show(picture);
        }
        Ok(None)
    }

    fn finish(&mut self, out: &mut Output<'_>) {
        if let Err(error) = self.drain(out) {
            tracing::debug!(%error, "video tail is lost");
        }
        if let Some(picture) = self.held.take() {
            self.show(picture);
        }
    }

    fn is_ahead(&self) -> bool {
        self.audience.is_crowded()
    }

    fn reset(&mut self) {
        self.audience.restarted();
        self.decoder = None;
        self.held = None;
        self.bad = 0;
        self.catching_up = true;
    }

    fn ended(&mut self, reason: EndReason, state: RenditionState) {
        self.audience.end(reason, state);
    }
}

//! One audio rendition: packets are decoded, put on the source clock without gaps, resampled and encoded.

use std::collections::VecDeque;
use std::sync::Arc;

use patchbay_bus::now;
use patchbay_media::{AudioTarget, Codec, Frame, MediaTime, TrackInfo};

use super::clock::{Fit, SourceClock, stretch};
use super::resample::Resampler;
use super::{AudioDecoder, AudioEncoder, Pcm};
use crate::error::{CodecError, LibraryError};
use crate::limits::PACKET_MAX;
use crate::registry;
use crate::rendition::{Output, Stage};

/// Missing sound up to this long is made up by the decoder; the rest is silence.
const CONCEAL_MAX: MediaTime = MediaTime::from_millis(100);
/// How long nothing may come from a source that delivers in bursts before silence is produced in its place.
const PATIENCE_MAX: MediaTime = MediaTime::from_secs(1);
/// This many packets in time, and patience is halved again.
const PATIENCE_DECAY: u32 = 3_000;
/// A restart may overlap what is already out by this much; the overlap is dropped.
const STEP_BACK_MAX: MediaTime = MediaTime::from_secs(1);
/// Pace of the silence.
const IDLE_STEP: MediaTime = MediaTime::from_millis(20);
/// Silence made up in one turn at most; after a longer sleep the next turn continues.
const FILL_MAX: MediaTime = MediaTime::from_secs(2);
/// Silence goes down the line in pieces of this: every buffer on the way stays as large as what it held once.
const SILENCE_PIECE: MediaTime = MediaTime::from_millis(50);
/// Undecodable packets in a row after which the decoder is rebuilt: about a second.
const BAD_MAX: u32 = 50;

/// Decoded samples on their way to the encoder.
struct Line {
    clock: SourceClock,
    resampler: Resampler,
}

/// Samples at the target's format that wait for a whole frame: less than one frame between turns.
struct Fifo {
    samples: Vec<f32>,
    /// Time of the sample that was first after the last restart.
    origin: MediaTime,
    /// Samples per channel encoded since then.
    encoded: i64,
}

/// When input last came, and how silence stands in for it.
struct Idle {
    last_input: MediaTime,
    /// End of the sound when input last came.
    end: MediaTime,
    patience: MediaTime,
    patience_min: MediaTime,
    in_time: u32,
    /// Whether anything was made up since.
    filled: bool,
    /// How much of that by concealment.
    concealed: MediaTime,
}

pub(crate) struct AudioStage {
    target: AudioTarget,
    /// What the encoder takes; Opus may run below the 48 kHz its track says.
    rate: u32,
    channels: u8,
    info: Option<Arc<TrackInfo>>,
    decoder: Option<Box<dyn AudioDecoder>>,
    encoder: Option<Box<dyn AudioEncoder>>,
    pcm: Pcm,
    line: Option<Line>,
    fifo: Fifo,
    idle: Idle,
    /// Arrival of the newest packet.
    arrival: MediaTime,
    /// When the packets came that are still on their way through.
    heard: Heard,
    last_out: Option<MediaTime>,
    /// Packets are missing before the next one.
    lost: bool,
    bad: u32,
}

impl AudioStage {
    /// A stage for `target`, and the track it will write. Silence goes out after `silence_after` without input.
    pub(crate) fn new(target: AudioTarget, silence_after: MediaTime) -> Result<(Self, TrackInfo), CodecError> {
        let encoder = registry::audio_encoder(&target)?;
        let info = encoder.track_info();
        let channels = info.audio_shape().map_or(target.channels, |a| a.channels);
        let idle = Idle {
            last_input: MediaTime::ZERO,
            end: MediaTime::ZERO,
            patience: silence_after,
            patience_min: silence_after,
            in_time: 0,
            filled: false,
            concealed: MediaTime::ZERO,
        };
        let stage = Self {
            target,
            rate: target.sample_rate,
            channels,
            info: None,
            decoder: None,
            encoder: Some(encoder),
            pcm: Pcm::default(),
            line: None,
            fifo: Fifo { samples: Vec::new(), origin: MediaTime::ZERO, encoded: 0 },
            idle,
            arrival: MediaTime::ZERO,
            heard: Heard::default(),
            last_out: None,
            lost: false,
            bad: 0,
        };
        Ok((stage, info))
    }

    fn broken(&self, role: &'static str, why: LibraryError) -> CodecError {
        CodecError::Broken { codec: self.target.codec, role, why }
    }

    fn source_codec(&self) -> Codec {
        self.info.as_ref().map_or(self.target.codec, |i| i.codec)
    }

    /// Decodes into `self.pcm`; false when the packet is lost.
    fn decode(&mut self, payload: &[u8], out: &mut Output<'_>) -> Result<bool, CodecError> {
        self.pcm.clear();
        let Some(decoder) = &mut self.decoder else { return Ok(false) };
        let result = if payload.len() > PACKET_MAX {
            Err(CodecError::PacketTooLarge { codec: self.source_codec(), len: payload.len() })
        } else {
            decoder.decode(payload, &mut self.pcm)
        };
        match result {
            Ok(()) => {
                self.bad = 0;
                Ok(true)
            }
            Err(e) if e.is_packet() && self.bad < BAD_MAX => {
                tracing::debug!(error = %e, "audio packet counts as lost");
                self.bad += 1;
                self.lost = true;
                self.pcm.clear();
                out.dropped(1);
                Ok(false)
            }
            Err(e) => {
                self.bad = 0;
                Err(e)
            }
        }
    }

    /// Begins anew at `pts`: the first packet, or the source's clock was set.
    fn start_at(&mut self, pts: MediaTime) -> Result<(), CodecError> {
        let from = (self.pcm.rate, self.pcm.channels);
        let resampler = Resampler::new(from, (self.rate, self.channels)).map_err(|e| self.broken("resampler", e))?;
        self.line = Some(Line { clock: SourceClock::new(from.0, pts), resampler });
        self.fifo = Fifo { samples: Vec::new(), origin: pts, encoded: 0 };
        // A clock that was set back far starts a new sequence; a rebuilt codec continues the old one.
        self.last_out = self.last_out.filter(|&last| last - pts < STEP_BACK_MAX);
        Ok(())
    }

    /// The decoder's format changed: the same clock goes on in other units.
    fn reformat(&mut self) -> Result<(), CodecError> {
        let from = (self.pcm.rate, self.pcm.channels);
        let opened = Resampler::new(from, (self.rate, self.channels)).map_err(|e| self.broken("resampler", e))?;
        let Some(line) = &mut self.line else { return Ok(()) };
        let mut old = std::mem::replace(&mut line.resampler, opened);
        let end = line.clock.end();
        line.clock = SourceClock::new(from.0, end);
        // A filter that fails to flush loses a few samples; the alignment below makes them up.
        let _ = old.flush(&mut self.fifo.samples);
        let wanted = (end - self.fifo.origin).to_ticks(self.rate) - self.fifo.encoded;
        let wanted = usize::try_from(wanted).unwrap_or(0) * usize::from(self.channels);
        self.fifo.samples.resize(wanted.min(self.fifo.samples.len() + self.rate as usize), 0.0);
        Ok(())
    }

    /// Sends `self.pcm` on.
    fn deliver(&mut self, out: &mut Output<'_>) -> Result<(), CodecError> {
        let Some(line) = &mut self.line else { return Ok(()) };
        line.clock.advance(self.pcm.len());
        let result = line.resampler.convert(&self.pcm.samples, &mut self.fifo.samples);
        result.map_err(|e| self.broken("resampler", e))?;
        self.encode(out)
    }

    /// Encodes every whole frame.
    fn encode(&mut self, out: &mut Output<'_>) -> Result<(), CodecError> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        let frame = encoder.frame_samples();
        let step = frame * usize::from(self.channels);
        let mut at = 0;
        while let Some(samples) = self.fifo.samples.get(at..at + step) {
            let packet = encoder.encode(samples)?;
            let begin = self.fifo.encoded - encoder.latency_samples() as i64;
            at += step;
            self.fifo.encoded += frame as i64;
            let pts = self.fifo.origin + MediaTime::from_ticks(begin, self.rate);
            // Only a rebuilt encoder's look-ahead can reach back behind what is already out.
            let Some(payload) = packet.filter(|_| self.last_out.is_none_or(|last| pts > last)) else { continue };
            self.last_out = Some(pts);
            let duration = MediaTime::from_ticks(frame as i64, self.rate);
            let arrival = self.heard.arrival_of(pts).unwrap_or(self.arrival);
            out.push(Frame { pts, dts: pts, duration, key: true, loss: 0, arrival, payload });
        }
        self.fifo.samples.drain(..at);
        Ok(())
    }

    /// Puts `samples` of made-up sound on the line: the decoder's guess first, then silence.
    fn fill(&mut self, samples: usize, next: Option<&[u8]>, out: &mut Output<'_>) -> Result<(), CodecError> {
        let Some(line) = &self.line else { return Ok(()) };
        let format = line.resampler.from();
        let may = line.clock.samples_in(CONCEAL_MAX - self.idle.concealed).min(samples);
        self.pcm.clear();
        if let Some(decoder) = self.decoder.as_mut().filter(|_| may > 0) {
            // The redundancy in `next` covers the packet just before it, so it helps only where the guess reaches it.
            decoder.conceal(may, next.filter(|_| may == samples), &mut self.pcm);
        }
        if (self.pcm.rate, self.pcm.channels) != format {
            self.pcm = Pcm { rate: format.0, channels: format.1, samples: Vec::new() };
        }
        let made = self.pcm.len().min(samples);
        self.pcm.samples.truncate(made * usize::from(format.1));
        self.idle.concealed += MediaTime::from_ticks(made as i64, format.0);
        let (mut left, piece) = (samples - made, line.clock.samples_in(SILENCE_PIECE).max(1));
        loop {
            let silent = left.min(piece);
            self.pcm.silence(silent);
            self.deliver(out)?;
            left -= silent;
            if left == 0 {
                return Ok(());
            }
            self.pcm.samples.clear();
        }
    }

    /// Decodes a packet and puts it where its timestamp says.
    fn place(&mut self, frame: &Frame, out: &mut Output<'_>) -> Result<(), CodecError> {
        let after_loss = std::mem::take(&mut self.lost) || frame.loss > 0;
        let mut fit = self.line.as_mut().map_or(Fit::Jump, |l| l.clock.fit(frame.pts, after_loss));
        if let Fit::Gap(samples) = fit {
            self.fill(samples, Some(&frame.payload), out)?;
            fit = Fit::Follows;
        }
        if !self.decode(&frame.payload, out)? || self.pcm.len() == 0 {
            return Ok(());
        }
        self.idle.concealed = MediaTime::ZERO;
        let format = (self.pcm.rate, self.pcm.channels);
        if fit == Fit::Jump {
            self.start_at(frame.pts)?;
        } else if self.line.as_ref().is_some_and(|l| l.resampler.from() != format) {
            self.reformat()?;
        }
        match fit {
            Fit::Late(samples) => {
                if self.idle.filled && samples >= self.pcm.len() {
                    self.be_more_patient();
                }
                self.pcm.trim_front(samples);
            }
            _ => {
                let len = self.pcm.len();
                let by = self.line.as_mut().map_or(0, |l| l.clock.stretch(len));
                stretch(&mut self.pcm.samples, usize::from(format.1), by);
            }
        }
        self.deliver(out)
    }

    fn be_more_patient(&mut self) {
        self.idle.patience = (self.idle.patience + self.idle.patience).min(PATIENCE_MAX.max(self.idle.patience_min));
        self.idle.in_time = 0;
    }

    fn input_came(&mut self) {
        let Some(line) = &self.line else { return };
        self.idle.last_input = now();
        self.idle.end = line.clock.end();
        self.idle.in_time += 1;
        if self.idle.filled || self.idle.in_time < PATIENCE_DECAY {
            self.idle.filled = false;
            return;
        }
        self.idle.in_time = 0;
        self.idle.patience = MediaTime::from_nanos(self.idle.patience.as_nanos() / 2).max(self.idle.patience_min);
    }
}

impl Stage for AudioStage {
    fn describe(&mut self, info: &Arc<TrackInfo>, _: &mut Output<'_>) -> Result<(), CodecError> {
        if self.info.as_deref() != Some(&**info) {
            self.decoder = None;
        }
        self.info = Some(info.clone());
        Ok(())
    }

    fn frame(&mut self, frame: &Frame, out: &mut Output<'_>) -> Result<(), CodecError> {
        if self.decoder.is_none() {
            let Some(info) = &self.info else { return Ok(()) };
            self.decoder = Some(registry::audio_decoder(info)?);
        }
        if self.encoder.is_none() {
            let encoder = registry::audio_encoder(&self.target)?;
            out.set_info(encoder.track_info());
            self.encoder = Some(encoder);
        }
        self.arrival = frame.arrival;
        self.heard.note(frame.pts, frame.arrival);
        self.place(frame, out)?;
        self.input_came();
        Ok(())
    }

    fn gap(&mut self, _: u64, _: &mut Output<'_>) {
        self.lost = true;
    }

    fn idle(&mut self, now: MediaTime, out: &mut Output<'_>) -> Result<Option<MediaTime>, CodecError> {
        let Some(line) = &self.line else { return Ok(None) };
        let quiet = now - self.idle.last_input;
        if quiet < self.idle.patience {
            return Ok(Some(self.idle.last_input + self.idle.patience));
        }
        let missing = (self.idle.end + quiet - line.clock.end()).min(FILL_MAX);
        let samples = line.clock.samples_in(missing);
        if samples > 0 {
            self.arrival = now;
            self.idle.filled = true;
            self.fill(samples, None, out)?;
        }
        Ok(Some(now + IDLE_STEP))
    }

    fn finish(&mut self, out: &mut Output<'_>) {
        let Some(encoder) = &self.encoder else { return };
        let frame = encoder.frame_samples();
        let latency = encoder.latency_samples();
        if let Some(line) = &mut self.line {
            let _ = line.resampler.flush(&mut self.fifo.samples);
        }
        let channels = usize::from(self.channels);
        let held = self.fifo.samples.len() / channels.max(1);
        let total = (held + latency).next_multiple_of(frame.max(1));
        self.fifo.samples.resize(total * channels, 0.0);
        // The track ends either way; a failing encoder only loses its tail.
        if let Err(error) = self.encode(out) {
            tracing::debug!(%error, "audio tail is lost");
        }
    }

    fn reset(&mut self) {
        self.decoder = None;
        self.encoder = None;
        self.line = None;
        self.fifo.samples.clear();
        self.lost = false;
        self.bad = 0;
    }
}

/// When recent packets arrived, so that the delay of what comes out counts look-ahead and re-framing too.
#[derive(Default)]
struct Heard(VecDeque<(MediaTime, MediaTime)>);

impl Heard {
    /// Encoder and FIFO hold less than half a second: 64 packets of 10 ms.
    const PACKETS_MAX: usize = 64;
    /// A packet is not longer than this; sound after it was made up.
    const PACKET_LENGTH_MAX: MediaTime = MediaTime::from_millis(130);

    fn note(&mut self, pts: MediaTime, arrival: MediaTime) {
        if self.0.len() == Self::PACKETS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((pts, arrival));
    }

    /// When the sound of `pts` would be due in a player that plays the source's packets as they come: what is later
    /// than that was added here.
    fn arrival_of(&self, pts: MediaTime) -> Option<MediaTime> {
        let (begin, arrival) = self.0.iter().rev().find(|(begin, _)| *begin <= pts)?;
        let into = pts - *begin;
        (into <= Self::PACKET_LENGTH_MAX).then_some(*arrival + into)
    }
}

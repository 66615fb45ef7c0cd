//! [`AudioIngest`]: PES packets of sound become frames on the bus.

use patchbay_bus::{Publisher, TrackWriter};
use patchbay_media::timeline::{Timeline, Track};
use patchbay_media::{Frame, MediaTime, TrackInfo};

use super::sound::{Format, SoundFrame, Splitter};
use crate::ts::{Pes, STAMP_MASK, StreamType};

/// The audio track, from its first frame on.
#[derive(Default)]
pub(super) struct AudioIngest {
    writer: Option<TrackWriter>,
    info: Option<TrackInfo>,
    splitter: Option<Splitter>,
    frames: Vec<SoundFrame>,
}

impl AudioIngest {
    /// Takes one PES packet; the frames in it are stamped one by one. Says how many stretches of it were no frames.
    pub(super) fn take(&mut self, pes: &Pes, arrival: MediaTime, clock: (&mut Timeline, Track), publisher: &Publisher) -> u32 {
        let format = if pes.stream_type == StreamType::Adts { Format::Adts } else { Format::Mpeg };
        if self.splitter.as_ref().is_none_or(|s| s.format() != format) {
            self.splitter = Some(Splitter::new(format));
        }
        let Some(splitter) = &mut self.splitter else { return 0 };
        if pes.lost > 0 {
            splitter.interrupted();
        }
        let mut frames = std::mem::take(&mut self.frames);
        splitter.push(&pes.data, pes.pts, &mut frames);
        let (timeline, track) = clock;
        let mut lost = pes.lost;
        let mut strange = 0;
        for frame in frames.drain(..) {
            lost += frame.lost;
            strange += frame.lost;
            // Frames before the first stamp have no time.
            let Some(stamp) = frame.stamp else { continue };
            let time = timeline.stamp(track, stamp & STAMP_MASK, arrival).time;
            self.push(frame, time, arrival, std::mem::take(&mut lost), publisher);
        }
        self.frames = frames;
        strange
    }

    pub(super) fn into_writer(self) -> Option<TrackWriter> {
        self.writer
    }

    fn push(&mut self, frame: SoundFrame, time: MediaTime, arrival: MediaTime, loss: u32, publisher: &Publisher) {
        let info = frame.header.track_info();
        let duration = MediaTime::from_ticks(frame.header.samples.into(), frame.header.shape.sample_rate);
        let writer = self.writer.get_or_insert_with(|| publisher.add_track(info.clone()));
        if self.info.as_ref() != Some(&info) {
            writer.set_info(info.clone());
            self.info = Some(info);
        }
        writer.push(Frame { pts: time, dts: time, duration, key: true, loss, arrival, payload: frame.payload });
    }
}

//! One decoder per source, whatever the number of renditions: who listens to it, and the pictures that wait for each.
//!
//! Pictures are shared, not copied. A rendition that encodes too slowly loses pictures of its own and holds up
//! nobody else. The decoder ends with its last listener.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use patchbay_bus::{EndReason, Lag, Limits, Signal, Start, Track, TrackUid};
use patchbay_media::TrackInfo;

use super::Picture;
use super::decoding::DecodeStage;
use crate::engine::LAG_MAX;
use crate::pool::{Pool, Task};
use crate::rendition::Worker;
use crate::stats::{RenditionState, Stats};

/// Pictures that wait for one encoder at most: about a second, as long as other lags may be.
const PICTURES_MAX: usize = 32;
/// Bytes of them at most, as 4:2:0; one may always wait.
const BYTES_MAX: usize = 64 << 20;
/// A queue that is full is emptied to this part of it, oldest pictures first: the encoder is near live again, and not
/// a second late for good.
const KEPT: usize = 4;

/// A picture on its way to an encoder.
pub(super) struct Shown {
    pub(super) picture: Picture,
    /// The source at that time.
    pub(super) info: Arc<TrackInfo>,
    /// Frames missing before it.
    pub(super) loss: u32,
}

/// With so many waiting, a decoder that has more to read takes its time: after a pause of the machine it would decode a second's
/// pictures at once, and decoders keep the memory of as many pictures as there ever were.
const CROWD: usize = 8;

/// What an encoder finds.
pub(super) enum Next {
    Picture(Shown),
    /// Nothing now; this many source frames were read since it was last so.
    Empty(u64),
    End(EndReason, RenditionState),
}

#[derive(Default)]
struct Waiting {
    pictures: VecDeque<Shown>,
    bytes: usize,
    /// Lost from this queue before its first picture.
    loss: u32,
    /// Source frames read and not yet told.
    read: u64,
    end: Option<(EndReason, RenditionState)>,
}

/// Pictures that wait for one rendition.
pub(crate) struct Queue {
    stats: Arc<Stats>,
    signal: Arc<Signal>,
    waiting: Mutex<Waiting>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn bytes_of(picture: &Picture) -> usize {
    picture.frame.width() as usize * picture.frame.height() as usize * 3 / 2
}

impl Queue {
    fn push(&self, shown: Shown) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += bytes_of(&shown.picture);
        waiting.pictures.push_back(shown);
        if waiting.pictures.len() <= PICTURES_MAX && waiting.bytes <= BYTES_MAX {
            return;
        }
        while waiting.pictures.len() > 1 && (waiting.pictures.len() > PICTURES_MAX / KEPT || waiting.bytes > BYTES_MAX / KEPT) {
            let Some(oldest) = waiting.pictures.pop_front() else { break };
            waiting.bytes -= bytes_of(&oldest.picture);
            waiting.loss = waiting.loss.saturating_add(oldest.loss).saturating_add(1);
            self.stats.shed();
        }
    }

    /// Takes what is next.
    pub(super) fn pop(&self) -> Next {
        let mut waiting = lock(&self.waiting);
        if let Some(mut shown) = waiting.pictures.pop_front() {
            waiting.bytes -= bytes_of(&shown.picture);
            shown.loss = shown.loss.saturating_add(std::mem::take(&mut waiting.loss));
            return Next::Picture(shown);
        }
        let read = std::mem::take(&mut waiting.read);
        match waiting.end {
            Some((reason, state)) if read == 0 => Next::End(reason, state),
            _ => Next::Empty(read),
        }
    }
}

#[derive(Default)]
struct Room {
    seats: Vec<Arc<Queue>>,
    /// The newest picture: a rendition that joins begins with it.
    last: Option<(Picture, Arc<TrackInfo>)>,
    ended: bool,
}

/// The renditions of one source, as its decoder sees them.
#[derive(Default)]
pub(super) struct Audience(Mutex<Room>);

impl Audience {
    /// Adds a rendition; false when the decoder has ended.
    fn join(&self, queue: &Arc<Queue>) -> bool {
        let mut room = lock(&self.0);
        if room.ended {
            return false;
        }
        if let Some((picture, info)) = &room.last
            && let Some(picture) = picture.share()
        {
            queue.push(Shown { picture, info: info.clone(), loss: 0 });
        }
        room.seats.push(queue.clone());
        true
    }

    fn leave(&self, queue: &Arc<Queue>) {
        lock(&self.0).seats.retain(|seat| !Arc::ptr_eq(seat, queue));
    }

    fn each(&self, mut then: impl FnMut(&Queue)) {
        lock(&self.0).seats.iter().for_each(|seat| then(seat));
    }

    /// Shows everybody a picture.
    pub(super) fn show(&self, picture: Picture, info: &Arc<TrackInfo>, loss: u32) {
        let mut room = lock(&self.0);
        for seat in &room.seats {
            // Only memory can fail here; the encoder then goes without this picture.
            let Some(picture) = picture.share() else { continue };
            seat.push(Shown { picture, info: info.clone(), loss });
            seat.signal.notify();
        }
        room.last = Some((picture, info.clone()));
    }

    /// A source frame was read, and what came of it shown. `cpu_ns` of the decoder is divided among all.
    pub(super) fn read(&self, cpu_ns: u64) {
        let room = lock(&self.0);
        for seat in &room.seats {
            lock(&seat.waiting).read += 1;
            seat.stats.spent(cpu_ns / room.seats.len() as u64);
            seat.signal.notify();
        }
    }

    /// Whether somebody has many pictures yet to encode.
    pub(super) fn is_crowded(&self) -> bool {
        lock(&self.0).seats.iter().any(|seat| lock(&seat.waiting).pictures.len() >= CROWD)
    }

    /// Source frames nobody will see.
    pub(super) fn dropped(&self, frames: u64) {
        self.each(|seat| seat.stats.dropped(frames));
    }

    /// The decoder failed and is rebuilt.
    pub(super) fn restarted(&self) {
        self.each(|seat| seat.stats.restarted());
    }

    /// No picture follows.
    pub(super) fn end(&self, reason: EndReason, state: RenditionState) {
        let mut room = lock(&self.0);
        room.ended = true;
        room.last = None;
        for seat in room.seats.drain(..) {
            lock(&seat.waiting).end = Some((reason, state));
            seat.signal.notify();
        }
    }
}

/// A running decoder; ends when dropped.
struct Decoder {
    audience: Arc<Audience>,
    task: Arc<Task>,
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.task.stop();
    }
}

/// A rendition's share in a decoder; given up when dropped.
pub(crate) struct Seat {
    decoder: Arc<Decoder>,
    queue: Arc<Queue>,
}

impl Seat {
    /// Where its pictures wait.
    pub(crate) fn queue(&self) -> Arc<Queue> {
        self.queue.clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.decoder.audience.leave(&self.queue);
    }
}

/// The running decoders, by the source's uid.
#[derive(Default)]
pub(crate) struct Decoders(Mutex<HashMap<TrackUid, Weak<Decoder>>>);

impl Decoders {
    /// A seat at the decoder of `source`, which is started if there is none. `signal` tells of pictures.
    pub(crate) fn join(&self, source: &Arc<Track>, stats: Arc<Stats>, signal: Arc<Signal>, pool: &Pool) -> Seat {
        let queue = Arc::new(Queue { stats, signal, waiting: Mutex::default() });
        let mut running = lock(&self.0);
        running.retain(|_, decoder| decoder.strong_count() > 0);
        let known = running.get(&source.uid()).and_then(Weak::upgrade);
        if let Some(decoder) = known.filter(|decoder| decoder.audience.join(&queue)) {
            return Seat { decoder, queue };
        }
        let audience = Arc::new(Audience::default());
        audience.join(&queue);
        let signal = Arc::new(Signal::new());
        let reader = source.read(Start::Newest, Lag::Skip(LAG_MAX), signal.clone());
        // The worker writes frames; a decoder has none, and this track no reader.
        let writer = Track::create(source.kind(), None, Limits::default());
        let worker = Worker::new(reader, writer, Box::new(DecodeStage::new(audience.clone())), Arc::default());
        let decoder = Arc::new(Decoder { audience, task: pool.spawn(Box::new(worker), signal) });
        running.insert(source.uid(), Arc::downgrade(&decoder));
        Seat { decoder, queue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ffmpeg_next::format::Pixel;
    use patchbay_media::{Codec, MediaTime, VideoShape};

    fn shown(info: &Arc<TrackInfo>, n: i64, width: u32, height: u32) -> Shown {
        let frame = ffmpeg_next::frame::Video::new(Pixel::YUV420P, width, height);
        Shown { picture: Picture { frame, pts: MediaTime::from_millis(n), arrival: MediaTime::ZERO }, info: info.clone(), loss: 0 }
    }

    /// What is left of `count` pictures, with the loss of the first.
    fn left(count: i64, width: u32, height: u32) -> (Vec<i64>, u32, u64) {
        let info = Arc::new(TrackInfo::video(Codec::Mpeg1, bytes::Bytes::new(), VideoShape::default()));
        let queue = Queue { stats: Arc::default(), signal: Arc::default(), waiting: Mutex::default() };
        (0..count).for_each(|n| queue.push(shown(&info, n, width, height)));
        let (mut times, mut loss) = (Vec::new(), 0);
        while let Next::Picture(shown) = queue.pop() {
            times.push(shown.picture.pts.as_millis());
            loss += shown.loss;
        }
        assert_eq!(lock(&queue.waiting).bytes, 0);
        (times, loss, queue.stats.snapshot().dropped)
    }

    #[test]
    fn an_encoder_that_is_too_slow_loses_the_oldest_pictures_and_is_told() {
        assert_eq!(left(32, 64, 64), ((0..32).collect(), 0, 0));
        assert_eq!(left(40, 64, 64), ((25..40).collect(), 25, 25));
        // 4K: twelve megabytes each.
        assert_eq!(left(8, 3_840, 2_160), ((5..8).collect(), 5, 5));
    }
}

//! Model checks of the bus's hand-offs: every interleaving of one writer and one reader.
//!
//! Covered: no wake-up is lost between push, end, keyframe request and a reader that polls then waits. Not
//! covered: memory ordering of the counters (statistics only), more than one reader, the registry's RwLock.
#![cfg(loom)]

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use loom::sync::atomic::{AtomicUsize, Ordering};
use patchbay_bus::{EndReason, Item, KeyframeGate, Lag, Limits, Signal, Start, Track};
use patchbay_media::{AudioShape, Codec, Frame, Kind, MediaTime, TrackInfo};

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn waker() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (count.clone(), count.into())
}

fn frame(ms: i64) -> Frame {
    let time = MediaTime::from_millis(ms);
    Frame { pts: time, dts: time, duration: MediaTime::ZERO, key: true, loss: 0, arrival: time, payload: Bytes::new() }
}

#[test]
fn a_notification_is_never_lost() {
    loom::model(|| {
        let signal = Arc::new(Signal::new());
        let other = signal.clone();
        let writer = loom::thread::spawn(move || other.notify());
        let (count, waker) = waker();
        let first = signal.poll(&mut Context::from_waker(&waker));
        writer.join().unwrap();
        // Either the poll saw it, or the waker was called, and then the flag is still set.
        if first == Poll::Pending {
            assert_eq!(count.0.load(Ordering::SeqCst), 1);
            assert_eq!(signal.poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
        }
    });
}

#[test]
fn a_reader_that_waits_is_woken_for_every_frame_and_the_end() {
    loom::model(|| {
        let info = TrackInfo::audio(Codec::Opus, Bytes::new(), AudioShape { sample_rate: 48_000, channels: 2 });
        let mut writer = Track::create(Kind::Audio, Some(info), Limits::default());
        let signal = Arc::new(Signal::new());
        let mut reader = writer.track().read(Start::Live, Lag::Keep, signal.clone());
        let pushing = loom::thread::spawn(move || {
            writer.push(frame(0));
            writer.end(EndReason::Finished);
        });
        let (count, waker) = waker();
        let (mut frames, mut ended) = (0, false);
        let mut pass = |frames: &mut u32, ended: &mut bool| {
            while let Some(item) = reader.poll() {
                match item {
                    Item::Frame(_) => *frames += 1,
                    Item::End(_) => {
                        *ended = true;
                        break;
                    }
                    _ => {}
                }
            }
        };
        pass(&mut frames, &mut ended);
        let waiting = !ended && signal.poll(&mut Context::from_waker(&waker)).is_pending();
        pushing.join().unwrap();
        if waiting {
            assert!(count.0.load(Ordering::SeqCst) > 0, "the reader would sleep for ever");
        }
        pass(&mut frames, &mut ended);
        assert!(ended);
        assert_eq!(frames, 1);
    });
}

#[test]
fn a_keyframe_request_reaches_the_listening_publisher() {
    loom::model(|| {
        let gate = Arc::new(KeyframeGate::default());
        let signal = Arc::new(Signal::new());
        gate.listen(signal.clone());
        let other = gate.clone();
        let viewer = loom::thread::spawn(move || other.request());
        let taken_early = gate.take(MediaTime::ZERO);
        viewer.join().unwrap();
        assert!(signal.take());
        assert!(taken_early || gate.take(MediaTime::ZERO));
    });
}

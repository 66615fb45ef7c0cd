//! A hub that passes everything: the real bus, no rules, no transcoding, no authorisation.
#![allow(dead_code, reason = "shared by tests, bench and example, each of which uses a part")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use patchbay_bus::{Bus, Change, Feed, FeedValue, Observer, Point, StreamName, Track};
use patchbay_contract::{Answer, Cause, Closer, Code, Counters, Hub, Leg, Place, PlayRequest, Publication, PublishRequest, Refusal};
use patchbay_media::Kind;
use patchbay_rules::EndpointKind;
use tokio_util::sync::CancellationToken;

type Feeds = Arc<Mutex<Vec<(StreamName, Weak<Feed>)>>>;

/// See the module.
pub struct PassHub {
    pub bus: Arc<Bus>,
    feeds: Feeds,
    next: AtomicU64,
    /// Protocol and cause of every session that has ended.
    pub ended: Arc<Mutex<Vec<(&'static str, Cause)>>>,
    /// Of every session that plays, in order.
    pub played: Mutex<Vec<Arc<Counters>>>,
    /// How long it takes to decide on a player of this stream.
    pub slow: Mutex<Option<(StreamName, Duration)>>,
}

struct Refeed {
    bus: Weak<Bus>,
    feeds: Feeds,
}

impl Observer for Refeed {
    fn changed(&self, stream: &StreamName, change: Change) {
        let Some(bus) = self.bus.upgrade() else { return };
        for (name, feed) in self.feeds.lock().unwrap().iter() {
            if let Some(feed) = feed.upgrade().filter(|_| name == stream) {
                let mut value = current(&bus, name);
                if let Change::Ended(reason) = change {
                    value.ended = Some(reason);
                }
                feed.set(value);
            }
        }
    }
}

fn current(bus: &Bus, name: &StreamName) -> FeedValue {
    let Some(stream) = bus.get(name) else { return FeedValue::default() };
    let point = |kind| {
        let track = stream.track(kind)?;
        let epoch = track.info()?.1;
        Some(Point { track, epoch })
    };
    FeedValue { video: point(Kind::Video), audio: point(Kind::Audio), ended: None }
}

impl PassHub {
    pub fn new() -> Arc<Self> {
        let (bus, feeds) = (Bus::new(), Arc::new(Mutex::new(Vec::new())));
        bus.observe(Arc::new(Refeed { bus: Arc::downgrade(&bus), feeds: feeds.clone() }));
        Arc::new(Self { bus, feeds, next: AtomicU64::new(1), ended: Arc::default(), played: Mutex::default(), slow: Mutex::default() })
    }

    /// Turns the video of all feeds of a stream to another track.
    pub fn point_video(&self, stream: &StreamName, track: &Arc<Track>) {
        for feed in self.feeds.lock().unwrap().iter().filter(|(name, _)| name == stream).filter_map(|(_, feed)| feed.upgrade()) {
            let mut value = feed.get();
            value.video = Some(Point { track: track.clone(), epoch: 0 });
            feed.set(value);
        }
    }

    fn closer(&self, protocol: &'static str) -> Closer {
        let ended = self.ended.clone();
        Box::new(move |cause, _| {
            tracing::info!(protocol, ?cause, "session ends");
            ended.lock().unwrap().push((protocol, cause));
        })
    }
}

impl Hub for PassHub {
    /// WebRTC connections are bounded by the gateway, however many come from one address.
    fn connect(&self, peer: SocketAddr) -> Result<Option<Place>, Refusal> {
        Err(Refusal::new(Code::AddressLimit, format!("{peer} has its connections")))
    }

    fn publish(&self, request: PublishRequest) -> Answer<'_, Publication> {
        Box::pin(async move {
            let publisher = self.bus.publish(request.stream)?;
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let closer = self.closer(request.caller.protocol);
            Ok(Publication::new(id, publisher, Arc::new(Counters::default()), CancellationToken::new(), closer))
        })
    }

    fn play(&self, request: PlayRequest) -> Answer<'_, Leg> {
        let slow = self.slow.lock().unwrap().clone().filter(|(stream, _)| *stream == request.stream);
        Box::pin(async move {
            if let Some((_, pause)) = slow {
                tokio::time::sleep(pause).await;
            }
            if self.bus.get(&request.stream).is_none() && !request.wait {
                return Err(Refusal::new(Code::StreamNotFound, format!("nobody publishes {}", request.stream)));
            }
            let feed = Arc::new(Feed::default());
            feed.set(current(&self.bus, &request.stream));
            self.feeds.lock().unwrap().push((request.stream.clone(), Arc::downgrade(&feed)));
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let closer = self.closer(request.caller.protocol);
            let counters = Arc::new(Counters::default());
            self.played.lock().unwrap().push(counters.clone());
            Ok(Leg::new(id, request.stream, feed, counters, CancellationToken::new(), closer))
        })
    }

    fn kind_of(&self, _: &StreamName, usual: EndpointKind) -> EndpointKind {
        usual
    }
}

//! What readers and subscriptions of the bus may rely on.
#![cfg(not(loom))]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use patchbay_bus::{
    Bus, EndReason, Event, Feed, FeedValue, Item, Lag, Limits, Point, Publisher, Reader, Signal, Start, StreamName, Subscription, Track,
    TrackWriter,
};
use patchbay_media::{AudioShape, Codec, Frame, Kind, MediaTime, TrackInfo, VideoShape};

fn video_info(reorder_frames: u8) -> TrackInfo {
    TrackInfo::video(Codec::H264, Bytes::new(), VideoShape { reorder_frames, ..VideoShape::default() })
}

fn audio_info() -> TrackInfo {
    TrackInfo::audio(Codec::Aac, Bytes::new(), AudioShape { sample_rate: 48_000, channels: 2 })
}

fn frame(ms: i64, key: bool, size: usize) -> Frame {
    let time = MediaTime::from_millis(ms);
    Frame { pts: time, dts: time, duration: MediaTime::ZERO, key, loss: 0, arrival: time, payload: vec![0; size].into() }
}

/// 25 fps, a key frame each second, from `from` to `to` seconds.
fn fill_video(writer: &mut TrackWriter, from: i64, to: i64) {
    (from * 25..to * 25).for_each(|n| writer.push(frame(n * 40, n % 25 == 0, 1_000)));
}

fn video() -> TrackWriter {
    Track::create(Kind::Video, Some(video_info(0)), Limits::default())
}

fn read(writer: &TrackWriter, start: Start, lag: Lag) -> Reader {
    writer.track().read(start, lag, Arc::new(Signal::new()))
}

fn drain(reader: &mut Reader) -> Vec<Item> {
    std::iter::from_fn(|| reader.poll()).take_while(|i| !matches!(i, Item::End(_))).collect()
}

fn times(items: &[Item]) -> Vec<i64> {
    items.iter().filter_map(|i| if let Item::Frame(f) = i { Some(f.pts.as_millis()) } else { None }).collect()
}

#[test]
fn a_late_joiner_starts_with_the_newest_group() {
    let mut writer = video();
    fill_video(&mut writer, 0, 3);
    let items = drain(&mut read(&writer, Start::Newest, Lag::Keep));
    assert!(matches!(items[0], Item::Info(_)));
    assert_eq!(times(&items), (50..75).map(|n| n * 40).collect::<Vec<_>>());
}

#[test]
fn an_old_group_is_joined_only_when_the_source_cannot_begin_another() {
    let old_group = |answered: bool| {
        let mut writer = video();
        if answered {
            writer.track().keyframes().listen(Arc::new(Signal::new()));
        }
        (0..200).for_each(|n| writer.push(frame(n * 40, n == 0, 10)));
        let delivered = drain(&mut read(&writer, Start::Newest, Lag::Keep)).len();
        (delivered, writer.track().keyframes().is_wanted())
    };
    assert_eq!(old_group(false), (201, false));
    assert_eq!(old_group(true), (0, true));
}

#[test]
fn a_reader_that_starts_live_waits_for_a_key_frame() {
    let mut writer = video();
    fill_video(&mut writer, 0, 1);
    let mut reader = read(&writer, Start::Live, Lag::Keep);
    writer.push(frame(1_000, false, 10));
    writer.push(frame(1_040, true, 10));
    assert_eq!(times(&drain(&mut reader)), [1_040]);
}

#[test]
fn a_slow_reader_skips_to_the_newest_group_and_is_told_how_much_it_missed() {
    let mut writer = video();
    fill_video(&mut writer, 0, 1);
    let mut reader = read(&writer, Start::Newest, Lag::Skip(Duration::from_secs(2)));
    assert_eq!(drain(&mut reader).len(), 26);
    fill_video(&mut writer, 1, 6);
    let items = drain(&mut reader);
    assert!(matches!(items[0], Item::Gap(100)), "{:?}", items[0]);
    assert_eq!(times(&items), (125..150).map(|n| n * 40).collect::<Vec<_>>());
}

#[test]
fn the_window_is_bounded_and_evicts_whole_groups() {
    let limits = Limits { bytes_max: 60_000, span_max: MediaTime::from_secs(60) };
    let mut writer = Track::create(Kind::Video, Some(video_info(0)), limits);
    let mut keeper = read(&writer, Start::Newest, Lag::Keep);
    fill_video(&mut writer, 0, 4);
    let items = drain(&mut keeper);
    assert_eq!(times(&items).len(), 25, "an evicted reader goes on with the newest group");
    // A group that never ends loses its head and cannot be joined.
    (0..200).for_each(|n| writer.push(frame(4_000 + n * 40, n == 0, 1_000)));
    assert!(times(&drain(&mut read(&writer, Start::Newest, Lag::Keep))).is_empty());
}

#[test]
fn frames_of_an_unplanned_epoch_are_held_back() {
    let mut writer = video();
    fill_video(&mut writer, 0, 1);
    let (_, epoch) = writer.track().info().unwrap();
    let mut reader = read(&writer, Start::Newest, Lag::Keep);
    reader.allow_epoch(epoch);
    writer.set_info(video_info(2));
    fill_video(&mut writer, 1, 2);
    assert_eq!(times(&drain(&mut reader)).len(), 25);
    reader.allow_epoch(epoch + 1);
    let items = drain(&mut reader);
    assert!(matches!(&items[0], Item::Info(info) if info.video_shape().unwrap().reorder_frames == 2));
    assert_eq!(times(&items).len(), 25);
}

#[test]
fn a_name_has_one_publisher_and_is_free_again_after_it() {
    let bus = Bus::new();
    let publisher = bus.publish("live/a".parse().unwrap()).unwrap();
    assert!(bus.publish("live/a".parse().unwrap()).is_err());
    drop(publisher);
    assert!(bus.publish("live/a".parse().unwrap()).is_ok());
}

#[test]
fn those_who_stand_by_go_live_in_their_order() {
    let bus = Bus::new();
    let name: StreamName = "live/a".parse().unwrap();
    let enter = || bus.publish_or_stand_by(name.clone()).unwrap();
    let [first, second, third, fourth] = [enter(), enter(), enter(), enter()];
    let live = || bus.get(&name).map(|stream| Arc::as_ptr(&stream));
    let is = |publisher: &Publisher| live() == Some(Arc::as_ptr(publisher.stream())) && publisher.stream().is_live();
    assert!(is(&first) && bus.publish(name.clone()).is_err());
    drop(second);
    assert!(is(&first), "one that stood by may leave");
    drop(first);
    assert!(is(&third) && !fourth.stream().is_live());
    drop(third);
    assert!(is(&fourth));
    drop(fourth);
    assert_eq!(live(), None);
}

#[test]
fn only_so_many_stand_by() {
    let bus = Bus::new();
    let entered: Vec<_> = (0..9).map(|_| bus.publish_or_stand_by("live/a".parse().unwrap()).ok()).collect();
    assert_eq!(entered.iter().flatten().count(), 5);
}

fn point(writer: &TrackWriter) -> Option<Point> {
    Some(Point { track: writer.track().clone(), epoch: u32::MAX })
}

fn subscribe(feed: &Arc<Feed>) -> Subscription {
    Subscription::new(feed, Lag::Keep, Arc::new(Signal::new()))
}

fn events(subscription: &mut Subscription) -> Vec<(Kind, i64)> {
    std::iter::from_fn(|| subscription.poll())
        .take_while(|e| !matches!(e, Event::End(_)))
        .filter_map(|e| if let Event::Frame(kind, f) = e { Some((kind, f.pts.as_millis())) } else { None })
        .collect()
}

#[test]
fn audio_and_video_of_a_late_joiner_begin_together_in_decoding_order() {
    let (mut v, mut a) = (video(), Track::create(Kind::Audio, Some(audio_info()), Limits::default()));
    fill_video(&mut v, 0, 3);
    (0..150).for_each(|n| a.push(frame(n * 20, true, 100)));
    let feed = Arc::new(Feed::default());
    feed.set(FeedValue { video: point(&v), audio: point(&a), ended: None });
    let got = events(&mut subscribe(&feed));
    assert_eq!(got[0], (Kind::Video, 2_000));
    assert_eq!(got[1], (Kind::Audio, 2_000));
    assert!(got.windows(2).all(|w| w[0].1 <= w[1].1));
    assert_eq!(got.len(), 75);
}

#[test]
fn a_feed_is_repointed_at_a_key_frame_past_what_was_delivered() {
    let (mut source, mut rendition) = (video(), video());
    fill_video(&mut source, 0, 2);
    let feed = Arc::new(Feed::default());
    feed.set(FeedValue { video: point(&source), ..FeedValue::default() });
    let mut subscription = subscribe(&feed);
    assert_eq!(events(&mut subscription).last(), Some(&(Kind::Video, 1_960)));

    feed.set(FeedValue { video: point(&rendition), ..FeedValue::default() });
    source.push(frame(2_000, true, 10));
    assert_eq!(events(&mut subscription), [(Kind::Video, 2_000)], "the old track goes on until the new one is ready");
    fill_video(&mut rendition, 1, 3);
    rendition.push(frame(3_000, true, 10));
    let got = events(&mut subscription);
    assert_eq!(got, [(Kind::Video, 3_000)], "the first key frame after 2000 ms is the one at 3000 ms");
}

#[test]
fn a_subscription_ends_with_its_feed_and_survives_its_tracks() {
    let mut first = video();
    fill_video(&mut first, 0, 1);
    let feed = Arc::new(Feed::default());
    feed.set(FeedValue { video: point(&first), ..FeedValue::default() });
    let mut subscription = subscribe(&feed);
    first.end(EndReason::Lost);
    assert_eq!(events(&mut subscription).len(), 25);
    let mut second = video();
    feed.set(FeedValue { video: point(&second), ..FeedValue::default() });
    fill_video(&mut second, 5, 6);
    assert_eq!(events(&mut subscription).len(), 25);
    feed.set(FeedValue { ended: Some(EndReason::Finished), ..FeedValue::default() });
    assert!(matches!(subscription.poll(), Some(Event::End(EndReason::Finished))));
}

#[tokio::test]
async fn waiting_readers_are_woken_by_frames_and_by_the_end() {
    let mut writer = video();
    let mut reader = read(&writer, Start::Live, Lag::Keep);
    let task = tokio::spawn(async move {
        let mut frames = 0;
        loop {
            match reader.next().await {
                Item::Frame(_) => frames += 1,
                Item::End(reason) => return (frames, reason),
                _ => {}
            }
        }
    });
    for n in 0..50 {
        writer.push(frame(n * 40, n % 25 == 0, 10));
        tokio::task::yield_now().await;
    }
    writer.end(EndReason::Finished);
    assert_eq!(task.await.unwrap(), (50, EndReason::Finished));
}

#[tokio::test]
async fn sound_is_not_kept_waiting_for_a_picture_that_never_comes() {
    let (v, mut a) = (video(), Track::create(Kind::Audio, Some(audio_info()), Limits::default()));
    let feed = Arc::new(Feed::default());
    feed.set(FeedValue { video: point(&v), audio: point(&a), ended: None });
    let mut subscription = subscribe(&feed);
    let writer = tokio::spawn(async move {
        for n in 0.. {
            a.push(frame(n * 20, true, 10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let heard = tokio::time::timeout(Duration::from_secs(6), async {
        loop {
            if let Event::Frame(Kind::Audio, _) = subscription.next().await {
                return;
            }
        }
    });
    assert!(heard.await.is_ok());
    writer.abort();
}

//! What a [`Timeline`] promises for any input: simulated sources, no clock.

use patchbay_media::MediaTime;
use patchbay_media::timeline::{AHEAD_MAX, LAG_MAX, Stamped, Timeline, Track, Wire, ntp_time};
use proptest::prelude::*;

const MS: i64 = 1_000_000;
const SEC: i64 = 1_000 * MS;

fn ns(t: MediaTime) -> i64 {
    t.as_nanos()
}

/// A sender whose clock shows `phase` at true time 0, runs `ppm` fast and was set forward by `jump` at `jump_at`.
#[derive(Clone, Copy)]
struct Clock {
    wire: Wire,
    phase: u64,
    ppm: i64,
    jump_at: i64,
    jump: i64,
}

impl Clock {
    fn new(wire: Wire, phase: u64) -> Self {
        Self { wire, phase, ppm: 0, jump_at: i64::MAX, jump: 0 }
    }

    /// What the wire shows at true time `t` (ns).
    fn show(&self, t: i64) -> u64 {
        let own = t + t / 1_000_000 * self.ppm + if t >= self.jump_at { self.jump } else { 0 };
        let ticks = MediaTime::from_nanos(own).to_ticks(self.wire.rate_hz) as u64;
        ticks.wrapping_add(self.phase) & (u64::MAX >> (64 - u32::from(self.wire.bits)))
    }
}

/// Audio (every 23 ms) and video (every 33 ms) by true time; `f(is_video, t)`.
fn interleave(seconds: i64, mut f: impl FnMut(bool, i64)) {
    let (mut audio, mut video) = (0, 0);
    while audio.min(video) < seconds * SEC {
        if audio <= video {
            f(false, audio);
            audio += 23 * MS;
        } else {
            f(true, video);
            video += 33 * MS;
        }
    }
}

fn one_domain(wire: Wire) -> (Timeline, Track, Track) {
    let mut timeline = Timeline::new();
    let domain = timeline.domain(wire);
    let audio = timeline.track(domain);
    let video = timeline.track(domain);
    (timeline, audio, video)
}

/// Deterministic jitter in 0..limit.
fn jitter(t: i64, seed: i64, limit: i64) -> i64 {
    (t / MS)
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(seed)
        .rotate_left(17)
        .wrapping_mul(1_442_695_040_888_963)
        .rem_euclid(limit)
}

fn any_wire() -> impl Strategy<Value = Wire> {
    prop_oneof![Just(Wire::RTMP), Just(Wire::TS), Just(Wire::rtp(90_000)), Just(Wire::rtp(48_000)), Just(Wire::rtp(8_000))]
}

fn any_jump() -> impl Strategy<Value = i64> {
    prop_oneof![
        -36_000 * SEC..36_000 * SEC,
        -10 * SEC..10 * SEC,
        // around the thresholds, where two tracks may judge differently
        -1_100 * MS..-900 * MS,
        2_900 * MS..3_100 * MS,
        -10_100 * MS..-9_900 * MS,
    ]
}

/// What one second at 90 kHz is off by when rounded to RTMP's milliseconds.
const TICK: i64 = MS;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn wraps_are_invisible_at_any_phase(wire in any_wire(), before in 0u64..200_000, origin in 0..1_000 * SEC) {
        let wrap = 1u64 << wire.bits;
        let clock = Clock::new(wire, wrap - before);
        let (mut timeline, audio, video) = one_domain(wire);
        interleave(20, |is_video, t| {
            let at = MediaTime::from_nanos(origin + t);
            let got = timeline.stamp(if is_video { video } else { audio }, clock.show(t), at);
            assert!(!got.jumped);
            assert!((ns(got.time) - ns(at)).abs() <= TICK, "{got:?} at {at:?}");
        });
    }

    #[test]
    fn stamps_that_step_back_across_a_wrap_are_held_not_jumped(wire in any_wire(), t0 in 0..100 * SEC) {
        let (mut timeline, track, _) = one_domain(wire);
        let at = |ms: i64| MediaTime::from_nanos(t0 + ms * MS);
        let top = (1u64 << wire.bits) - 1;
        let step = u64::from(wire.rate_hz) / 50;
        let first = timeline.stamp(track, top - step, at(0));
        let over = timeline.stamp(track, step, at(40));
        let back = timeline.stamp(track, top - step / 2, at(50));
        let on = timeline.stamp(track, 2 * step, at(60));
        prop_assert_eq!(first.time, at(0));
        prop_assert!((ns(over.time) - ns(at(40))).abs() <= TICK);
        prop_assert_eq!(back.time, over.time);
        prop_assert!((ns(on.time) - ns(at(60))).abs() <= TICK);
        prop_assert!(!(over.jumped || back.jumped || on.jumped));
    }

    #[test]
    fn jumps_keep_time_continuous_and_lips_in_sync(
        wire in any_wire(), phase: u64, jump in any_jump(), jump_at in 1..15 * SEC, audio_delay in 0..60 * MS, seed: i64,
    ) {
        let clock = Clock { jump_at, jump, ..Clock::new(wire, phase) };
        let (mut timeline, audio, video) = one_domain(wire);
        let mut last = [i64::MIN; 2];
        // Per track: seen the jump, and how far off it is.
        let mut error: [Option<(bool, i64)>; 2] = [None; 2];
        let mut worst = 0;
        interleave(30, |is_video, t| {
            let delay = if is_video { 0 } else { audio_delay } + jitter(t, seed, 5 * MS);
            let got = timeline.stamp(if is_video { video } else { audio }, clock.show(t), MediaTime::from_nanos(t + delay));
            let out = ns(got.time);
            let me = usize::from(is_video);
            assert!(out >= last[me], "went back");
            // A frame that is held back shows at no time of its own.
            error[me] = (out > last[me]).then_some((t >= jump_at, out - t));
            last[me] = out;
            if got.jumped {
                // The neighbour is a frame away from jumping, too.
                error[1 - me] = None;
            }
            if let [Some((a_jumped, a)), Some((v_jumped, v))] = error
                && a_jumped == v_jumped
            {
                worst = worst.max((a - v).abs());
            }
        });
        prop_assert!(worst <= 40 * MS, "lips {} ms apart", worst / MS);
        // What is no jump moves time by as much as the wire says, at most 3 s forward or 1 s back.
        for (_, e) in error.into_iter().flatten() {
            prop_assert!((-1_200 * MS..=3_200 * MS).contains(&e), "{} ms off", e / MS);
        }
    }

    #[test]
    fn repeated_jumps_are_each_reported_once_per_track(jumps in prop::collection::vec(any_jump(), 1..8)) {
        let (mut timeline, audio, video) = one_domain(Wire::unwrapped(90_000));
        let mut told = 0;
        let mut moved = 0;
        interleave(4 * (jumps.len() as i64 + 1), |is_video, t| {
            moved = jumps.iter().take((t / (4 * SEC)) as usize).sum::<i64>();
            let ts = MediaTime::from_nanos(t + moved).to_ticks(90_000) as u64;
            let got = timeline.stamp(if is_video { video } else { audio }, ts, MediaTime::from_nanos(t));
            told += usize::from(got.jumped);
            assert!((-11 * SEC..=31 * SEC).contains(&(ns(got.time) - t)));
        });
        prop_assert!(told <= 2 * jumps.len(), "{told} reports of {} jumps", jumps.len());
    }

    #[test]
    fn garbage_never_panics_and_stays_near_arrival(
        rate: u32, bits: u8, frames in prop::collection::vec((any::<bool>(), garbage(), 0..2 * SEC), 1..400),
        report in any::<(u64, u64)>(),
    ) {
        let (mut timeline, audio, video) = one_domain(Wire { rate_hz: rate, bits });
        let mut last = [MediaTime::from_nanos(i64::MIN); 2];
        let mut at = MediaTime::ZERO;
        for (i, (is_video, ts, gap)) in frames.into_iter().enumerate() {
            at += MediaTime::from_nanos(gap);
            let track = if is_video { video } else { audio };
            let got = timeline.stamp(track, ts, at);
            let me = usize::from(is_video);
            prop_assert!(got.time >= last[me]);
            last[me] = got.time;
            let off = got.time - at;
            let slack = MediaTime::from_secs(3);
            prop_assert!(off <= AHEAD_MAX + slack && off >= MediaTime::ZERO - LAG_MAX - slack, "{off:?} at {at:?}");
            if i % 7 == 0 {
                timeline.sender_report(track, ntp_time(report.0.rotate_left(i as u32)), report.1.rotate_right(i as u32));
            }
        }
    }

    #[test]
    fn sender_reports_align_domains_of_unrelated_offsets(
        phases in any::<(u64, u64)>(), delays in (0..400 * MS, 0..400 * MS), wall in 0..4_000_000_000i64, first_report in 0..8 * SEC,
    ) {
        let mut timeline = Timeline::new();
        let clocks = [Clock::new(Wire::rtp(48_000), phases.0), Clock::new(Wire::rtp(90_000), phases.1)];
        let tracks = clocks.map(|c| { let d = timeline.domain(c.wire); timeline.track(d) });
        let delays = [delays.0, delays.1];
        let mut next_report = [first_report, first_report + 700 * MS];
        let mut error = [0i64; 2];
        interleave(30, |is_video, t| {
            let me = usize::from(is_video);
            let got = timeline.stamp(tracks[me], clocks[me].show(t), MediaTime::from_nanos(t + delays[me]));
            assert!(!got.jumped);
            error[me] = ns(got.time) - t;
            if t >= next_report[me] {
                next_report[me] += 5 * SEC;
                let seconds = (wall + t / SEC) as u64;
                let fraction = ((t % SEC) as u64 * (1 << 32)) / SEC as u64;
                timeline.sender_report(tracks[me], ntp_time(seconds << 32 | fraction), clocks[me].show(t));
            }
        });
        prop_assert!((error[0] - error[1]).abs() <= MS, "{} us apart", (error[0] - error[1]) / 1_000);
    }
}

/// Random counts, small ones (slow creeping, freezing) and their neighbours.
fn garbage() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..3, 0u64..400_000, (0u64..20).prop_map(|i| u64::MAX - i * 1_000), Just(u64::MAX >> 1)]
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn an_hour_of_skew_stays_within_40_ms_of_arrival(ppm in -200i64..=200, seed: i64, wire in any_wire()) {
        let clock = Clock { ppm, ..Clock::new(wire, 77) };
        let (mut timeline, audio, video) = one_domain(wire);
        let mut worst = 0;
        interleave(3_600, |is_video, t| {
            let at = t + jitter(t, seed, 10 * MS);
            let got = timeline.stamp(if is_video { video } else { audio }, clock.show(t), MediaTime::from_nanos(at));
            assert!(!got.jumped);
            worst = worst.max((ns(got.time) - at).abs());
        });
        prop_assert!(worst <= 40 * MS, "{} ms", worst / MS);
    }
}

/// Stamps one track every 20 ms of arrival with `wire(t in ms)`; returns (arrival ms, result).
fn drive(timeline: &mut Timeline, track: Track, from_ms: i64, to_ms: i64, wire: impl Fn(i64) -> u64) -> Vec<(i64, Stamped)> {
    (from_ms..to_ms).step_by(20).map(|t| (t, timeline.stamp(track, wire(t), MediaTime::from_millis(t)))).collect()
}

#[test]
fn the_first_stamp_is_anchored_at_its_arrival() {
    let (mut timeline, audio, video) = one_domain(Wire::RTMP);
    let first = timeline.stamp(audio, 4_000_000_000, MediaTime::from_millis(1_500));
    assert_eq!(first, Stamped { time: MediaTime::from_millis(1_500), jumped: false });
    // The neighbour is placed by the same clock, not by its arrival.
    let second = timeline.stamp(video, 4_000_000_100, MediaTime::from_millis(1_510));
    assert_eq!(second.time, MediaTime::from_millis(1_600));
}

#[test]
fn a_track_of_the_same_connection_with_an_unrelated_origin_is_placed_by_arrival() {
    let (mut timeline, audio, video) = one_domain(Wire::RTMP);
    drive(&mut timeline, audio, 0, 1_000, |t| t as u64);
    for (at, got) in drive(&mut timeline, video, 1_000, 8_000, |t| 3_600_000 + t as u64) {
        assert!(!got.jumped && (got.time.as_millis() - at).abs() <= 25, "{got:?} at {at}");
    }
    for (at, got) in drive(&mut timeline, audio, 8_000, 9_000, |t| t as u64) {
        assert!(!got.jumped && (got.time.as_millis() - at).abs() <= 25, "{got:?} at {at}");
    }
}

#[test]
fn stamps_of_zero_forever_fall_back_to_arrival() {
    let (mut timeline, audio, video) = one_domain(Wire::RTMP);
    for t in (0..30_000i64).step_by(20) {
        for track in [audio, video] {
            let got = timeline.stamp(track, 0, MediaTime::from_millis(t));
            assert!(got.time.as_millis() <= t);
            if t > 1_100 {
                assert_eq!(got.time.as_millis(), t);
            }
        }
    }
}

#[test]
fn a_frozen_track_leaves_its_neighbour_alone_and_comes_back() {
    let (mut timeline, audio, video) = one_domain(Wire::RTMP);
    for t in (0..20_000i64).step_by(20) {
        let ts = if (5_000..12_000).contains(&t) { 5_000 } else { t };
        let frozen = timeline.stamp(audio, ts as u64, MediaTime::from_millis(t));
        let fine = timeline.stamp(video, t as u64, MediaTime::from_millis(t));
        assert_eq!(fine, Stamped { time: MediaTime::from_millis(t), jumped: false });
        if !(5_000..6_100).contains(&t) {
            assert_eq!(frozen.time.as_millis(), t);
        }
    }
}

#[test]
fn a_stall_that_is_caught_up_with_moves_nothing() {
    let (mut timeline, track, _) = one_domain(Wire::RTMP);
    drive(&mut timeline, track, 0, 10_000, |t| t as u64);
    for media in (10_000..17_000i64).step_by(20) {
        // Nothing for seven seconds, then everything at once.
        let got = timeline.stamp(track, media as u64, MediaTime::from_millis(17_000 + (media - 10_000) / 50));
        assert_eq!(got, Stamped { time: MediaTime::from_millis(media), jumped: false });
    }
    for (at, got) in drive(&mut timeline, track, 17_140, 40_000, |t| t as u64) {
        assert!(!got.jumped && (got.time.as_millis() - at).abs() <= 20, "{got:?} at {at}");
    }
}

#[test]
fn a_source_that_paused_with_its_clock_is_stepped_once() {
    let (mut timeline, track, _) = one_domain(Wire::RTMP);
    drive(&mut timeline, track, 0, 10_000, |t| t as u64);
    let after = drive(&mut timeline, track, 15_000, 60_000, |t| t as u64 - 5_000);
    assert_eq!(after.iter().filter(|(_, got)| got.jumped).count(), 1);
    let (at, got) = after[after.len() - 1];
    assert!((got.time.as_millis() - at).abs() <= 21, "{got:?} at {at}");
}

#[test]
fn a_restarted_clock_goes_on_where_it_was() {
    let mut timeline = Timeline::new();
    let domain = timeline.domain(Wire::rtp(90_000));
    let track = timeline.track(domain);
    drive(&mut timeline, track, 0, 2_000, |t| t as u64 * 90);
    timeline.restart(track);
    // 1.5 s ahead: less than a jump, yet the caller knows better.
    let (_, first) = drive(&mut timeline, track, 2_000, 3_000, |t| (t as u64 + 1_500) * 90)[0];
    assert_eq!(first, Stamped { time: MediaTime::from_millis(2_000), jumped: true });
}

#[test]
fn a_burst_of_a_cached_group_keeps_its_spacing() {
    let (mut timeline, track, _) = one_domain(Wire::RTMP);
    for media in (0..8_000i64).step_by(40) {
        let got = timeline.stamp(track, media as u64, MediaTime::from_millis(100 + media / 100));
        assert_eq!(got, Stamped { time: MediaTime::from_millis(100 + media), jumped: false });
    }
}

#[test]
fn a_stepped_wall_clock_of_the_sender_moves_no_media() {
    let mut timeline = Timeline::new();
    let tracks = [48_000, 90_000].map(|rate| {
        let domain = timeline.domain(Wire::rtp(rate));
        (timeline.track(domain), rate)
    });
    for t in (0..40_000i64).step_by(20) {
        let at = MediaTime::from_millis(t);
        for (i, (track, rate)) in tracks.into_iter().enumerate() {
            let got = timeline.stamp(track, at.to_ticks(rate) as u64, at);
            assert!((ns(got.time) - ns(at)).abs() <= MS, "{got:?} at {at:?}");
            if t % 5_000 == 1_000 * i as i64 {
                let hour = if t >= 20_000 { MediaTime::from_secs(3_600) } else { MediaTime::ZERO };
                timeline.sender_report(track, at + hour, at.to_ticks(rate) as u64);
            }
        }
    }
}

#[test]
fn ntp_readings_convert_exactly() {
    assert_eq!(ntp_time(0x0000_0001_8000_0000), MediaTime::from_millis(1_500));
    assert_eq!(ntp_time(u64::MAX).as_nanos(), 4_294_967_295_999_999_999);
}

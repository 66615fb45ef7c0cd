//! The model does what its profile says: chance within its tolerance, order, rate, and the same for the same seed.

use std::time::Duration;

use patchbay_impair::{Action, BadProfile, Fate, Link, Profile, Schedule, Setting};

const PACKETS: usize = 100_000;

/// A packet of 1,000 bytes every millisecond.
fn fates(profile: &str, seed: u64) -> Vec<Fate> {
    let (mut link, profile) = (Link::new(seed), profile.parse().expect("a profile"));
    (0..PACKETS).map(|i| link.send(&profile, ms(i as u64), 1_000)).collect()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn percent(fates: &[Fate], is: impl Fn(&Fate) -> bool) -> f64 {
    fates.iter().filter(|fate| is(fate)).count() as f64 * 100.0 / fates.len() as f64
}

fn arrivals(fates: &[Fate]) -> Vec<(usize, Duration)> {
    let arrival = |(i, fate): (usize, &Fate)| match fate {
        Fate::Arrives { at, .. } => Some((i, *at)),
        _ => None,
    };
    fates.iter().enumerate().filter_map(arrival).collect()
}

#[track_caller]
fn assert_near(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got} is not {want} ± {tolerance}");
}

#[test]
fn nothing_happens_by_default() {
    let all = fates("clear", 1);
    for (i, fate) in all.iter().enumerate() {
        assert_eq!(*fate, Fate::Arrives { at: ms(i as u64), again: None, overtaken: false });
    }
}

#[test]
fn loss_is_what_was_asked_with_and_without_bursts() {
    for (profile, loss, burst) in
        [("loss=5", 5.0, 1.05), ("loss=30", 30.0, 1.43), ("loss=5 burst=4", 5.0, 4.0), ("loss=60 burst=10", 60.0, 10.0)]
    {
        let all = fates(profile, 7);
        assert_near(percent(&all, |fate| *fate == Fate::Lost), loss, loss * 0.08);
        let starts = all.windows(2).filter(|pair| pair[0] != Fate::Lost && pair[1] == Fate::Lost).count();
        let lost = all.iter().filter(|fate| **fate == Fate::Lost).count();
        assert_near(lost as f64 / starts as f64, burst, burst * 0.08);
    }
    assert_eq!(percent(&fates("loss=100 burst=3", 1), |fate| *fate == Fate::Lost), 100.0);
    assert_eq!(percent(&fates("stall", 1), |fate| *fate == Fate::Lost), 100.0);
}

#[test]
fn delay_and_jitter_keep_the_order() {
    let all = arrivals(&fates("delay=40 jitter=20", 3));
    assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].1), "order is kept");
    let waits: Vec<_> = all.iter().map(|(i, at)| at.as_secs_f64() * 1e3 - *i as f64).collect();
    assert!(waits.iter().all(|wait| (39.999..=60.001).contains(wait)), "delays are within bounds");
    // Sparse packets show the spread itself.
    let (mut link, profile) = (Link::new(3), "delay=40 jitter=20".parse().expect("a profile"));
    let sparse: Vec<_> = (0..10_000u64)
        .map(|i| match link.send(&profile, ms(i * 100), 100) {
            Fate::Arrives { at, .. } => (at - ms(i * 100)).as_secs_f64() * 1e3,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_near(sparse.iter().sum::<f64>() / sparse.len() as f64, 50.0, 0.5);
}

#[test]
fn what_is_overtaken_and_doubled_is_what_was_asked() {
    let all = fates("reorder=3 duplicate=2 hold=15", 5);
    assert_near(percent(&all, |fate| matches!(fate, Fate::Arrives { overtaken: true, .. })), 3.0, 0.2);
    assert_near(percent(&all, |fate| matches!(fate, Fate::Arrives { again: Some(_), .. })), 2.0, 0.2);
    let mut order = arrivals(&all);
    order.sort_by_key(|(i, at)| (*at, *i));
    let behind = order.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
    assert_near(behind as f64 * 100.0 / PACKETS as f64, 3.0, 0.3);
}

#[test]
fn the_bottleneck_keeps_its_rate_and_drops_what_its_queue_does_not_hold() {
    // 8,000 kbit/s come in.
    let all = fates("rate=2000 queue=100", 9);
    let arrived = arrivals(&all);
    let seconds = arrived.last().expect("some").1.as_secs_f64();
    assert_near(arrived.len() as f64 * 8.0 / seconds, 2_000.0, 20.0);
    assert_near(percent(&all, |fate| *fate == Fate::Full), 75.0, 1.0);
    let longest = arrived.iter().map(|(i, at)| *at - ms(*i as u64)).max().expect("some");
    assert!((ms(95)..=ms(109)).contains(&longest), "{longest:?}");
    // A rate that suffices drops nothing.
    assert_eq!(arrivals(&fates("rate=9000", 9)).len(), PACKETS);
}

#[test]
fn a_seed_decides_and_one_value_leaves_the_others_decisions_alone() {
    assert_eq!(fates("loss=10 jitter=9 reorder=1", 11), fates("loss=10 jitter=9 reorder=1", 11));
    assert_ne!(fates("loss=10", 11), fates("loss=10", 12));
    let lost = |profile| fates(profile, 11).iter().map(|fate| *fate == Fate::Lost).collect::<Vec<_>>();
    assert_eq!(lost("loss=10"), lost("loss=10 jitter=30 duplicate=5 reorder=5"));
}

#[test]
fn a_stream_keeps_order_and_rate() {
    let (mut link, profile) = (Link::new(1), "rate=1000 delay=20 jitter=50".parse().expect("a profile"));
    let mut last = Duration::ZERO;
    for _ in 0..1_000 {
        let at = link.stream(&profile, Duration::ZERO, 125);
        assert!(at >= last);
        last = at;
    }
    // 1,000 kbit and what the last ones are late.
    assert_near(last.as_secs_f64(), 1.045, 0.026);
    assert_eq!(link.backlog(ms(400)), ms(600));
}

#[test]
fn schedules_are_read_and_bad_ones_named() {
    let loss = |loss| Profile { loss, ..Profile::default() };
    let schedule: Schedule = "20s: break; 0s: loss=5; 10.5s: up loss=30 / down stall".parse().expect("a schedule");
    let stalled = Profile { stall: true, ..Profile::default() };
    assert_eq!(
        schedule.steps,
        [
            (Duration::ZERO, Action::Set(Setting::both(loss(5.0)))),
            (ms(10_500), Action::Set(Setting { up: loss(30.0), down: stalled })),
            (ms(20_000), Action::Break),
        ]
    );
    assert_eq!("3: loss=5".parse::<Schedule>(), Err(BadProfile::Step("3: loss=5".into())));
    assert_eq!("lost=5".parse::<Profile>(), Err(BadProfile::Unknown("lost=5".into())));
    for bad in ["loss=101", "loss=-1", "loss", "loss=NaN", "delay=60001", "rate=x"] {
        assert!(matches!(bad.parse::<Profile>(), Err(BadProfile::Value(..))), "{bad}");
    }
}

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::pure::{config::model::check::CheckKind, testing::an_instant};

#[test]
fn the_first_checks_of_a_few_servers_are_prompt() {
    let start = an_instant();
    for interval in [ms(500), ms(2_000), ms(60_000)] {
        let mut schedule = Schedule::default();
        (0..3).for_each(|id| schedule.add(CheckId(id), every(interval), start, CheckId(id).phase()));
        assert_eq!(schedule.due(start + interval.min(ms(1_000)), 10).len(), 3, "{interval:?}");
        assert_eq!(schedule.deadline(), None, "all are running");
    }
}

#[test]
fn thousands_of_checks_are_spread() {
    let start = an_instant();
    let interval = ms(10_000);
    let mut schedule = Schedule::default();
    (0..5_000).for_each(|id| schedule.add(CheckId(id), every(interval), start, CheckId(id).phase()));

    let mut per_tenth = vec![0; 600];
    while let Some(now) = schedule.deadline()
        && now < start + ms(60_000)
    {
        for id in schedule.due(now, usize::MAX) {
            per_tenth[((now - start).as_millis() / 100) as usize] += 1;
            schedule.done(id, now);
        }
    }
    assert!(per_tenth[..10].iter().all(|runs| (490..=560).contains(runs)), "{per_tenth:?}");
    assert!(per_tenth[200..].iter().all(|runs| (48..=52).contains(runs)), "{per_tenth:?}");
}

#[test]
fn a_running_check_is_not_started_again() {
    let (start, mut schedule) = one_check(ms(1_000));
    assert_eq!(schedule.due(start, 10), [CheckId(1)]);
    assert_eq!(schedule.due(start + ms(10_000), 10), []);
    assert_eq!(schedule.deadline(), None);
    let end = start + ms(10_200);
    schedule.done(CheckId(1), end);
    assert_eq!(schedule.due(end, 10), [CheckId(1)], "one run for all that were missed");
    schedule.done(CheckId(1), end);
    assert_eq!(schedule.deadline(), Some(start + ms(11_000)), "on the grid again");
}

#[test]
fn a_check_that_always_times_out_still_runs_every_interval() {
    let (start, mut schedule) = one_check(ms(1_000));
    for run in 0..100 {
        let now = start + run * ms(1_001);
        assert_eq!(schedule.due(now, 1), [CheckId(1)], "run {run}");
        schedule.done(CheckId(1), now + ms(1_001));
    }
}

#[test]
fn an_oversleep_skips_and_never_bursts() {
    let cases = [
        ("on time", 1_000, 2_000),
        ("a little late", 1_200, 2_000),
        ("so late that the next one would follow too soon", 1_900, 2_650),
        ("many intervals late", 7_300, 8_050),
    ];
    for (name, woken_ms, next_ms) in cases {
        let (start, mut schedule) = one_check(ms(1_000));
        schedule.due(start, 1);
        schedule.done(CheckId(1), start);
        let woken = start + ms(woken_ms);
        assert_eq!(schedule.due(woken, 10), [CheckId(1)], "{name}");
        schedule.done(CheckId(1), woken);
        assert_eq!(schedule.deadline(), Some(start + ms(next_ms)), "{name}");
    }
}

#[test]
fn due_is_bounded_and_takes_the_longest_overdue_first() {
    let start = an_instant();
    let mut schedule = Schedule::default();
    for (id, phase) in [(1, 30_000), (2, 10_000), (3, 20_000)] {
        schedule.add(CheckId(id), every(ms(1_000)), start, Phase(phase));
    }
    let late = start + ms(5_000);
    assert_eq!(schedule.due(late, 0), []);
    assert_eq!(schedule.due(late, 2), [CheckId(2), CheckId(3)]);
    assert_eq!(schedule.due(late, 2), [CheckId(1)]);
}

#[test]
fn a_removed_check_is_gone_even_if_its_run_ends_later() {
    let (start, mut schedule) = one_check(ms(1_000));
    schedule.due(start, 1);
    schedule.remove(CheckId(1));
    schedule.done(CheckId(1), start + ms(10));
    assert_eq!(schedule.deadline(), None);

    let (start, mut schedule) = one_check(ms(1_000));
    schedule.remove(CheckId(1));
    assert_eq!(schedule.due(start + ms(10_000), 1), []);
    schedule.remove(CheckId(1));
    schedule.done(CheckId(1), start);
    assert_eq!(schedule.deadline(), None);
}

#[test]
fn adding_again_begins_anew_at_the_same_pace() {
    let check = Check { interval: ms(60_000), down_interval: ms(5_000), ..Check::of(CheckKind::Icmp) };
    let (start, mut schedule) = checked_at(&check);
    schedule.set_pace(CheckId(1), Pace::Down, start);
    assert_eq!(schedule.deadline(), Some(start + ms(5_000)));
    let later = start + ms(2_000);
    schedule.add(CheckId(1), Rhythm::of(&check), later, Phase(0));
    assert_eq!(schedule.due(later, 10), [CheckId(1)]);
    schedule.done(CheckId(1), later);
    assert_eq!(schedule.deadline(), Some(later + ms(5_000)), "its server is still down");

    let (start, mut schedule) = one_check(ms(1_000));
    schedule.due(start, 1);
    schedule.add(CheckId(1), every(ms(1_000)), start + ms(10), Phase(0));
    schedule.done(CheckId(1), start + ms(20));
    assert_eq!(schedule.deadline(), Some(start + ms(10)), "the run of the old one means nothing");
}

#[test]
fn an_interval_of_zero_does_not_spin() {
    let (start, mut schedule) = one_check(Duration::ZERO);
    assert_eq!(schedule.due(start, 10), [CheckId(1)]);
    schedule.done(CheckId(1), start);
    assert!(schedule.deadline() > Some(start));
}

#[test]
fn five_thousand_checks_fire_evenly_and_stay_so() {
    let start = an_instant();
    let mut schedule = crowd(start);
    let per_tenth = fired(&mut schedule, start, start + ms(20_000), |_| ms(3));
    assert!(per_tenth[40..].iter().all(|runs| (245..=255).contains(runs)), "{per_tenth:?}");
}

#[test]
fn checks_that_were_late_together_are_spread_again() {
    let start = an_instant();
    let mut schedule = crowd(start);
    fired(&mut schedule, start, start + ms(10_000), |_| ms(3));
    let stalled = start + ms(14_000);
    let per_tenth = fired(&mut schedule, stalled, stalled + ms(20_000), |_| ms(3));
    assert_eq!(per_tenth[0], 5_000, "all at once, when the machine goes on");
    assert!(per_tenth[90..].iter().all(|runs| (240..=260).contains(runs)), "{per_tenth:?}");
}

#[test]
fn a_slow_check_costs_nobody() {
    let start = an_instant();
    let slow = |id: CheckId| id.0.is_multiple_of(3);
    let mut schedule = crowd(start);
    let run_time = |id| if slow(id) { ms(1_000) } else { ms(3) };
    let per_tenth = fired(&mut schedule, start, start + ms(20_000), run_time);
    assert!(per_tenth[40..].iter().all(|runs| (245..=255).contains(runs)), "{per_tenth:?}");
}

#[test]
fn a_check_keeps_the_pace_it_is_told() {
    let (start, mut schedule) = checked_at(&Check {
        interval: ms(1_000),
        fast_interval: ms(200),
        down_interval: ms(5_000),
        ..Check::of(CheckKind::Icmp)
    });
    schedule.set_pace(CheckId(1), Pace::Fast, start + ms(5));
    assert_eq!(schedule.deadline(), Some(start + ms(200)), "from the last start on");
    schedule.due(start + ms(200), 1);
    schedule.set_pace(CheckId(1), Pace::Down, start + ms(201));
    assert_eq!(schedule.deadline(), None, "a run that is under way goes on");
    schedule.done(CheckId(1), start + ms(210));
    assert_eq!(schedule.deadline(), Some(start + ms(5_000)), "and the grid is the pace's");
    schedule.set_pace(CheckId(1), Pace::Normal, start + ms(3_000));
    assert_eq!(schedule.deadline(), Some(start + ms(3_000)), "overdue by the new pace");
    schedule.set_pace(CheckId(2), Pace::Fast, start);
    assert_eq!(schedule.deadline(), Some(start + ms(3_000)), "nobody's");
}

#[test]
fn an_expedited_check_runs_at_once() {
    let (start, mut schedule) = checked_at(&Check { interval: ms(1_000), ..Check::of(CheckKind::Icmp) });
    let asked = start + ms(400);
    schedule.expedite(CheckId(1), asked);
    schedule.expedite(CheckId(1), asked);
    assert_eq!(schedule.due(asked, 10), [CheckId(1)]);
    schedule.expedite(CheckId(1), asked);
    schedule.done(CheckId(1), asked + ms(10));
    assert_eq!(
        schedule.due(asked + ms(10), 10),
        [CheckId(1)],
        "the run may have asked before the order came"
    );
    schedule.done(CheckId(1), asked + ms(20));
    assert_eq!(schedule.deadline(), Some(asked + ms(10) + ms(750)), "back towards the grid");
    schedule.expedite(CheckId(7), asked);
}

#[test]
fn the_latest_order_counts_and_none_is_lost() {
    let (start, mut schedule) =
        checked_at(&Check { interval: ms(1_000), fast_interval: ms(200), ..Check::of(CheckKind::Icmp) });
    let mut waiting = Orders::default();
    waiting.expedite(CheckId(1));
    let mut later = Orders::default();
    later.set_pace(CheckId(1), Pace::Down);
    waiting.add(later);
    let mut latest = Orders::default();
    latest.set_pace(CheckId(1), Pace::Fast);
    waiting.add(latest);
    schedule.obey(waiting, start + ms(10));
    assert_eq!(schedule.due(start + ms(10), 1), [CheckId(1)]);
    schedule.done(CheckId(1), start + ms(11));
    assert_eq!(schedule.deadline(), Some(start + ms(200)), "at the fast pace, on its grid");
}

#[test]
fn spread_moves_each_run_and_keeps_the_rate() {
    let (start, mut schedule) =
        checked_at(&Check { interval: ms(1_000), spread: 50, ..Check::of(CheckKind::Icmp) });
    let mut starts = vec![start];
    while starts.len() < 1_000 {
        let due = schedule.deadline().expect("it waits");
        schedule.due(due, 1);
        schedule.done(CheckId(1), due);
        starts.push(due);
    }
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (ms(500)..=ms(1_500)).contains(gap)));
    let unlike = gaps.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > ms(20)).count();
    assert!(unlike > 900, "{unlike}");
    let last = starts[999] - start;
    assert!((ms(999_000)..=ms(999_500)).contains(&last), "{last:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn over_an_hour_every_check_runs_interval_spaced(
        checks in vec((2_000..30_000_u64, any::<u16>(), 0..80_u64), 1..12), late_ms in 0..300_u64,
    ) {
        let starts = simulate(&checks, late_ms, 3_600_000);
        for (id, &(interval, _, _)) in (0..).zip(&checks) {
            let starts = &starts[&id];
            prop_assert!(starts[0] <= interval.min(1_000) + late_ms);
            let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            // A run of 80 % leaves a fifth of an interval in each round to come nearer to the grid.
            let (onto_grid, on_grid) = gaps.split_at(8);
            prop_assert!(onto_grid.iter().all(|&gap| gap <= interval + late_ms + 1));
            for gap in on_grid {
                prop_assert!(gap.abs_diff(interval) <= late_ms + 1, "{} ms instead of {}", gap, interval);
            }
            let last = starts[starts.len() - 1];
            prop_assert!(last + 2 * interval >= 3_600_000, "starved since {last} ms");
        }
    }
}
/// Milliseconds at which each check (interval, phase, percent of the interval that a run takes) starts, when
/// the driver wakes up to `late_ms` after each deadline.
fn simulate(checks: &[(u64, u16, u64)], late_ms: u64, end_ms: u64) -> BTreeMap<u32, Vec<u64>> {
    let start = an_instant();
    let mut now = start;
    let mut schedule = Schedule::default();
    for (id, &(interval, phase, _)) in (0..).zip(checks) {
        schedule.add(CheckId(id), every(ms(interval)), start, Phase(phase));
    }
    let mut starts: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut running: BTreeSet<(Instant, CheckId)> = BTreeSet::new();
    let mut wakeups = 0;
    loop {
        let ends = running.first().map(|&(end, _)| end);
        let wake = schedule.deadline().map(|due| {
            // Not the same delay every time.
            let late = if late_ms == 0 { 0 } else { (wakeups * 37) % (late_ms + 1) };
            due + ms(late)
        });
        now = ends.into_iter().chain(wake).min().expect("a check runs or waits").max(now);
        if now >= start + ms(end_ms) {
            return starts;
        }
        wakeups += 1;
        while let Some(&(end, id)) = running.first()
            && end <= now
        {
            running.pop_first();
            schedule.done(id, now);
        }
        for id in schedule.due(now, 2) {
            let (interval, _, busy) = checks[id.0 as usize];
            assert!(running.iter().all(|&(_, other)| other != id), "started twice");
            running.insert((now + ms(interval * busy / 100), id));
            starts.entry(id.0).or_default().push((now - start).as_millis() as u64);
        }
    }
}

/// Due at once.
fn one_check(interval: Duration) -> (Instant, Schedule) {
    let start = an_instant();
    let mut schedule = Schedule::default();
    schedule.add(CheckId(1), every(interval), start, Phase(0));
    (start, schedule)
}

/// Five thousand checks, every two seconds.
fn crowd(start: Instant) -> Schedule {
    let mut schedule = Schedule::default();
    (0..5_000).for_each(|id| schedule.add(CheckId(id), every(ms(2_000)), start, CheckId(id).phase()));
    schedule
}

/// Runs that start in each tenth of a second, when each check takes so long.
fn fired(
    schedule: &mut Schedule,
    start: Instant,
    end: Instant,
    run_time: impl Fn(CheckId) -> Duration,
) -> Vec<u32> {
    let mut per_tenth = vec![0; ((end - start).as_millis() / 100) as usize];
    let mut running: BTreeSet<(Instant, CheckId)> = BTreeSet::new();
    let mut now = start;
    loop {
        let ended = running.first().map(|&(ended, _)| ended);
        now = schedule.deadline().into_iter().chain(ended).min().expect("a check runs or waits").max(now);
        if now >= end {
            running.into_iter().for_each(|(_, id)| schedule.done(id, now));
            return per_tenth;
        }
        while let Some(&(ended, id)) = running.first()
            && ended <= now
        {
            running.pop_first();
            schedule.done(id, now);
        }
        for id in schedule.due(now, usize::MAX) {
            running.insert((now + run_time(id), id));
            per_tenth[((now - start).as_millis() / 100) as usize] += 1;
        }
    }
}

/// Id 1 on the very grid, after its first run.
fn checked_at(check: &Check) -> (Instant, Schedule) {
    let start = an_instant();
    let mut schedule = Schedule::default();
    schedule.add(CheckId(1), Rhythm::of(check), start, Phase(0));
    schedule.due(start, 1);
    schedule.done(CheckId(1), start);
    (start, schedule)
}

fn every(interval: Duration) -> Rhythm {
    let check = Check::of(CheckKind::Icmp);
    Rhythm::of(&Check { interval, fast_interval: interval, down_interval: interval, ..check })
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

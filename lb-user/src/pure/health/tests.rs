use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::pure::config::model::check::CheckKind;

#[test]
fn every_state_takes_every_result() {
    use Change::{WentDown, WentUp};
    use State::{Down, NoCheck, Unchecked, Up};
    let up = |failures| Up { failures };
    let down = |successes| Down { successes };
    // rise 2, fall 3
    let cases = [
        (NoCheck, true, NoCheck, None),
        (NoCheck, false, NoCheck, None),
        (Unchecked, true, up(0), None),
        (Unchecked, false, down(0), Some(WentDown)),
        (up(0), true, up(0), None),
        (up(0), false, up(1), None),
        (up(1), true, up(0), None),
        (up(1), false, up(2), None),
        (up(2), true, up(0), None),
        (up(2), false, down(0), Some(WentDown)),
        (down(0), true, down(1), None),
        (down(0), false, down(0), None),
        (down(1), true, up(0), Some(WentUp)),
        (down(1), false, down(0), None),
    ];
    for (state, passed, after, change) in cases {
        let mut health = Health { state, rise: 2, fall: 3 };
        assert_eq!((health.handle(passed), health.state), (change, after), "{state:?}, passed: {passed}");
    }
}

#[test]
fn with_rise_and_fall_of_one_a_single_result_decides() {
    let mut health = Health::adopted(Some(&check(1, 1)), true);
    assert_eq!(health.handle(false), Some(Change::WentDown));
    assert_eq!(health.handle(true), Some(Change::WentUp));
}

#[test]
fn an_adopted_state_stays_until_checks_say_otherwise() {
    let mut up = Health::adopted(Some(&check(2, 3)), true);
    assert_eq!([false, false, false].map(|passed| up.handle(passed)), [None, None, Some(Change::WentDown)]);
    let mut down = Health::adopted(Some(&check(2, 3)), false);
    assert!(!down.usable());
    assert_eq!([true, true].map(|passed| down.handle(passed)), [None, Some(Change::WentUp)]);
}

#[test]
fn names_and_details_are_what_an_operator_reads() {
    let cases = [
        (Health::new(&no_check()), "no-check", true, None),
        (Health::adopted(Some(&no_check()), false), "no-check", true, None),
        (Health::new(&check(3, 3)), "unchecked", true, None),
        (after(&[true]), "up", true, None),
        (after(&[true, false]), "up", true, Some("going down 1/3")),
        (after(&[true, false, false]), "up", true, Some("going down 2/3")),
        (after(&[true, false, true]), "up", true, None),
        (after(&[false]), "down", false, None),
        (after(&[false, true, true]), "down", false, Some("going up 2/3")),
        (after(&[false, true, false]), "down", false, None),
    ];
    for (health, name, usable, detail) in cases {
        assert_eq!(
            (health.name(), health.usable(), health.detail().as_deref()),
            (name, usable, detail),
            "{health:?}"
        );
    }
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let cases = [
        ("from no check to a check", Health::new(&no_check()), check(3, 3), "unchecked", None),
        ("from up to no check", after(&[true]), no_check(), "no-check", None),
        ("from down to no check", after(&[false]), no_check(), "no-check", Some(Change::WentUp)),
        ("unchecked, other limits", Health::new(&check(3, 3)), check(1, 1), "unchecked", None),
        ("down, other limits", after(&[false]), check(1, 1), "down", None),
    ];
    for (name, mut health, check, expected, change) in cases {
        assert_eq!(health.reconfigure(&check), change, "{name}");
        assert_eq!(health.name(), expected, "{name}");
    }

    let mut failing = after(&[true, false, false]);
    failing.reconfigure(&check(1, 1));
    assert_eq!(failing.handle(false), Some(Change::WentDown), "more failures than the new limit");
}

#[test]
fn the_first_checks_of_a_few_servers_are_prompt() {
    let start = an_instant();
    for interval in [ms(500), ms(2_000), ms(60_000)] {
        let mut schedule = Schedule::default();
        (0..3).for_each(|id| schedule.add(CheckId(id), interval, start, CheckId(id).phase()));
        assert_eq!(schedule.due(start + interval.min(ms(1_000)), 10).len(), 3, "{interval:?}");
        assert_eq!(schedule.deadline(), None, "all are running");
    }
}

#[test]
fn thousands_of_checks_are_spread() {
    let start = an_instant();
    let interval = ms(10_000);
    let mut schedule = Schedule::default();
    (0..5_000).for_each(|id| schedule.add(CheckId(id), interval, start, CheckId(id).phase()));

    let mut per_tenth = vec![0; 600];
    while let Some(now) = schedule.deadline()
        && now < start + ms(60_000)
    {
        for id in schedule.due(now, usize::MAX) {
            per_tenth[((now - start).as_millis() / 100) as usize] += 1;
            schedule.done(id, now);
        }
    }
    assert!(per_tenth[..10].iter().all(|runs| (490..=510).contains(runs)), "{per_tenth:?}");
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
        ("a little late", 1_400, 2_000),
        ("so late that the next one would follow at once", 1_900, 3_000),
        ("many intervals late", 7_300, 8_000),
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
        schedule.add(CheckId(id), ms(1_000), start, Phase(phase));
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
fn adding_again_changes_the_interval_only() {
    let (start, mut schedule) = one_check(ms(60_000));
    schedule.due(start, 1);
    schedule.done(CheckId(1), start);
    let later = start + ms(5_000);
    schedule.add(CheckId(1), ms(60_000), later, Phase(0));
    assert_eq!(schedule.deadline(), Some(start + ms(60_000)), "the same interval: nothing happens");

    schedule.add(CheckId(1), ms(2_000), later, Phase(0));
    assert_eq!(schedule.due(later, 10), [CheckId(1)]);
    schedule.add(CheckId(1), ms(3_000), later, Phase(0));
    assert_eq!(schedule.deadline(), None, "still running");
    schedule.done(CheckId(1), later);
    assert_eq!(schedule.deadline(), Some(later + ms(3_000)));
}

#[test]
fn an_interval_of_zero_does_not_spin() {
    let (start, mut schedule) = one_check(Duration::ZERO);
    assert_eq!(schedule.due(start, 10), [CheckId(1)]);
    schedule.done(CheckId(1), start);
    assert!(schedule.deadline() > Some(start));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn health_never_flips_without_enough_results_in_a_row(
        rise in 1..6_u32, fall in 1..6_u32, adopted: Option<bool>, results in vec(any::<bool>(), 0..200),
    ) {
        let check = check(rise, fall);
        let mut health = adopted.map_or_else(|| Health::new(&check), |up| Health::adopted(Some(&check), up));
        let mut in_a_row = 0;
        for (index, &passed) in results.iter().enumerate() {
            in_a_row = if index > 0 && results[index - 1] == passed { in_a_row + 1 } else { 1 };
            let first_ever = index == 0 && adopted.is_none();
            let was_usable = health.usable();
            let expected = match (was_usable, passed) {
                (true, false) if in_a_row >= fall || first_ever => Some(Change::WentDown),
                (false, true) if in_a_row >= rise => Some(Change::WentUp),
                (true | false, true | false) => None,
            };
            prop_assert_eq!(health.handle(passed), expected);
            prop_assert_eq!(health.usable() != was_usable, expected.is_some());
        }
    }

    #[test]
    fn over_an_hour_every_check_runs_interval_spaced(
        checks in vec((2_000..30_000_u64, any::<u16>(), 0..80_u64), 1..12), late_ms in 0..300_u64,
    ) {
        let starts = simulate(&checks, late_ms, 3_600_000);
        for (id, &(interval, _, _)) in (0..).zip(&checks) {
            let starts = &starts[&id];
            prop_assert!(starts[0] <= interval.min(1_000) + late_ms);
            let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            // A run of 80 % makes up for half an interval of delay in three rounds.
            let (onto_grid, on_grid) = gaps.split_at(4);
            for &gap in onto_grid {
                prop_assert!(gap + late_ms + 1 >= interval / 2 && gap <= interval * 3 / 2 + late_ms + 1);
            }
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
        schedule.add(CheckId(id), ms(interval), start, Phase(phase));
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
    schedule.add(CheckId(1), interval, start, Phase(0));
    (start, schedule)
}

/// A server with rise 3 and fall 3 after these results.
fn after(results: &[bool]) -> Health {
    let mut health = Health::new(&check(3, 3));
    for &passed in results {
        health.handle(passed);
    }
    health
}

fn check(rise: u32, fall: u32) -> Check {
    Check { rise, fall, ..Check::of(CheckKind::Tcp(Vec::new())) }
}

fn no_check() -> Check {
    Check::of(CheckKind::None)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `Instant` has no constructor of its own; which moment it is does not matter.
#[expect(clippy::disallowed_methods, reason = "a value to count from, read once")]
fn an_instant() -> Instant {
    Instant::now()
}

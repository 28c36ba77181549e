use proptest::{collection::vec, prelude::*};

use super::*;
use crate::pure::testing::an_instant;

#[test]
fn every_state_takes_every_result() {
    use Change::{WentDown, WentUp};
    use StartState::{Down as StartsDown, Up as StartsUp};
    use State::{Down, Held, NoCheck, Unchecked, Up};
    let now = an_instant();
    let (past, future) = (now, now + s(60));
    let (up, down) = (|failures| Up { failures }, |successes| Down { successes });
    let held = |until, successes| Held { until, successes };
    // rise 2, fall 3, holds for 100 s
    let cases = [
        (NoCheck, StartsUp, true, NoCheck, None),
        (NoCheck, StartsUp, false, NoCheck, None),
        (Unchecked, StartsUp, true, up(0), None),
        (Unchecked, StartsUp, false, down(0), Some(WentDown)),
        (Unchecked, StartsDown, true, up(0), Some(WentUp)),
        (Unchecked, StartsDown, false, down(0), Some(WentDown)),
        (up(0), StartsUp, true, up(0), None),
        (up(0), StartsUp, false, up(1), None),
        (up(1), StartsUp, true, up(0), None),
        (up(1), StartsUp, false, up(2), None),
        (up(2), StartsUp, true, up(0), None),
        (up(2), StartsUp, false, down(0), Some(WentDown)),
        (down(0), StartsUp, true, down(1), None),
        (down(0), StartsUp, false, down(0), None),
        (down(1), StartsUp, true, up(0), Some(WentUp)),
        (down(1), StartsUp, false, down(0), None),
        (held(future, 0), StartsUp, true, held(future, 1), None),
        (held(future, 5), StartsUp, true, held(future, 6), None),
        (held(future, 5), StartsUp, false, held(now + s(100), 0), None),
        (held(past, 0), StartsUp, true, held(past, 1), None),
        (held(past, 1), StartsUp, true, up(0), Some(WentUp)),
        (held(past, 1), StartsUp, false, held(now + s(100), 0), None),
    ];
    for (state, start, passed, after, change) in cases {
        let terms = Terms { rise: 2, fall: 3, start, ..damped(2, s(60), s(100)) };
        let mut health = Health::with_state(terms, state);
        assert_eq!(
            (health.handle(now, passed), health.state),
            (change, after),
            "{state:?}, passed: {passed}"
        );
    }
}

#[test]
fn every_state_takes_the_passing_of_time() {
    use State::{Down, Held, NoCheck, Unchecked, Up};
    let now = an_instant();
    let held = |until, successes| Held { until, successes };
    // rise 2
    for (state, after, change) in [
        (NoCheck, NoCheck, None),
        (Unchecked, Unchecked, None),
        (Up { failures: 1 }, Up { failures: 1 }, None),
        (Down { successes: 1 }, Down { successes: 1 }, None),
        (held(now + s(1), 2), held(now + s(1), 2), None),
        (held(now, 1), Down { successes: 1 }, None),
        (held(now, 2), Up { failures: 0 }, Some(Change::WentUp)),
    ] {
        let mut health = Health::new(Terms { rise: 2, ..damped(2, s(60), s(100)) });
        health.state = state;
        assert_eq!((health.advance(now), health.state), (change, after), "{state:?}");
    }
}

#[test]
fn with_rise_and_fall_of_one_a_single_result_decides() {
    let now = an_instant();
    let mut health = Health::adopted(terms(1, 1), true);
    assert_eq!(health.handle(now, false), Some(Change::WentDown));
    assert_eq!(health.handle(now, true), Some(Change::WentUp));
}

#[test]
fn an_adopted_state_stays_until_checks_say_otherwise() {
    let now = an_instant();
    let mut up = Health::adopted(Terms { start: StartState::Down, ..terms(2, 3) }, true);
    assert!(up.usable());
    assert_eq!([false; 3].map(|passed| up.handle(now, passed)), [None, None, Some(Change::WentDown)]);
    let mut down = Health::adopted(terms(2, 3), false);
    assert!(!down.usable());
    assert_eq!([true, true].map(|passed| down.handle(now, passed)), [None, Some(Change::WentUp)]);
}

#[test]
fn names_and_details_are_what_an_operator_reads() {
    let now = an_instant();
    let starts_down = Terms { start: StartState::Down, ..terms(3, 3) };
    let held = flapped(now, damped(1, s(60), s(30)), 1);
    let cases = [
        (Health::new(no_check()), "no-check", true, None, Pace::Normal),
        (Health::adopted(no_check(), false), "no-check", true, None, Pace::Normal),
        (Health::new(terms(3, 3)), "unchecked", true, None, Pace::Normal),
        (Health::new(starts_down), "unchecked", false, None, Pace::Normal),
        (after(&[true]), "up", true, None, Pace::Normal),
        (after(&[true, false]), "going down", true, Some("1/3"), Pace::Fast),
        (after(&[true, false, false]), "going down", true, Some("2/3"), Pace::Fast),
        (after(&[true, false, true]), "up", true, None, Pace::Normal),
        (after(&[false]), "down", false, None, Pace::Down),
        (after(&[false, true, true]), "going up", false, Some("2/3"), Pace::Fast),
        (after(&[false, true, false]), "down", false, None, Pace::Down),
        (held, "held", false, Some("went down too often, 30 s left"), Pace::Down),
    ];
    for (health, name, usable, detail, pace) in cases {
        assert_eq!(
            (health.name(), health.usable(), health.detail(now).as_deref(), health.pace()),
            (name, usable, detail, pace),
            "{health:?}"
        );
    }
}

#[test]
fn a_new_configuration_keeps_what_is_known() {
    let now = an_instant();
    let held = flapped(now, damped(1, s(60), s(30)), 1);
    let starts_down = Terms { start: StartState::Down, ..terms(3, 3) };
    let cases = [
        ("from no check to a check", Health::new(no_check()), terms(3, 3), "up", None),
        ("the same, though it would start down", Health::new(no_check()), starts_down, "up", None),
        ("from up to no check", after(&[true]), no_check(), "no-check", None),
        ("from down to no check", after(&[false]), no_check(), "no-check", Some(Change::WentUp)),
        ("unchecked, other limits", Health::new(terms(3, 3)), terms(1, 1), "unchecked", None),
        ("down, other limits", after(&[false]), terms(1, 1), "down", None),
        ("held, other limits", held.clone(), damped(5, s(60), s(90)), "held", None),
        ("no longer damped", held, terms(3, 3), "down", None),
    ];
    for (name, mut health, terms, expected, change) in cases {
        assert_eq!(health.reconfigure(terms), change, "{name}");
        assert_eq!(health.name(), expected, "{name}");
    }

    let mut failing = after(&[true, false, false]);
    failing.reconfigure(terms(1, 1));
    assert_eq!(failing.handle(now, false), Some(Change::WentDown), "more failures than the new limit");
}

#[test]
fn a_server_that_flaps_is_held_until_it_was_well_for_long() {
    let start = an_instant();
    let damped = damped(3, s(60), s(30));
    assert_eq!(flapped(start, damped.clone(), 2).name(), "down", "twice is not too often");
    let mut health = flapped(start, damped.clone(), 3);
    assert_eq!(
        (health.name(), health.deadline(start)),
        ("held", Some(start + s(32))),
        "down after 0, 1 and 2 s"
    );
    assert_eq!(health.handle(start + s(10), true), None, "well, but not for long");
    assert_eq!(health.handle(start + s(20), false), None);
    assert_eq!(health.handle(start + s(21), true), None);
    assert_eq!((health.advance(start + s(49)), health.name()), (None, "held"), "after its last failure");
    assert_eq!(health.detail(start + s(49)).as_deref(), Some("went down too often, 1 s left"));
    assert_eq!((health.advance(start + s(50)), health.name()), (Some(Change::WentUp), "up"));

    let mut seldom = flapped(start, damped, 2);
    seldom.handle(start + s(70), true);
    seldom.handle(start + s(71), false);
    assert_eq!(seldom.name(), "down", "the first two are long past");
}

#[test]
fn a_recovered_server_begins_slowly_and_a_new_one_does_not() {
    let start = an_instant();
    let slow = Terms { slow_start: Some(s(90)), ..terms(1, 1) };
    let mut health = Health::new(slow.clone());
    health.handle(start, true);
    assert_eq!((health.share(start), health.deadline(start)), (100, None), "after a start");

    health.handle(start, false);
    assert_eq!(health.share(start), 0);
    assert_eq!(health.handle(start, true), Some(Change::WentUp));
    let shares = [0, 10, 45, 90, 1_000].map(|after_s| health.share(start + s(after_s)));
    assert_eq!(shares, [10, 20, 50, 100, 100]);
    assert_eq!(health.deadline(start), Some(start + s(10)));
    assert_eq!((health.advance(start + s(90)), health.deadline(start + s(90))), (None, None));

    health.handle(start, false);
    health.handle(start, true);
    health.reconfigure(terms(1, 1));
    assert_eq!(health.share(start), 100, "no longer wanted");

    let mut adopted = Health::adopted(slow, false);
    adopted.handle(start, true);
    assert_eq!(adopted.share(start), 10, "a recovery that a restart did not hide");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn health_never_flips_without_enough_results_in_a_row(
        rise in 1..6_u32, fall in 1..6_u32, adopted: Option<bool>, results in vec(any::<bool>(), 0..200),
    ) {
        let now = an_instant();
        let terms = terms(rise, fall);
        let mut health =
            adopted.map_or_else(|| Health::new(terms.clone()), |up| Health::adopted(terms.clone(), up));
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
            prop_assert_eq!(health.handle(now, passed), expected);
            prop_assert_eq!(health.usable() != was_usable, expected.is_some());
        }
    }

    /// Whatever the results: no more than so many changes within a while, and none up while it is held.
    #[test]
    fn a_damped_server_goes_down_seldom(
        changes in 1..5_u32, results in vec((any::<bool>(), 1..20_u64), 0..200),
    ) {
        let mut now = an_instant();
        let damping = Damping { changes, within: s(60), hold: s(30) };
        let mut health = Health::adopted(Terms { damping: Some(damping), ..terms(1, 1) }, true);
        let mut downs: Vec<Instant> = Vec::new();
        let mut failed = now;
        for (passed, pause_s) in results {
            now += s(pause_s);
            let was_held = health.name() == "held";
            for change in [health.advance(now), health.handle(now, passed)].into_iter().flatten() {
                if change == Change::WentUp {
                    prop_assert!(!was_held || now >= failed + s(30), "held after the last failure");
                    continue;
                }
                downs.push(now);
                let recent = downs.iter().filter(|&&down| now <= down + s(60)).count();
                prop_assert_eq!(health.name() == "held", recent >= changes as usize);
            }
            if !passed {
                failed = now;
            }
        }
    }
}

/// A server with rise 1 and fall 1 that goes down so often, a second apart, from now on.
fn flapped(now: Instant, terms: Terms, times: u64) -> Health {
    let mut health = Health::adopted(terms, true);
    for time in 0..times {
        if time > 0 {
            health.handle(now + s(time), true);
        }
        health.handle(now + s(time), false);
    }
    health
}

/// A server with rise 3 and fall 3 after these results.
fn after(results: &[bool]) -> Health {
    let mut health = Health::new(terms(3, 3));
    for &passed in results {
        health.handle(an_instant(), passed);
    }
    health
}

fn terms(rise: u32, fall: u32) -> Terms {
    Terms { rise, fall, ..Terms::nobodys() }
}

/// Rise 1 and fall 1.
fn damped(changes: u32, within: Duration, hold: Duration) -> Terms {
    Terms { damping: Some(Damping { changes, within, hold }), ..terms(1, 1) }
}

fn no_check() -> Terms {
    Terms { checked: false, ..Terms::nobodys() }
}

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

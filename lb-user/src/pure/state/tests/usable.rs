//! Panic, slow start, damping, suspicion and the agent's word, as the tables and the operator see them.

use std::time::Duration;

use super::*;
use crate::pure::{
    config::model::{Admin, Damping, Service},
    report::Advice,
    schedule::{CheckId, Orders, Pace},
};

fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Three servers of 64, 64 and 128 slots; `change` sets what a file has no words for here.
fn with(change: impl FnOnce(&mut Service)) -> (Instant, State) {
    with_servers(&service("dsr", THREE), change)
}

fn with_servers(text: &str, change: impl FnOnce(&mut Service)) -> (Instant, State) {
    let now = an_instant();
    let mut config = config(text);
    change(&mut config.services[0]);
    let mut state = State::new(Start {
        config,
        secret: SECRET,
        pinned: Tables::default(),
        ring_slots: RING_SLOTS,
        flows_max: 262_144,
        now,
    })
    .expect("room for all");
    state.plan();
    (now, state)
}

fn check(state: &mut State, position: usize, passed: bool) -> Option<Notice> {
    let notice = state.handle(checked(state, position, passed));
    state.plan();
    notice
}

fn detail(state: &State, position: usize) -> String {
    state.snapshot().services[0].servers[position].detail.clone()
}

#[test]
fn a_recovered_server_takes_its_slots_step_by_step() {
    let (start, mut state) = with(|service| service.slow_start = Some(s(90)));
    let whole = slots(&state);
    check(&mut state, 0, false);
    check(&mut state, 0, true);
    assert_eq!(owned(&state, 0), 7, "a tenth of 64");
    assert!(detail(&state, 0).starts_with("takes 10 % of its share: "), "{}", detail(&state, 0));
    for step in 1..=9 {
        let before = slots(&state);
        assert_eq!(state.deadline(), Some(start + s(10 * step)));
        state.pass(start + s(10 * step) - Duration::from_millis(1));
        assert!(!state.is_stale());
        state.pass(start + s(10 * step));
        state.plan();
        assert_eq!(owned(&state, 0), (64 * (step as usize + 1)).div_ceil(10));
        let id = state.services[0].servers[0];
        let moved = before.iter().zip(slots(&state)).filter(|(old, new)| old.current() != new.current());
        assert!(moved.into_iter().all(|(_, new)| new.current() == id), "and nobody else's");
    }
    assert_eq!(state.deadline(), None);
    assert!(whole.iter().zip(slots(&state)).all(|(old, new)| old.current() == new.current()));
}

#[test]
fn too_few_usable_servers_are_all_used() {
    let (_, mut state) = with(|service| service.panic = 60);
    check(&mut state, 0, false);
    assert_eq!((owned(&state, 0), state.take_notices()), (0, vec![]), "two of three are enough");
    check(&mut state, 1, false);
    let panic = Notice::Panic { service: "web".to_owned(), usable: 1, servers: 3 };
    assert_eq!(state.take_notices(), [panic]);
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [64, 64, 128]);
    assert!(state.installed.servers.values().all(|server| server.hop.lives), "their records count");
    assert!(state.snapshot().services[0].panics);

    check(&mut state, 2, false);
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [64, 64, 128]);
    assert_eq!(state.take_notices(), []);
    check(&mut state, 2, true);
    check(&mut state, 0, true);
    let calm = Notice::Calm { service: "web".to_owned(), usable: 2, servers: 3 };
    assert_eq!(state.take_notices(), [calm]);
    assert_eq!(owned(&state, 1), 0);
    assert!(!state.installed.servers[&state.services[0].servers[1]].hop.lives);
}

#[test]
fn a_backup_that_works_is_better_than_panic() {
    let text = service("dsr", THREE).replace("weight = 2 }", "weight = 2, backup = true }");
    let (_, mut state) = with_servers(&text, |service| service.panic = 100);
    check(&mut state, 0, false);
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [128, 128, 0], "one of two");
    check(&mut state, 1, false);
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [0, 0, 256], "none of two");
    check(&mut state, 2, false);
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [128, 128, 0], "nobody at all");
}

#[test]
fn panic_leaves_out_whom_an_operator_took_out() {
    let (_, mut state) = with(|service| {
        service.panic = 60;
        service.servers[2].admin = Admin::Maintenance;
    });
    check(&mut state, 0, false);
    let panic = Notice::Panic { service: "web".to_owned(), usable: 1, servers: 2 };
    assert_eq!(state.take_notices(), [panic]);
}

#[test]
fn a_held_server_comes_back_when_its_time_is_over() {
    let (start, mut state) =
        with(|service| service.damping = Some(Damping { changes: 2, within: s(60), hold: s(30) }));
    for passed in [true, false, true, false] {
        check(&mut state, 0, passed);
    }
    assert_eq!(check(&mut state, 0, true), None);
    let view = &state.snapshot().services[0].servers[0];
    assert_eq!(view.health, "held");
    assert!(view.detail.starts_with("went down too often, 30 s left: "), "{}", view.detail);
    assert_eq!(state.deadline(), Some(start + s(30)));
    state.pass(start + s(29));
    assert_eq!((owned(&state, 0), state.is_stale()), (0, false));
    assert!(detail(&state, 0).starts_with("went down too often, 1 s left: "));
    state.pass(start + s(30));
    state.plan();
    assert_eq!(owned(&state, 0), 64);
    assert!(matches!(state.take_notices().as_slice(), [Notice::Up { .. }]));
    assert_eq!(state.deadline(), None);
}

#[test]
fn checks_are_told_a_pace_once() {
    let (_, mut state) = with(|service| {
        service.check.fall = 2;
        service.check.rise = 2;
    });
    let id = CheckId(state.services[0].servers[0].0);
    for (passed, expected) in [
        (true, None),
        (false, Some(Pace::Fast)),
        (false, Some(Pace::Down)),
        (false, None),
        (true, Some(Pace::Fast)),
        (true, Some(Pace::Normal)),
        (true, None),
    ] {
        check(&mut state, 0, passed);
        let mut orders = Orders::default();
        expected.into_iter().for_each(|pace| orders.set_pace(id, pace));
        assert_eq!(state.take_orders(), orders);
    }
}

#[test]
fn connections_that_fail_in_a_row_call_the_check() {
    let (_, mut state) = with(|service| service.suspect_after = 3);
    let (id, other) = (state.services[0].servers[0], state.services[0].servers[1]);
    let mut fail = |failed| {
        state.handle(Event::Failing { in_a_row: [(id, failed), (other, 2)].into() });
        (state.take_orders(), state.take_notices().len(), detail(&state, 0).starts_with("suspect: "))
    };
    let mut called = Orders::default();
    called.expedite(CheckId(id.0));
    assert_eq!(fail(2), (Orders::default(), 0, false));
    assert_eq!(fail(3), (called.clone(), 1, true));
    assert_eq!(fail(9), (Orders::default(), 0, true), "once");
    assert_eq!(fail(0), (Orders::default(), 0, false), "a connection was answered");
    assert_eq!(fail(3), (called, 1, true));

    let (_, mut never) = with(|service| service.suspect_after = 0);
    never.handle(Event::Failing { in_a_row: [(id, 100)].into() });
    assert_eq!(never.take_notices(), []);
}

#[test]
fn an_agent_says_how_much_its_server_takes() {
    let (_, mut state) = with(|_| ());
    let mut advise = |advice: Advice| {
        let server = state.services[0].servers[0];
        let outcome = Outcome::Advised(advice);
        let report = Report { outcome, steps: Vec::new(), answer: None, warning: None };
        let notice = state.handle(Event::Checked { server, report });
        state.plan();
        (owned(&state, 0), notice.is_some())
    };
    let weight = |weight| Advice { weight: Some(weight), ..Advice::default() };
    let up = |up| Advice { up: Some(up), ..Advice::default() };
    assert_eq!(advise(weight(50)), (32, false));
    assert_eq!(advise(Advice::default()), (32, false), "says nothing of it");
    assert_eq!(advise(weight(200)), (64, false));
    assert_eq!(advise(weight(25)), (16, false));
    assert_eq!(advise(up(false)), (0, true));
    assert_eq!(advise(up(true)), (16, true));
}

/// What happens in `no_share_and_no_panic_moves_a_connection`.
#[derive(Debug, Clone)]
enum Turn {
    Check(usize, bool),
    Open(usize),
    Packet(usize),
    /// Shares grow.
    Pass,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let one = prop_oneof![
        3 => (0usize..3, any::<bool>()).prop_map(|(server, passed)| Turn::Check(server, passed)),
        4 => (0usize..256).prop_map(Turn::Open),
        6 => any::<usize>().prop_map(Turn::Packet),
        3 => Just(Turn::Pass),
    ];
    proptest::collection::vec(one, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// The promise, with slow start and a panic threshold: whoever's server was in use all along stays with it.
    #[test]
    fn no_share_and_no_panic_moves_a_connection(turns in turns()) {
        let (mut now, mut state) = with(|service| {
            service.slow_start = Some(s(90));
            service.panic = 50;
        });
        // Whether its server was out of use for a while.
        let mut connections: Vec<(Connection, bool)> = Vec::new();
        for turn in turns {
            match turn {
                Turn::Check(position, passed) => drop(check(&mut state, position, passed)),
                Turn::Pass => {
                    now += s(10);
                    state.pass(now);
                    state.plan();
                }
                Turn::Open(slot) => {
                    let mut connection = Connection { slot, server: ServerId::NONE, record: None };
                    connection.server = deliver(&state, &mut connection, true);
                    connections.push((connection, false));
                }
                Turn::Packet(which) if !connections.is_empty() => {
                    let index = which % connections.len();
                    let (connection, cut) = &mut connections[index];
                    let reached = deliver(&state, connection, false);
                    prop_assert!(*cut || reached == connection.server, "{:?}, yet {reached:?}", connection.server);
                }
                Turn::Packet(_) => {}
            }
            for (connection, cut) in &mut connections {
                let server = state.installed.servers.get(&connection.server);
                *cut |= server.is_none_or(|server| !server.hop.lives);
            }
        }
    }
}

mod usable;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::pure::{
    config,
    hop::{NextHop, Tags},
    place::PlaceError,
    testing::an_instant,
};

pub(super) const SECRET: &[u8] = b"test";
const RING_SLOTS: u32 = 1 << 20;

pub(super) fn config(text: &str) -> Config {
    let head = "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"test\"\n";
    config::parse("test.toml", &format!("{head}{text}")).expect("a valid configuration").config
}

pub(super) fn service(forward: &str, servers: &[(&str, u16)]) -> String {
    let list: Vec<_> = (0..)
        .zip(servers)
        .map(|(n, (address, weight))| {
            format!("{{ name = \"s{n}\", address = \"{address}\", weight = {weight} }}")
        })
        .collect();
    format!(
        "[[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\nforward = \"{forward}\"\nslots = 256\n\
         server = [{}]\ncheck = {{ type = \"tcp\", rise = 1, fall = 1 }}\n",
        list.join(", ")
    )
}

pub(super) const THREE: &[(&str, u16)] = &[("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 2)];

pub(super) fn start(config: Config, pinned: Tables) -> State {
    State::new(Start {
        config,
        secret: SECRET,
        pinned,
        ring_slots: RING_SLOTS,
        flows_max: 262_144,
        now: an_instant(),
    })
    .expect("room for all")
}

pub(super) fn reach(last: u8) -> Event {
    let hop = NextHop {
        interface: 2,
        interface_mac: [2, 0, 0, 0, 0, 1],
        source: IpAddr::from([10, 0, 0, 254]),
        via: IpAddr::from([10, 0, 0, last]),
        neighbour: Some([2, 0, 0, 0, 1, last]),
        mtu: 1_500,
        tags: Tags::NONE,
    };
    Event::Reached { address: hop.via, reach: Reach::Hop(hop) }
}

/// A state that is attached and reaches its three servers, after its first plan.
pub(super) fn running(forward: &str, pinned: Tables) -> State {
    let mut state = start(config(&service(forward, THREE)), pinned);
    state.attach(2);
    for last in 1..=3 {
        state.handle(reach(last));
    }
    state.plan();
    state
}

pub(super) fn checked(state: &State, position: usize, passed: bool) -> Event {
    result(state.services[0].servers[position], passed)
}

pub(super) fn swept(records: u64, named: BTreeMap<ServerId, u64>) -> Event {
    Event::Swept { records, named, survey: Survey::default() }
}

fn result(server: ServerId, passed: bool) -> Event {
    let outcome = if passed { Outcome::Passed } else { Outcome::Failed("refused".into()) };
    Event::Checked { server, report: Report { outcome, steps: Vec::new(), answer: None, warning: None } }
}

pub(super) fn slots(state: &State) -> Vec<Slot> {
    state.installed.rings[&state.services[0].place.rings[0]].to_vec()
}

pub(super) fn owned(state: &State, position: usize) -> usize {
    let id = state.services[0].servers[position];
    slots(state).iter().filter(|slot| slot.current() == id).count()
}

#[test]
fn the_first_plan_fills_every_table() {
    let state = running("nat", Tables::default());
    let tables = &state.installed;
    assert_eq!(tables.dangling(), None);
    // Its own key, and the one that its address is pinged by.
    assert_eq!((tables.services.len(), tables.servers.len(), tables.devices.len()), (2, 3, 1));
    assert_eq!(tables.nat_sources, [IpAddr::from([10, 0, 0, 254])]);
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [64, 64, 128]);
    assert!(slots(&state).iter().all(|slot| !slot.lookup()));
}

#[test]
fn a_server_that_fails_leaves_the_ring_without_a_trace() {
    let mut state = running("dsr", Tables::default());
    let before = slots(&state);
    let failed = state.services[0].servers[0];
    assert!(matches!(state.handle(checked(&state, 0, false)), Some(Notice::Down { .. })));
    state.plan();
    for (old, new) in before.iter().zip(slots(&state)) {
        assert!(!new.lookup(), "its connections are lost: nothing needs a record");
        assert!(old.current() == failed || new == *old, "the others' slots stay");
        assert_ne!(new.current(), failed);
    }
    assert!(!state.installed.servers[&failed].hop.lives);
}

#[test]
fn a_server_that_recovers_takes_its_slots_back_and_breaks_nothing() {
    let mut state = running("dsr", Tables::default());
    let before = slots(&state);
    let event = checked(&state, 0, false);
    state.handle(event);
    state.plan();
    let without = slots(&state);
    let event = checked(&state, 0, true);
    assert!(matches!(state.handle(event), Some(Notice::Up { .. })));
    state.plan();
    for ((first, second), now) in before.iter().zip(&without).zip(slots(&state)) {
        assert_eq!(now.current(), first.current());
        assert_eq!(now.base(), second.base(), "whoever served meanwhile keeps its connections");
        assert_eq!(now.lookup(), first != second);
    }
}

#[test]
fn a_service_without_usable_servers_has_an_empty_ring() {
    let mut state = running("dsr", Tables::default());
    for position in 0..3 {
        let event = checked(&state, position, false);
        state.handle(event);
    }
    state.plan();
    assert!(slots(&state).iter().all(|&slot| slot == Slot::settled(ServerId::NONE)));
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let text = service("dsr", THREE).replace("weight = 2 }", "weight = 2, backup = true }");
    let mut state = start(config(&text), Tables::default());
    state.plan();
    assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], [128, 128, 0]);
    for (position, passed, expected) in
        [(0, false, [0, 256, 0]), (1, false, [0, 0, 256]), (1, true, [0, 256, 0]), (0, true, [128, 128, 0])]
    {
        let event = checked(&state, position, passed);
        state.handle(event);
        state.plan();
        assert_eq!([owned(&state, 0), owned(&state, 1), owned(&state, 2)], expected, "{position} {passed}");
    }
}

#[test]
fn schedulers_that_go_in_turn_have_rotations() {
    for balance in ["roundrobin", "leastconn"] {
        let text = service("dsr", THREE).replace("port = 80", &format!("port = 80\nbalance = \"{balance}\""));
        let mut state = start(config(&text), Tables::default());
        state.plan();
        let round: Vec<ServerId> = slots(&state)[..4].iter().map(|slot| slot.current()).collect();
        assert_eq!(slots(&state)[4..8].iter().map(|slot| slot.current()).collect::<Vec<_>>(), round);
        let heaviest = state.services[0].servers[2];
        assert_eq!(round.iter().filter(|&&id| id == heaviest).count(), 2, "{balance}: {round:?}");
        let event = checked(&state, 0, false);
        state.handle(event);
        state.plan();
        assert!(slots(&state).iter().all(|slot| !slot.lookup()), "{balance}: every flow is recorded anyway");
    }
}

/// What a hash placed without a record stays with its slot; what a scheduler recorded may stand in any slot.
#[test]
fn another_scheduler_keeps_connections() {
    let in_turn = service("dsr", THREE).replace("port = 80", "port = 80\nbalance = \"roundrobin\"");
    let hashed = running("dsr", Tables::default());
    let before: Vec<ServerId> = slots(&hashed).iter().map(|slot| slot.base()).collect();
    let mut turned = start(config(&in_turn), hashed.installed);
    turned.plan();
    assert!(slots(&turned).iter().map(|slot| slot.base()).eq(before.iter().copied()));
    let mut restarted = start(config(&in_turn), turned.installed.clone());
    restarted.plan();
    assert!(slots(&restarted).iter().map(|slot| slot.base()).eq(before), "a restart owes no less");
    let mut back = start(config(&service("dsr", THREE)), turned.installed);
    back.plan();
    assert!(slots(&back).iter().all(|slot| slot.lookup()), "any slot may have records");
    assert_eq!(back.breaks(), [""; 0]);
}

#[test]
fn every_kind_of_service_can_be_planned() {
    for text in [
        include_str!("../../../../examples/steelyard.toml"),
        include_str!("../../../../examples/gateway.toml"),
        include_str!("../../../../examples/ipip.toml"),
        include_str!("../../../../examples/gue.toml"),
    ] {
        let parsed = config::parse("example.toml", text).expect("correct");
        let servers = parsed.config.services.iter().map(|service| service.servers.len()).sum::<usize>();
        let mut state = start(parsed.config, Tables::default());
        let mut tables = Tables::default();
        for step in state.plan() {
            tables.apply(step);
            assert_eq!(tables.dangling(), None);
        }
        assert_eq!(state.checks().len(), servers, "each has a port to check");
        assert_eq!(state.targets().len(), servers);
    }
}

#[test]
fn a_restart_changes_nothing() {
    let mut state = running("nat", Tables::default());
    let event = checked(&state, 1, false);
    state.handle(event);
    state.plan();
    let pinned = state.installed.clone();
    let mut again = start(config(&service("nat", THREE)), pinned.clone());
    again.attach(2);
    assert_eq!(again.plan(), [], "nothing is known yet: the pinned way to each server holds");
    let unasked = NextHop {
        interface: 2,
        interface_mac: [2, 0, 0, 0, 0, 1],
        source: IpAddr::from([10, 0, 0, 254]),
        via: IpAddr::from([10, 0, 0, 1]),
        neighbour: None,
        mtu: 1_500,
        tags: Tags::NONE,
    };
    again.handle(Event::Reached { address: unasked.via, reach: Reach::Hop(unasked) });
    assert_eq!(again.plan(), [], "a neighbour that is being asked for keeps its pinned mac");
    for last in 1..=3 {
        again.handle(reach(last));
    }
    assert_eq!(again.plan(), [], "a server that was down stays down until it is checked");
    assert_eq!(again.installed, pinned);
    assert_eq!(again.breaks(), [""; 0]);
}

#[test]
fn what_a_restart_breaks_is_told() {
    let before = running("dsr", Tables::default());
    let text = service("dsr", THREE).replace("slots = 256", "slots = 512");
    let state = start(config(&text), before.installed.clone());
    assert_eq!(state.breaks().len(), 1, "{:?}", state.breaks());
    for changed in [
        service("nat", THREE),
        service("dsr", THREE).replace("port = 80", "port = 80\nbalance = \"source\""),
        service("dsr", THREE).replace("port = 80", "port = 80\npersistence = \"1m\""),
    ] {
        let state = start(config(&changed), before.installed.clone());
        assert_eq!(state.breaks().len(), 1, "{changed}: {:?}", state.breaks());
    }
    for kept in ["gue", "ipip"].map(|forward| service(forward, THREE)) {
        let state = start(config(&kept), before.installed.clone());
        assert_eq!(state.breaks(), [""; 0], "{kept}");
    }
    let start = Start {
        config: config(&service("dsr", THREE)),
        secret: b"other",
        pinned: before.installed,
        ring_slots: RING_SLOTS,
        flows_max: 262_144,
        now: an_instant(),
    };
    assert_eq!(State::new(start).expect("room for all").breaks().len(), 1);
}

#[test]
fn nat_slots_need_no_history() {
    let mut state = running("nat", Tables::default());
    for passed in [false, true] {
        let event = checked(&state, 0, passed);
        state.handle(event);
        state.plan();
        assert!(slots(&state).iter().all(|slot| !slot.lookup()), "every flow is recorded anyway");
    }
}

#[test]
fn a_removed_server_is_checked_on() {
    let before = running("dsr", Tables::default());
    let removed = before.services[0].servers[0];
    let mut state = start(config(&service("dsr", &THREE[1..])), before.installed.clone());
    assert!(state.checks().iter().any(|task| task.server == removed));
    state.plan();
    let down = result(removed, false);
    assert!(matches!(state.handle(down), Some(Notice::Down { .. })));
    state.plan();
    assert!(!state.installed.servers[&removed].hop.lives);
}

#[test]
fn dsr_needs_the_server_on_the_link() {
    let mut state = running("dsr", Tables::default());
    let Event::Reached { address, reach: Reach::Hop(hop) } = reach(1) else { unreachable!() };
    let routed = NextHop { via: IpAddr::from([10, 0, 0, 99]), ..hop };
    state.handle(Event::Reached { address, reach: Reach::Hop(routed) });
    state.plan();
    assert!(!state.installed.servers[&state.services[0].servers[0]].hop.resolved);
    let view = &state.snapshot().services[0].servers[0];
    assert!(view.unreachable.is_some_and(|reason| reason.contains("router")), "{view:?}");
}

#[test]
fn order_in_the_file_does_not_matter() {
    let mut turned = THREE.to_vec();
    turned.reverse();
    let state = running("dsr", Tables::default());
    let mut other = start(config(&service("dsr", &turned)), Tables::default());
    other.plan();
    let address = |state: &State, slot: &Slot| state.servers[&slot.current()].address;
    let pairs = slots(&state).into_iter().zip(slots(&other));
    assert!(pairs.into_iter().all(|(a, b)| address(&state, &a) == address(&other, &b)));
}

#[test]
fn a_removed_server_keeps_its_id_while_anything_names_it() {
    let before = running("dsr", Tables::default());
    let removed = before.services[0].servers[0];
    let mut state = start(config(&service("dsr", &THREE[1..])), before.installed.clone());
    state.attach(2);
    state.plan();
    assert!(state.installed.servers[&removed].hop.lives, "its connections go on");
    assert!(slots(&state).iter().all(|slot| slot.current() != removed));
    assert!(slots(&state).iter().any(|slot| slot.base() == removed), "and are its own in the slots it had");
    state.handle(swept(0, BTreeMap::new()));
    state.plan();
    assert!(state.installed.servers.contains_key(&removed), "a slot names it");

    // Without slots of its own, only records can name it.
    let mut state = start(config(&service("nat", &THREE[1..])), {
        let mut pinned = before.installed.clone();
        pinned.rings.clear();
        pinned.services.clear();
        pinned
    });
    state.plan();
    state.handle(swept(1, [(removed, 1)].into()));
    state.plan();
    assert!(state.installed.servers.contains_key(&removed), "a record names it");
    state.handle(swept(0, BTreeMap::new()));
    state.plan();
    assert!(state.installed.servers.contains_key(&removed), "a record may have been made behind the round");
    state.handle(swept(0, BTreeMap::new()));
    assert!(state.plan().contains(&Step::RemoveServer(removed)));
}

#[test]
fn an_unreachable_server_is_told_once() {
    let mut state = running("nat", Tables::default());
    let gone = Event::Reached { address: IpAddr::from([10, 0, 0, 1]), reach: Reach::NoRoute };
    assert!(matches!(state.handle(gone.clone()), Some(Notice::Unreachable { .. })));
    assert_eq!(state.handle(gone), None);
    state.plan();
    assert!(!state.installed.servers[&state.services[0].servers[0]].hop.resolved);
    assert_eq!(state.handle(reach(1)), None);
}

#[test]
fn configured_nat_sources_serve_every_server_and_the_list_never_shrinks() {
    let text = service("nat", THREE);
    let mut with_three = config(&text);
    with_three.datapath.nat_source = (1..=3).map(|n| IpAddr::from([10, 0, 1, n])).collect();
    let mut state = start(with_three.clone(), Tables::default());
    state.plan();
    let servers = state.installed.servers.values();
    assert!(servers.into_iter().all(|server| (server.nat_first, server.nat_count) == (0, 3)));

    let mut with_one = with_three;
    with_one.datapath.nat_source.truncate(1);
    let mut again = start(with_one, state.installed.clone());
    again.plan();
    assert_eq!(again.installed.nat_sources.len(), 3, "steps before the servers' refer to the tail");
    assert!(again.installed.servers.values().all(|server| server.nat_count == 1));
}

#[test]
fn rings_that_do_not_fit_are_refused() {
    let one = start_error(config(&service("dsr", THREE)), 255);
    assert_eq!(one, Some(PlaceError::Ring { needed: 256, capacity: 255 }));
}

fn start_error(config: Config, ring_slots: u32) -> Option<PlaceError> {
    State::new(Start {
        config,
        secret: SECRET,
        pinned: Tables::default(),
        ring_slots,
        flows_max: 262_144,
        now: an_instant(),
    })
    .err()
}

#[test]
fn a_hundred_flaps_at_once_build_a_ring_once() {
    let mut state = running("dsr", Tables::default());
    let before = state.installed.rings.clone();
    for turn in 0..100 {
        state.handle(checked(&state, turn % 3, turn % 2 == 0));
        assert_eq!(state.installed.rings, before, "nothing is built before the plan");
    }
    let steps = state.plan();
    let built = steps.iter().filter(|step| matches!(step, Step::SetSlots(..))).count();
    assert!(built <= 1, "{built} times");
    assert_eq!(state.plan(), [], "and nothing is left to do");
}

/// What happens in the simulation of `no_connection_to_a_living_server_moves`.
#[derive(Debug, Clone)]
enum Move {
    Check(usize, bool),
    Open(usize),
    Packet(usize),
    Restart,
    /// The idle time passes; whoever lives has sent something meanwhile.
    Wait,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => (0usize..3, any::<bool>()).prop_map(|(server, passed)| Move::Check(server, passed)),
        4 => (0usize..256).prop_map(Move::Open),
        6 => any::<usize>().prop_map(Move::Packet),
        1 => Just(Move::Restart),
        1 => Just(Move::Wait),
    ];
    proptest::collection::vec(one, 1..120)
}

/// A connection, and what the kernel's table says of it.
struct Connection {
    slot: usize,
    server: ServerId,
    record: Option<ServerId>,
}

/// The kernel's rules on one packet, as `lb_ebpf` carries them out.
fn deliver(state: &State, connection: &mut Connection, opening: bool) -> ServerId {
    let slot = slots(state)[connection.slot];
    if !slot.lookup() {
        return slot.current();
    }
    let lives = |id: ServerId| state.installed.servers.get(&id).is_some_and(|server| server.hop.lives);
    if let Some(server) = connection.record.filter(|&server| lives(server)) {
        return server;
    }
    let server = slot.owner(opening, lives(slot.base()));
    connection.record = Some(server);
    server
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The promise: a connection whose server was never down stays with it, whatever else happens.
    #[test]
    fn no_connection_to_a_living_server_moves(moves in moves()) {
        let mut state = running("dsr", Tables::default());
        let mut connections: Vec<Connection> = Vec::new();
        let mut went_down: HashMap<ServerId, usize> = HashMap::new();
        let mut opened: Vec<usize> = Vec::new();
        let mut now = 0;
        for (time, step) in moves.into_iter().enumerate() {
            match step {
                Move::Check(position, passed) => {
                    let id = state.services[0].servers[position];
                    if let Some(Notice::Down { .. }) = state.handle(checked(&state, position, passed)) {
                        went_down.insert(id, time);
                    }
                }
                Move::Open(slot) => {
                    let mut connection = Connection { slot, server: ServerId::NONE, record: None };
                    connection.server = deliver(&state, &mut connection, true);
                    if !connection.server.is_none() {
                        connections.push(connection);
                        opened.push(time);
                    }
                }
                Move::Packet(which) if !connections.is_empty() => {
                    let index = which % connections.len();
                    let server = connections[index].server;
                    let unbroken = went_down.get(&server).is_none_or(|&down| down < opened[index]);
                    let reached = deliver(&state, &mut connections[index], false);
                    prop_assert!(!unbroken || reached == server, "{server:?} lives, yet {reached:?} got the packet");
                }
                Move::Packet(_) => {}
                Move::Wait => {
                    for (connection, &opened) in connections.iter_mut().zip(&opened) {
                        let unbroken = went_down.get(&connection.server).is_none_or(|&down| down < opened);
                        let reached = deliver(&state, connection, false);
                        prop_assert!(!unbroken || reached == connection.server, "moved while it waited");
                    }
                    now += Ticks::in_ms(900_000);
                    state.advance(Ticks(now), |_| None);
                }
                Move::Restart => {
                    let pinned = state.installed.clone();
                    state = start(config(&service("dsr", THREE)), pinned);
                    state.advance(Ticks(now), |_| None);
                    state.attach(2);
                    for last in 1..=3 {
                        state.handle(reach(last));
                    }
                }
            }
            let before = state.installed.clone();
            let mut tables = before;
            for step in state.plan() {
                tables.apply(step);
                prop_assert_eq!(tables.dangling(), None);
            }
            prop_assert_eq!(&tables, &state.installed);
        }
    }
}

use super::*;
use crate::pure::{
    plan::Tables,
    state::tests::{SECRET, THREE, checked, config, owned, reach, running, service, slots, swept},
};

fn settled(mut state: State) -> State {
    state.plan();
    state
}

/// A running state that took this configuration.
fn reloaded(before: &State, text: &str) -> State {
    let tried = before.tried(config(text), SECRET).expect("room for all");
    let mut tables = before.installed.clone();
    for step in tried.steps {
        tables.apply(step);
        assert_eq!(tables.dangling(), None);
    }
    assert_eq!(tables, tried.state.installed, "the steps lead there");
    tried.state
}

#[test]
fn the_same_configuration_changes_nothing() {
    let state = running("dsr", Tables::default());
    let tried = state.tried(config(&service("dsr", THREE)), SECRET).expect("room for all");
    assert_eq!(tried.steps, []);
    assert_eq!(tried.plan.percent_moved, 0.0);
    assert_eq!(tried.plan.services[0].change, "unchanged");
    assert_eq!(tried.plan.breaks, [] as [&str; 0]);
}

#[test]
fn a_server_that_stays_keeps_what_is_known_of_it() {
    let mut state = running("dsr", Tables::default());
    state.handle(checked(&state, 0, false));
    let state = settled(state);
    let before = state.services[0].servers.clone();
    let after = reloaded(&state, &service("dsr", &[("10.0.0.3", 2), ("10.0.0.1", 5), ("10.0.0.4", 1)]));
    let ids = &after.services[0].servers;
    assert_eq!([ids[0], ids[1]], [before[2], before[0]], "ids go with the address");
    assert!(!before.contains(&ids[2]));
    assert!(!after.servers[&ids[1]].health.usable(), "it was down and is");
    assert!(after.servers[&ids[0]].health.usable());
    assert_eq!(after.servers[&before[1]].position, None, "10.0.0.2 is leaving");
    assert!(after.installed.servers.contains_key(&before[1]), "and its connections go on");
}

#[test]
fn a_removed_server_that_comes_back_is_the_same() {
    let state = running("dsr", Tables::default());
    let id = state.services[0].servers[2];
    let without = reloaded(&state, &service("dsr", &THREE[..2]));
    let again = reloaded(&without, &service("dsr", THREE));
    assert_eq!(again.services[0].servers[2], id);
    assert!(slots(&again).iter().zip(slots(&state)).all(|(now, then)| now.current() == then.current()));
}

/// A name; the servers; the fewest slots that move; servers added, removed and changed.
type Case<'a> = (&'a str, &'a [(&'a str, u16)], u32, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

#[test]
fn a_plan_says_what_moves() {
    let state = running("dsr", Tables::default());
    let share = |position| owned(&state, position) as u32;
    let cases: [Case<'_>; 4] = [
        ("a server less", &THREE[..2], share(2), &[], &["s2"], &[]),
        ("another weight", &[THREE[0], THREE[1], ("10.0.0.3", 1)], 0, &[], &[], &["s2: weight 2 to 1"]),
        ("one more", &[THREE[0], THREE[1], THREE[2], ("10.0.0.4", 1)], 0, &["s3"], &[], &[]),
        ("the same", THREE, 0, &[], &[], &[]),
    ];
    for (name, servers, least, added, removed, changed) in cases {
        let plan = state.tried(config(&service("dsr", servers)), SECRET).expect("room").plan;
        let [service] = &plan.services[..] else { panic!("{name}: one service") };
        assert_eq!(service.slots, 256, "{name}");
        assert!(service.slots_moved >= least, "{name}: {service:?}");
        assert_eq!(service.slots_moved == 0, servers == THREE, "{name}");
        assert_eq!(service.servers_added, added, "{name}");
        assert_eq!(service.servers_removed, removed, "{name}");
        assert_eq!(service.servers_changed, changed, "{name}");
    }
}

#[test]
fn services_come_and_go() {
    let state = running("dsr", Tables::default());
    let other = service("dsr", THREE).replace("web", "mail").replace("port = 80", "port = 25");
    let both = reloaded(&state, &(service("dsr", THREE) + &other));
    assert_eq!(both.installed.rings.len(), 2);
    assert_eq!(both.services[0].place, state.services[0].place);
    let plan = both.tried(config(&other), SECRET).expect("room").plan;
    let shown: Vec<_> =
        plan.services.iter().map(|service| (service.name.as_str(), service.change.as_str())).collect();
    assert_eq!(shown, [("mail", "unchanged"), ("web", "removed")]);
    assert_eq!(plan.percent_moved, 50.0);

    let mut one = reloaded(&both, &other);
    assert_eq!(one.installed.rings.len(), 1);
    assert_eq!(one.checks().len(), 3, "nobody asks for a service that is gone");
    for _ in 0..2 {
        one.handle(swept(0, BTreeMap::new()));
    }
    let one = settled(one);
    assert_eq!(one.installed.servers.len(), 3, "its servers are forgotten once nothing names them");
}

#[test]
fn what_breaks_connections_is_told() {
    let state = running("dsr", Tables::default());
    let breaks = |text: &str, secret: &[u8]| state.tried(config(text), secret).expect("room").plan.breaks;
    let same = service("dsr", THREE);
    assert_eq!(breaks(&same, SECRET), [] as [&str; 0]);
    assert!(breaks(&same, b"another")[0].contains("secret"));
    assert!(breaks(&same.replace("slots = 256", "slots = 512"), SECRET)[0].contains("another size"));
    assert!(breaks(&service("nat", THREE), SECRET)[0].contains("forwards in another way"));
    assert_eq!(breaks(&service("ipip", THREE), SECRET), [] as [&str; 0]);
}

#[test]
fn drain_and_maintenance() {
    let mut state = running("dsr", Tables::default());
    let id = state.services[0].servers[0];
    let with = |admin| {
        let mut config = config(&service("dsr", THREE));
        config.services[0].servers[0].admin = admin;
        config
    };
    let drained = state.tried(with(Admin::Drain), SECRET).expect("room").state;
    assert_eq!(owned(&drained, 0), 0);
    assert!(slots(&drained).iter().any(|slot| slot.base() == id), "its connections go on");
    let entry = drained.installed.servers[&id];
    assert!(entry.hop.lives && entry.weight == 0);

    let cut = drained.tried(with(Admin::Maintenance), SECRET).expect("room").state;
    assert!(!cut.installed.servers[&id].hop.lives);
    assert!(slots(&cut).iter().all(|slot| slot.base() != id && slot.current() != id));

    let mut back = cut.tried(with(Admin::Ready), SECRET).expect("room").state;
    assert_eq!(owned(&back, 0), owned(&state, 0), "it gets its own slots back");
    assert_eq!(back.handle(checked(&back, 0, true)), None, "health went on meanwhile");
    state.handle(reach(1));
}

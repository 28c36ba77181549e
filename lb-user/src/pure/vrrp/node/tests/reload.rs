//! What a reload disturbs, and what it does not.

use super::*;

fn second() -> Config {
    Config {
        vrid: 52,
        addresses: vec![an_address(Ipv4Addr::new(10, 0, 0, 102).into())],
        ..a_router("second")
    }
}

/// Two routers are Active, and a reload brings these.
fn reload(settings: Settings) -> (Bench, Vec<Action>) {
    let mut bench = Bench::active(routers([a_router("r"), second()]));
    bench.now += ms(5);
    let actions = bench.input(Input::Configure(settings));
    (bench, actions)
}

#[test]
fn nothing_that_stays_is_touched() {
    let (mut bench, actions) = reload(routers([a_router("r"), second()]));
    assert_eq!(actions, []);
    assert_eq!(said(&bench.run_until(10_610)), "send 100", "when it was due anyway");
}

#[test]
fn changes_apply_without_an_election() {
    let address = an_address(Ipv4Addr::new(10, 0, 0, 101).into());
    let more = vec![a_router("r").addresses[0].clone(), address];
    for (name, changed, expected) in [
        ("another priority", Config { priority: 150, ..a_router("r") }, "priority 150"),
        ("a lower one, without a rival", Config { priority: 50, ..a_router("r") }, "priority 50"),
        ("one address more", Config { addresses: more, ..a_router("r") }, "install 2, frame"),
        ("another name", Config { name: "new".to_owned(), ..a_router("r") }, ""),
        ("a tracker without a result", tracking(FAULT), ""),
        ("other times", Config { preempt: Preempt::Never, down_timer_adverts: 5, ..a_router("r") }, ""),
        ("another source", Config { source: Some(Ipv4Addr::new(10, 0, 0, 1).into()), ..a_router("r") }, ""),
        (
            "another group",
            Config { multicast: Some(Ipv4Addr::new(224, 0, 0, 19).into()), ..a_router("r") },
            "open",
        ),
        (
            "a virtual MAC",
            Config {
                virtual_mac: Some(VirtualMac { name: Some("eth0".to_owned()), transmit_base: false }),
                ..a_router("r")
            },
            "open, install 1, frame",
        ),
        ("it owns the addresses now", Config { priority: 255, ..a_router("r") }, "priority 255"),
    ] {
        let (bench, actions) = reload(routers([changed, second()]));
        assert_eq!(said(&actions), expected, "{name}");
        assert_eq!(bench.state(), "active", "{name}");
    }
}

#[test]
fn a_shorter_interval_counts_at_once() {
    let (mut bench, _) = reload(routers([Config { interval: ms(100), ..a_router("r") }, second()]));
    let sent = |actions: &[Action]| {
        actions.iter().filter(|action| matches!(action, Action::Send { router: RouterId(0), .. })).count()
    };
    assert_eq!(sent(&bench.run_until(11_000)), 9, "from 10.105 s on");
}

#[test]
fn one_that_leaves_resigns() {
    let (bench, actions) = reload(routers([second()]));
    assert_eq!(said(&actions), "send 0, install 0, close, ended");
    assert_eq!(bench.node.status(bench.now).routers.len(), 1);
    assert_eq!(bench.state(), "active");
}

#[test]
fn another_vrid_is_another_router() {
    let (bench, actions) = reload(routers([Config { vrid: 53, ..a_router("r") }, second()]));
    assert_eq!(said(&actions), "open, send 0, install 0, close, ended, backup");
    let states: Vec<_> = (0..2).map(|n| bench.status(n).state).collect();
    assert_eq!(states, ["active", "backup"]);
}

#[test]
fn an_owner_in_backup_is_active_at_once() {
    let mut bench = Bench::new(routers([a_router("r")]));
    let settings = routers([Config { priority: 255, ..a_router("r") }]);
    let actions = bench.input(Input::Configure(settings));
    assert_eq!(said(&actions), "send 255, install 1, frame, priority 255, active");
}

#[test]
fn a_group_that_leaves_frees_its_members() {
    let mut bench = Bench::new(grouped());
    bench.script(Verdict::Up);
    let [a, b] = [a_router("a"), Config { vrid: 52, ..a_router("b") }];
    assert_eq!(said(&bench.input(Input::Configure(routers([a, b.clone()])))), "group ended");
    for second in 1..=5 {
        bench.run_until(second * 1_000);
        bench.advert(&b, 150);
    }
    assert_eq!((bench.status(0).state, bench.status(1).state), ("active".to_owned(), "backup".to_owned()));
}

use std::{net::Ipv4Addr, time::Duration};

use super::*;
use crate::pure::{
    config::model::vrrp::{
        Auth, Effect, Group as ConfigGroup, Hooks, Preempt, Router as Config, Track, Version, VirtualMac,
    },
    testing::an_instant,
    vrrp::{
        advert::ChecksumForm,
        codec::Outgoing,
        hmac::Sequencer,
        testing::{a_router, an_address, eth0, ms, routers, settings},
    },
};

mod property;
mod reload;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// One node with eth0 and 10.0.0.1; adverts of 10.0.0.2 come as the test says.
struct Bench {
    start: Instant,
    now: Instant,
    node: Node,
}

impl Bench {
    /// Configured, and nothing else.
    fn bare(settings: Settings) -> Bench {
        let start = an_instant();
        let mut bench = Bench { start, now: start, node: Node::new(start, 1) };
        bench.input(Input::Configure(settings));
        bench
    }

    fn new(settings: Settings) -> Bench {
        let mut bench = Bench::bare(settings);
        bench.input(Input::Link(eth0(1)));
        bench.input(Input::Ready(true));
        bench
    }

    /// Active since a moment, every announcement made.
    fn active(settings: Settings) -> Bench {
        let mut bench = Bench::new(settings);
        bench.run_until(10_000);
        bench
    }

    fn input(&mut self, input: Input<'_>) -> Vec<Action> {
        self.node.handle(self.now, input);
        self.node.take_actions()
    }

    /// Everything that is due until then, in milliseconds since the start.
    fn run_until(&mut self, until: u64) -> Vec<Action> {
        let until = self.start + ms(until);
        let mut actions = Vec::new();
        while let Some(at) = self.node.deadline().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            actions.extend(self.input(Input::Pass));
        }
        self.now = until;
        actions
    }

    /// An advert of the peer, whose configuration is this.
    fn advert(&mut self, peer: &Config, priority: u8) -> Vec<Action> {
        let destination = peer.group_address();
        let outgoing = Outgoing {
            router: peer,
            priority,
            form: ChecksumForm::PseudoHeader,
            source: PEER,
            destination,
            sequence: Sequencer::default().next(Timestamp::UNIX_EPOCH),
        };
        let seen = Seen { interface: 2, source: PEER, destination, ttl: 255 };
        self.input(Input::Packet { seen, bytes: &outgoing.encode() })
    }

    fn status(&self, n: usize) -> crate::pure::status::RouterStatus {
        self.node.status(self.now).routers[n].clone()
    }

    fn state(&self) -> String {
        self.status(0).state
    }

    fn link(&mut self, is_up: bool) -> Vec<Action> {
        self.input(Input::Link(Link { is_up, ..eth0(1) }))
    }

    fn script(&mut self, verdict: Verdict) -> Vec<Action> {
        self.input(Input::Tracked { what: script(), verdict })
    }
}

fn script() -> Tracked {
    Tracked::Script("x".to_owned())
}

fn tracking(effect: Effect) -> Config {
    Config { track: vec![Track { what: script(), effect }], ..a_router("r") }
}

const FAULT: Effect = Effect::Fault { reverse: false };

/// The actions, short.
fn said(actions: &[Action]) -> String {
    let mut words: Vec<String> = Vec::new();
    for action in actions {
        let word = match action {
            Action::Open { .. } => "open".to_owned(),
            Action::Close { .. } => "close".to_owned(),
            Action::Send { bytes, .. } => format!("send {}", bytes[2]),
            Action::Install { estate, .. } => format!("install {}", estate.addresses.len()),
            Action::Frame { .. } => "frame".to_owned(),
            Action::Tell { .. } | Action::Answer { .. } => "tell".to_owned(),
            Action::Stopped => "stopped".to_owned(),
            Action::Happened(happening) => match happening {
                Happening::Became { to, .. } => to.name().to_owned(),
                Happening::GroupBecame { to, .. } => format!("group {}", to.name()),
                Happening::Ended { .. } => "ended".to_owned(),
                Happening::GroupEnded { .. } => "group ended".to_owned(),
                Happening::Priority { to, .. } => format!("priority {to}"),
                Happening::LowerPriority { .. } => "lower".to_owned(),
                Happening::Mismatch { refusal, .. } => format!("mismatch {}", refusal.name()),
                Happening::Agreement { .. } => "agreement".to_owned(),
                Happening::Conflict { .. } => "conflict".to_owned(),
                Happening::Restored { .. } => "restored".to_owned(),
                Happening::Overslept { .. } => "overslept".to_owned(),
                Happening::Foreign { .. } => "foreign".to_owned(),
                Happening::PeerLost { .. } => "lost".to_owned(),
                Happening::PeerFound { .. } => "found".to_owned(),
                Happening::PeerLeft { .. } => "left".to_owned(),
                Happening::PeerRefused { .. } => "refused".to_owned(),
                Happening::HandOver { .. } => "hand-over".to_owned(),
                Happening::Failed { .. } => "failed".to_owned(),
            },
        };
        words.push(word);
    }
    words.dedup();
    words.join(", ")
}

#[test]
fn from_the_start_to_active_and_to_the_end() {
    let mut bench = Bench::bare(routers([a_router("r")]));
    assert_eq!(bench.status(0).reason, "this node is not ready to serve yet");
    assert_eq!(said(&bench.input(Input::Link(eth0(1)))), "open");
    assert_eq!(said(&bench.input(Input::Ready(true))), "backup");
    assert_eq!(bench.node.deadline(), Some(bench.start + Duration::from_micros(2_609_375)), "a probe");
    assert_eq!(said(&bench.run_until(3_609)), "frame");
    assert_eq!(said(&bench.run_until(3_610)), "send 100, install 1, frame, active");
    assert_eq!(bench.status(0).reason, "no advert was heard for 3.609375s");
    let rest = bench.run_until(6_610);
    assert_eq!(said(&rest), "frame, send 100, frame, send 100");
    let frames = rest.iter().filter(|action| matches!(action, Action::Frame { .. })).count();
    assert_eq!(frames, 5, "four announcements and a probe");
    assert_eq!(said(&bench.input(Input::Stop)), "send 0, install 0, close, ended, stopped");
    assert_eq!(bench.node.deadline(), None);
}

#[test]
fn what_a_killed_daemon_left_is_taken_away() {
    let start = an_instant();
    let mut node = Node::new(start, 1);
    node.handle(start, Input::Configure(routers([a_router("a"), Config { vrid: 52, ..a_router("b") }])));
    assert_eq!(said(&node.take_actions()), "install 0");
}

#[test]
fn every_advert_comes_before_anything_that_takes_time() {
    let many = (1..=250).map(|vrid| Config { vrid, ..a_router(&format!("r{vrid}")) });
    let mut bench = Bench::new(routers(many));
    let actions = bench.run_until(3_700);
    let place = |is: fn(&Action) -> bool| actions.iter().rposition(is);
    let first_install = actions.iter().position(|action| matches!(action, Action::Install { .. }));
    let last_advert = place(|action| matches!(action, Action::Send { .. }));
    assert!(last_advert < first_install, "{last_advert:?} {first_install:?}");
    let adverts = actions.iter().filter(|action| matches!(action, Action::Send { .. })).count();
    assert_eq!(adverts, 250);
}

#[test]
fn what_keeps_a_router_from_taking_part_is_said() {
    let down = Link { is_up: false, ..eth0(1) };
    let bare = Link { addresses: Vec::new(), ..eth0(1) };
    let only_the_vip = Link { addresses: vec![(Ipv4Addr::new(10, 0, 0, 100).into(), 24)], ..eth0(1) };
    for (name, link, verdict, state, reason) in [
        ("no interface", None, Verdict::Up, "fault", "interface eth0 does not exist yet"),
        ("no carrier", Some(down), Verdict::Up, "fault", "interface eth0 is down"),
        ("no address", Some(bare), Verdict::Up, "fault", "interface eth0 has no IPv4 address yet"),
        ("no own one", Some(only_the_vip), Verdict::Up, "fault", "interface eth0 has no IPv4 address yet"),
        ("fails", Some(eth0(1)), Verdict::Down, "fault", "script x fails"),
        ("unknown", Some(eth0(1)), Verdict::Unknown, "initialize", "script x has no result yet"),
        ("all is well", Some(eth0(1)), Verdict::Up, "backup", "nothing keeps it from taking part"),
    ] {
        let mut bench = Bench::bare(routers([tracking(FAULT)]));
        bench.script(verdict);
        if let Some(link) = link {
            bench.input(Input::Link(link));
        }
        bench.input(Input::Ready(true));
        assert_eq!((bench.state().as_str(), bench.status(0).reason.as_str()), (state, reason), "{name}");
    }
}

#[test]
fn the_start_can_be_delayed() {
    let mut bench = Bench::new(routers([Config { start_delay: ms(20_000), ..a_router("r") }]));
    assert_eq!(bench.status(0).reason, "its start is delayed by 20s (start_delay)");
    assert_eq!(said(&bench.run_until(19_999)), "");
    assert_eq!(said(&bench.run_until(20_000)), "backup");
}

#[test]
fn a_link_that_bounces_keeps_the_addresses_and_costs_no_election() {
    let mut bench = Bench::active(routers([a_router("r")]));
    assert_eq!(said(&bench.link(false)), "fault");
    bench.now += ms(200);
    assert_eq!(said(&bench.link(true)), "send 100, install 1, frame, active");

    let mut bench = Bench::active(routers([a_router("r")]));
    bench.link(false);
    assert_eq!(said(&bench.run_until(14_000)), "install 0", "others are Active by now");
    assert_eq!(said(&bench.link(true)), "backup");
}

#[test]
fn its_own_interface_costs_no_election_though_it_is_tracked() {
    let what = Tracked::Interface("eth0".to_owned());
    let track = vec![Track { what, effect: FAULT }];
    let mut bench = Bench::active(routers([Config { track, ..a_router("r") }]));
    assert_eq!(said(&bench.link(false)), "fault");
    assert_eq!(bench.status(0).tracked[0].state, "down");
    assert_eq!(bench.status(0).reason, "interface eth0 is down");
    bench.now += ms(200);
    assert_eq!(said(&bench.link(true)), "send 100, install 1, frame, active");
}

#[test]
fn what_belongs_on_a_device_that_comes_later_is_installed_then() {
    let address = Address { dev: Some("eth1".to_owned()), ..a_router("r").addresses[0].clone() };
    let mut bench = Bench::active(routers([Config { addresses: vec![address], ..a_router("r") }]));
    let eth1 = Link { name: "eth1".to_owned(), index: 3, ..eth0(9) };
    assert_eq!(said(&bench.input(Input::Link(eth1.clone()))), "install 1, frame");
    assert_eq!(said(&bench.input(Input::Link(Link { is_up: false, ..eth1 }))), "", "it was there");
}

#[test]
fn the_device_of_a_virtual_mac_that_comes_again_is_heard_again() {
    let virtual_mac = Some(VirtualMac { name: None, transmit_base: false });
    let mut bench = Bench::bare(routers([Config { virtual_mac, ..a_router("r") }]));
    bench.input(Input::Ready(true));
    bench.input(Input::Link(eth0(1)));
    let device = Link { name: "vrrp.51".to_owned(), index: 3, ..eth0(9) };
    assert_eq!(said(&bench.input(Input::Link(device.clone()))), "open, backup");
    bench.input(Input::Deaf { router: RouterId(0), why: "there is no device yet".to_owned() });
    assert_eq!(said(&bench.input(Input::LinkGone { name: "vrrp.51".to_owned() })), "close");
    bench.now += ms(5_000);
    bench.input(Input::Pass);
    assert!(bench.node.deadline().is_none_or(|at| at > bench.now), "else it would turn without end");
    assert_eq!(said(&bench.input(Input::Link(Link { index: 4, ..device }))), "open, backup");
}

#[test]
fn an_interface_that_leaves_and_comes_back() {
    let mut bench = Bench::active(routers([a_router("r")]));
    assert_eq!(said(&bench.input(Input::LinkGone { name: "eth0".to_owned() })), "close, fault");
    bench.run_until(20_000);
    let back = Link { index: 7, ..eth0(1) };
    assert_eq!(said(&bench.input(Input::Link(back))), "open, backup");
}

#[test]
fn one_that_cannot_hear_does_not_win() {
    let mut bench = Bench::new(routers([a_router("r")]));
    let deafen = |bench: &mut Bench| {
        let why = "no file descriptor is left".to_owned();
        said(&bench.input(Input::Deaf { router: RouterId(0), why }))
    };
    assert_eq!(deafen(&mut bench), "fault");
    for second in 1..=10 {
        assert_eq!(said(&bench.run_until(second * 1_000)), "open", "after {second} s");
        assert_eq!(deafen(&mut bench), "");
    }
    assert_eq!(said(&bench.run_until(11_000)), "open");
    assert_eq!(said(&bench.run_until(12_000)), "backup", "nothing was said against it");
}

#[test]
fn a_script_that_fails_hands_over_to_the_rival_that_was_heard() {
    let weight = Effect::Weight { weight: -80, reverse: false };
    let mut bench = Bench::new(routers([tracking(weight)]));
    bench.script(Verdict::Up);
    bench.advert(&a_router("r"), 90);
    bench.run_until(10_000);
    assert_eq!(bench.state(), "active", "it preempted the peer");
    assert_eq!(said(&bench.script(Verdict::Down)), "send 0, install 0, priority 20, backup");
    assert_eq!(bench.status(0).reason, "its priority fell to 20, below 90 of a rival");
    assert_eq!(bench.status(0).priority_effective, 20);
    // The rival is dead: this node is Active again, and does not hand over to it again.
    bench.run_until(20_000);
    bench.script(Verdict::Up);
    assert_eq!(said(&bench.script(Verdict::Down)), "priority 20");
}

#[test]
fn a_tracker_that_fails_is_a_fault_at_once() {
    let mut bench = Bench::new(routers([tracking(FAULT)]));
    bench.script(Verdict::Up);
    bench.run_until(10_000);
    assert_eq!(said(&bench.script(Verdict::Down)), "send 0, install 0, fault");
    assert_eq!(said(&bench.script(Verdict::Up)), "backup");
    bench.run_until(20_000);
    assert_eq!(said(&bench.script(Verdict::Unknown)), "", "what is not known stops nobody who runs");
}

#[test]
fn an_interface_can_be_tracked() {
    let what = Tracked::Interface("eth1".to_owned());
    let track = vec![Track { what, effect: Effect::Weight { weight: -30, reverse: false } }];
    let mut bench = Bench::active(routers([Config { track, ..a_router("r") }]));
    assert_eq!(bench.status(0).priority_effective, 70);
    let eth1 = Link { name: "eth1".to_owned(), index: 3, ..eth0(9) };
    assert_eq!(said(&bench.input(Input::Link(eth1))), "priority 100");
    assert_eq!(bench.status(0).tracked[0].state, "up");
}

#[test]
fn what_somebody_removed_is_there_again() {
    let mut bench = Bench::active(routers([a_router("r")]));
    let router = RouterId(0);
    assert_eq!(said(&bench.input(Input::Removed { router })), "install 1, frame, restored");
    assert_eq!(bench.state(), "active");
    let mut bench = Bench::new(routers([a_router("r")]));
    assert_eq!(said(&bench.input(Input::Removed { router })), "", "in Backup it is not ours");
}

#[test]
fn somebody_else_answers_for_the_address() {
    let mut bench = Bench::active(routers([a_router("r")]));
    let claim = |bench: &mut Bench, mac| {
        let address = Ipv4Addr::new(10, 0, 0, 100).into();
        said(&bench.input(Input::Claim { interface: 2, address, mac }))
    };
    assert_eq!(claim(&mut bench, [2, 0, 0, 0, 0, 1]), "", "our own");
    assert_eq!(claim(&mut bench, [2, 0, 0, 0, 0, 9]), "frame, conflict");
    assert_eq!(claim(&mut bench, [2, 0, 0, 0, 0, 9]), "", "not again at once");
    bench.now += ms(1_001);
    assert_eq!(claim(&mut bench, [2, 0, 0, 0, 0, 9]), "send 100, frame");
}

#[test]
fn a_holder_that_sends_no_adverts_is_found_before_the_take_over() {
    let mut bench = Bench::new(routers([a_router("r")]));
    assert_eq!(said(&bench.run_until(3_000)), "frame", "the probe");
    let address = Ipv4Addr::new(10, 0, 0, 100).into();
    bench.input(Input::Claim { interface: 2, address, mac: [2, 0, 0, 0, 0, 9] });
    assert_eq!(said(&bench.run_until(3_610)), "send 100, install 1, frame, conflict, active");
}

#[test]
fn a_rival_that_does_not_agree_is_told_once_and_when_it_is_over() {
    let ours = Config { version: Version::V2, auth: Auth::Pass(*b"1111\0\0\0\0"), ..a_router("r") };
    let theirs = Config { auth: Auth::Pass(*b"2222\0\0\0\0"), ..ours.clone() };
    let mut bench = Bench::new(routers([ours.clone()]));
    assert_eq!(said(&bench.advert(&theirs, 150)), "mismatch password");
    assert_eq!(said(&bench.advert(&theirs, 150)), "");
    let slow = Config { interval: ms(2_000), ..ours.clone() };
    assert_eq!(said(&bench.advert(&slow, 150)), "mismatch interval", "what differs is another");
    let status = bench.status(0);
    assert_eq!(status.senders[0].refused.as_deref(), Some("interval"));
    assert_eq!(
        status.counters.refused,
        BTreeMap::from([("interval".to_owned(), 1), ("password".to_owned(), 2)])
    );
    assert_eq!(
        said(&bench.run_until(3_610)),
        "frame, send 100, install 1, frame, active",
        "as the RFCs have it"
    );
    assert_eq!(said(&bench.advert(&ours, 150)), "install 0, agreement, backup");
}

#[test]
fn mastership_can_be_refused_while_adverts_are_refused() {
    let ours = Config { version: Version::V2, refuse_on_mismatch: true, ..a_router("r") };
    let theirs = Config { auth: Auth::Pass(*b"2222\0\0\0\0"), ..ours.clone() };
    let mut bench = Bench::new(routers([ours]));
    for second in 1..=10 {
        bench.run_until(second * 1_000);
        bench.advert(&theirs, 50);
        assert_eq!(bench.state(), "backup", "after {second} s");
    }
    bench.run_until(20_000);
    assert_eq!(bench.state(), "active", "the other is gone");
}

#[test]
fn addresses_that_differ_are_told_and_make_no_two_active() {
    let theirs = Config { addresses: vec![an_address(Ipv4Addr::new(10, 0, 0, 101).into())], ..a_router("r") };
    let mut bench = Bench::new(routers([a_router("r")]));
    assert_eq!(said(&bench.advert(&theirs, 150)), "mismatch addresses");
    for second in 1..=100 {
        bench.run_until(second * 1_000);
        assert_eq!(said(&bench.advert(&theirs, 150)), "");
    }
    assert_eq!(bench.state(), "backup");
    assert_eq!(bench.status(0).counters.refused["addresses"], 101);
    bench.now += ms(3_000);
    assert_eq!(said(&bench.advert(&a_router("r"), 150)), "frame, agreement", "and a probe after the silence");
}

#[test]
fn forged_senders_fill_no_table_and_no_log() {
    let mut bench = Bench::active(routers([a_router("r")]));
    let mut told = 0;
    for n in 0..10_000_u32 {
        let seen = Seen {
            interface: 2,
            source: Ipv4Addr::from(0x0a00_0100 + n).into(),
            destination: Ipv4Addr::new(224, 0, 0, 18).into(),
            ttl: 255,
        };
        let actions =
            bench.input(Input::Packet { seen, bytes: &[0x31, 51, 200, 2, 0, 100, 0, 0, 1, 2, 3, 4] });
        told += actions.iter().filter(|action| matches!(action, Action::Happened(_))).count();
    }
    assert!(told <= 8, "{told}");
    assert_eq!(bench.status(0).senders.len(), 16);
    assert_eq!(bench.state(), "active");
}

#[test]
fn what_concerns_no_router_is_counted_for_the_node() {
    let mut bench = Bench::new(routers([a_router("r")]));
    let stranger = Config { vrid: 99, ..a_router("other") };
    assert_eq!(said(&bench.advert(&stranger, 100)), "foreign");
    assert_eq!(said(&bench.advert(&stranger, 100)), "", "told once");
    let mut carp = [0_u8; 36];
    carp[..8].copy_from_slice(&[0x21, 51, 0, 7, 0, 1, 0, 0]);
    let destination = Ipv4Addr::new(224, 0, 0, 18).into();
    let seen = Seen { interface: 2, source: PEER, destination, ttl: 255 };
    assert_eq!(said(&bench.input(Input::Packet { seen, bytes: &carp })), "foreign");
    let refused = bench.node.status(bench.now).refused;
    assert_eq!(refused, BTreeMap::from([("carp".to_owned(), 1), ("vrid".to_owned(), 2)]));
}

#[test]
fn a_thread_that_slept_steps_down_and_does_not_fight() {
    let mut bench = Bench::active(routers([a_router("r")]));
    bench.now += ms(5_000);
    assert_eq!(said(&bench.advert(&a_router("r"), 50)), "install 0, overslept, backup");
}

#[test]
fn an_operator_moves_a_router_away() {
    let mut bench = Bench::new(routers([a_router("r")]));
    let fail_over =
        |bench: &mut Bench, router: &str| said(&bench.input(Input::FailOver { router: router.to_owned() }));
    assert_eq!(fail_over(&mut bench, "r"), "hand-over", "it is not Active");
    assert_eq!(fail_over(&mut bench, "x"), "hand-over", "it is not there");
    bench.run_until(10_000);
    assert_eq!(fail_over(&mut bench, "r"), "send 0, install 0, backup, hand-over");
    for second in 11..60 {
        bench.run_until(second * 1_000);
        bench.advert(&a_router("r"), 50);
    }
    assert_eq!(bench.state(), "backup", "it does not preempt");
    bench.run_until(70_000);
    assert_eq!(bench.state(), "active", "the other is gone");
}

fn grouped() -> Settings {
    let member = |name: &str, vrid| Config { vrid, ..a_router(name) };
    let group = ConfigGroup {
        name: "g".to_owned(),
        members: vec!["a".to_owned(), "b".to_owned()],
        track: vec![Track { what: script(), effect: FAULT }],
        notify: Hooks::default(),
    };
    settings(Vrrp { routers: vec![member("a", 51), member("b", 52)], groups: vec![group], ..Vrrp::default() })
}

#[test]
fn a_group_moves_together() {
    let mut bench = Bench::new(grouped());
    assert_eq!(said(&bench.script(Verdict::Up)), "backup, group backup");
    let b = Config { vrid: 52, ..a_router("b") };
    for second in 1..=10 {
        bench.run_until(second * 1_000);
        bench.advert(&b, 150);
    }
    assert_eq!((bench.status(0).state, bench.status(1).state), ("backup".to_owned(), "backup".to_owned()));
    let taken = bench.run_until(13_610);
    assert_eq!(said(&taken), "frame, send 100, install 1, frame, active, group active");
    bench.run_until(20_500);
    let yielded = bench.advert(&b, 150);
    assert_eq!(said(&yielded), "send 0, install 0, backup, group backup");
    bench.run_until(40_000);
    assert_eq!(said(&bench.script(Verdict::Down)), "send 0, install 0, fault, group fault");
    assert_eq!(said(&bench.script(Verdict::Up)), "backup, group backup");
}

#[test]
fn a_group_outlives_a_bounce_of_one_link() {
    let mut settings = grouped();
    settings.vrrp.routers[1].interface = "eth1".to_owned();
    let eth1 = |is_up| Link { name: "eth1".to_owned(), index: 3, is_up, ..eth0(1) };
    let mut bench = Bench::new(settings);
    bench.input(Input::Link(eth1(true)));
    bench.script(Verdict::Up);
    bench.run_until(10_000);
    assert_eq!(said(&bench.input(Input::Link(eth1(false)))), "fault, group fault", "and the addresses stay");
    bench.now += ms(200);
    let back = bench.input(Input::Link(eth1(true)));
    assert_eq!(said(&back), "send 100, install 1, frame, active, group active");
}

#[test]
fn the_clock_of_signatures_goes_on_between_two_readings() {
    let mut bench = Bench::new(routers([a_router("r")]));
    let said = Timestamp::from_second(1_800_000_000).unwrap();
    bench.input(Input::Clock(said));
    assert_eq!(bench.node.world.timestamp(bench.now + ms(1_500)).as_millisecond(), 1_800_000_001_500);
}

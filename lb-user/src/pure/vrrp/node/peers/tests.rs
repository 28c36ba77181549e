//! Nodes on a simulated network: adverts and heartbeats may be cut apart, lost and late; every millisecond counts.

mod timing;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use crate::pure::{
    config::{
        model::{
            Cluster, Secret,
            vrrp::{
                Address, AddressCheck, Announce, Auth, Checksum, Effect, Group, Hooks, Preempt, Router,
                Track, Tracked, Version, Vrrp, Wish,
            },
        },
        network::Family,
    },
    testing::an_instant,
    vrrp::{
        advert::Seen,
        happening::Happening,
        node::{Action, Input, Link, Node, RouterId, Settings, Verdict},
    },
};

struct Net {
    now: Instant,
    nodes: Vec<Member>,
    /// (from, to): adverts, heartbeats.
    cut_adverts: Vec<(usize, usize)>,
    cut_beats: Vec<(usize, usize)>,
    /// In 100, and a state for choosing which.
    loss: u64,
    dice: u64,
    under_way: Vec<(Instant, usize, usize, What)>,
    told: Vec<(usize, Happening)>,
    /// Since the last `watch`: milliseconds without a holder, and with several.
    none: Vec<u32>,
    several: Vec<u32>,
    /// Whom a client takes for the holder: who announced an address last. Milliseconds without an answer of it.
    announced: usize,
    unanswered: u32,
}

struct Member {
    node: Option<Node>,
    /// By router: what is in its kernel, which stays there when the daemon is killed.
    holds: Vec<bool>,
    /// Its host is off, or cut off: nobody reaches what it holds.
    is_gone: bool,
    stopped: bool,
}

#[derive(Clone)]
enum What {
    Advert { destination: std::net::IpAddr, bytes: Vec<u8> },
    Beat(Vec<u8>),
}

impl Net {
    /// Routers of these priorities on each node, all in one group where there are several.
    fn new(priorities: &[&[u8]]) -> Net {
        let routers = priorities[0].len();
        let mut net = Net {
            now: an_instant(),
            nodes: Vec::new(),
            cut_adverts: Vec::new(),
            cut_beats: Vec::new(),
            loss: 0,
            dice: 1,
            under_way: Vec::new(),
            told: Vec::new(),
            none: vec![0; routers],
            several: vec![0; routers],
            announced: 0,
            unanswered: 0,
        };
        let member = || Member { node: None, holds: vec![false; routers], is_gone: false, stopped: false };
        net.nodes = priorities.iter().map(|_| member()).collect();
        for index in 0..priorities.len() {
            net.start(index, priorities, index as u64 + 1);
        }
        net
    }

    fn start(&mut self, index: usize, priorities: &[&[u8]], seed: u64) {
        let now = self.now;
        let mut node = Node::new(now, seed);
        node.handle(now, Input::Configure(settings(index, priorities)));
        node.handle(now, Input::Link(link(index)));
        node.handle(now, Input::Tracked { what: script(), verdict: Verdict::Up });
        node.handle(now, Input::Tracked { what: weight(), verdict: Verdict::Up });
        node.handle(now, Input::Ready(true));
        self.nodes[index].node = Some(node);
        self.nodes[index].is_gone = false;
        self.collect(index);
    }

    /// The daemon is gone; what it installed stays.
    fn kill(&mut self, index: usize) {
        self.nodes[index].node = None;
    }

    /// The host is off.
    fn crash(&mut self, index: usize) {
        self.kill(index);
        self.nodes[index].is_gone = true;
        self.nodes[index].holds.fill(false);
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.cut_adverts.push((from, to));
        self.cut_beats.push((from, to));
    }

    fn heal(&mut self) {
        self.cut_adverts.clear();
        self.cut_beats.clear();
        self.nodes.iter_mut().for_each(|member| member.is_gone = member.is_gone && member.node.is_none());
    }

    fn input(&mut self, index: usize, input: Input<'_>) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[index].node {
            node.handle(now, input);
        }
        self.collect(index);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(1);
            let now = self.now;
            for index in 0..self.nodes.len() {
                let node = self.nodes[index].node.as_ref();
                if node.and_then(Node::deadline).is_some_and(|at| at <= now) {
                    self.input(index, Input::Pass);
                }
            }
            let arrived = self.under_way.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>();
            for (_, from, to, what) in arrived {
                match what {
                    What::Advert { destination, bytes } => {
                        let seen = Seen { interface: 1, source: address(from).into(), destination, ttl: 255 };
                        self.input(to, Input::Packet { seen, bytes: &bytes });
                    }
                    What::Beat(bytes) => {
                        self.input(to, Input::Peer { source: address(from).into(), bytes: &bytes });
                    }
                }
            }
            self.count();
        }
    }

    fn count(&mut self) {
        for router in 0..self.none.len() {
            match self.holders(router).len() {
                0 => self.none[router] += 1,
                1 => {}
                _ => self.several[router] += 1,
            }
        }
        self.unanswered += u32::from(!self.holders(0).contains(&self.announced));
    }

    fn holders(&self, router: usize) -> Vec<usize> {
        let holds = |index: &usize| self.nodes[*index].holds[router] && !self.nodes[*index].is_gone;
        (0..self.nodes.len()).filter(holds).collect()
    }

    fn collect(&mut self, index: usize) {
        let Some(node) = &mut self.nodes[index].node else { return };
        for action in node.take_actions() {
            match action {
                Action::Send { destination, bytes, .. } => {
                    self.send(index, None, What::Advert { destination, bytes });
                }
                Action::Tell { peer, bytes } | Action::Answer { peer, bytes } => {
                    let to =
                        (0..self.nodes.len()).find(|to| peer == address(*to)).expect("a node of the net");
                    self.send(index, Some(to), What::Beat(bytes));
                }
                Action::Install { router: RouterId(id), estate } => {
                    self.nodes[index].holds[id as usize] = !estate.addresses.is_empty();
                }
                Action::Happened(happening) => self.told.push((index, happening)),
                Action::Stopped => self.nodes[index].stopped = true,
                Action::Frame { bytes, .. } if !self.nodes[index].is_gone && !is_probe(&bytes) => {
                    self.announced = index;
                }
                Action::Open { .. } | Action::Close { .. } | Action::Frame { .. } => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: Option<usize>, what: What) {
        let cut = match what {
            What::Advert { .. } => &self.cut_adverts,
            What::Beat(_) => &self.cut_beats,
        };
        let to: Vec<_> = (0..self.nodes.len())
            .filter(|&other| {
                other != from && to.is_none_or(|to| to == other) && !cut.contains(&(from, other))
            })
            .collect();
        for to in to {
            // A linear congruential generator (Knuth, MMIX): repeatable.
            self.dice =
                self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if (self.dice >> 33) % 100 >= self.loss {
                self.under_way.push((self.now + LATENCY, from, to, what.clone()));
            }
        }
    }

    /// Begins to count anew.
    fn watch(&mut self) {
        self.none.fill(0);
        self.several.fill(0);
        self.unanswered = 0;
        self.told.clear();
    }

    /// In milliseconds: the longest of all routers without a holder, and with several.
    fn seen(&self) -> (u32, u32) {
        let most = |counts: &[u32]| counts.iter().copied().max().unwrap_or(0);
        (most(&self.none), most(&self.several))
    }

    #[track_caller]
    fn only(&self, index: usize) {
        for router in 0..self.none.len() {
            assert_eq!(self.holders(router), [index], "router {router}: {:#?}", self.told);
        }
    }

    fn reason(&self, index: usize) -> String {
        let node = self.nodes[index].node.as_ref().expect("it runs");
        node.status(self.now).routers[0].reason.clone()
    }
}

/// ARP with no sender's address yet.
fn is_probe(frame: &[u8]) -> bool {
    frame.get(28..32) == Some(&[0; 4])
}

fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, index as u8 + 1)
}

fn link(index: usize) -> Link {
    Link {
        name: "eth0".to_owned(),
        index: 1,
        is_up: true,
        mac: [2, 0, 0, 0, 0, index as u8],
        addresses: vec![(address(index).into(), 24)],
    }
}

fn script() -> Tracked {
    Tracked::Script("chk".to_owned())
}

fn weight() -> Tracked {
    Tracked::Script("weight".to_owned())
}

fn settings(index: usize, priorities: &[&[u8]]) -> Settings {
    let routers: Vec<_> =
        priorities[index].iter().enumerate().map(|(i, priority)| router(i, *priority)).collect();
    let names: Vec<_> = routers.iter().map(|router| router.name.clone()).collect();
    let group = Group { name: "G".to_owned(), members: names, track: Vec::new(), notify: Hooks::default() };
    let groups = if routers.len() > 1 { vec![group] } else { Vec::new() };
    let peers = (0..priorities.len()).filter(|other| *other != index).map(|other| address(other).into());
    let cluster = Cluster {
        secret: Secret::Unset,
        peers: peers.collect(),
        port: 1,
        heartbeat: Duration::from_millis(25),
        patience: Duration::from_millis(100),
    };
    Settings { vrrp: Vrrp { routers, groups, ..Vrrp::default() }, cluster, secret: Some(b"hush".to_vec()) }
}

fn router(index: usize, priority: u8) -> Router {
    let virtual_address = Ipv4Addr::new(10, 0, 0, 100 + index as u8);
    Router {
        name: format!("VI_{index}"),
        interface: "eth0".to_owned(),
        vrid: 51 + index as u8,
        family: Family::V4,
        version: Version::V3,
        priority,
        wish: Wish::Backup,
        interval: Duration::from_secs(1),
        down_timer_adverts: 3,
        addresses: vec![Address {
            address: virtual_address.into(),
            prefix: 24,
            dev: None,
            label: None,
            scope: None,
            broadcast: None,
        }],
        excluded: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        preempt: Preempt::After(Duration::ZERO),
        start_delay: Duration::ZERO,
        unicast_peers: Vec::new(),
        source: None,
        multicast: None,
        auth: Auth::None,
        checksum: Checksum::Auto,
        address_check: AddressCheck::Report,
        virtual_mac: None,
        accept: true,
        announce: Announce {
            times: vec![Duration::ZERO],
            delay: Duration::ZERO,
            refresh: Duration::ZERO,
            spacing: Duration::ZERO,
        },
        track: vec![
            Track { what: script(), effect: Effect::Fault { reverse: false } },
            Track { what: weight(), effect: Effect::Weight { weight: -50, reverse: false } },
        ],
        hand_over: true,
        refuse_on_mismatch: false,
        notify: Hooks::default(),
    }
}

/// The first is Active, and all is quiet.
fn settled(priorities: &[&[u8]]) -> Net {
    let mut net = Net::new(priorities);
    net.run(Duration::from_secs(8));
    net.only(0);
    net.watch();
    net
}

const PAIR: &[&[u8]] = &[&[100], &[80]];

#[test]
fn a_host_that_vanishes_is_replaced_before_150_ms() {
    for delay in (0..60).step_by(7) {
        let mut net = settled(PAIR);
        net.run(Duration::from_millis(delay));
        net.watch();
        net.crash(0);
        net.run(Duration::from_millis(500));
        net.only(1);
        assert!(net.seen().0 <= 105, "{:?}", net.seen());
        assert_eq!(net.reason(1), "node 10.0.0.1 is silent");
    }
}

#[test]
fn a_killed_daemon_s_routers_are_active_elsewhere_though_its_host_keeps_the_addresses() {
    let mut net = settled(PAIR);
    net.kill(0);
    net.run(Duration::from_millis(110));
    assert_eq!(net.holders(0), [0, 1]);
    net.start(0, PAIR, 77);
    net.only(1);
}

#[test]
fn a_daemon_that_is_restarted_at_once_loses_nothing_but_its_routers() {
    let mut net = settled(PAIR);
    net.kill(0);
    net.run(Duration::from_millis(20));
    net.start(0, PAIR, 77);
    net.run(Duration::from_millis(50));
    net.only(1);
    assert!(net.seen().0 <= 10, "{:?}", net.seen());
    assert_eq!(net.reason(1), "the daemon of node 10.0.0.1 died");
}

/// Without heartbeats nobody else can have taken over so soon; with them somebody has.
#[test]
fn a_link_that_is_back_after_patience_takes_nothing_from_who_took_over() {
    let mut net = settled(PAIR);
    let down = Link { is_up: false, ..link(0) };
    net.cut(0, 1);
    net.cut(1, 0);
    net.nodes[0].is_gone = true;
    net.input(0, Input::Link(down));
    net.run(Duration::from_millis(500));
    net.only(1);
    net.heal();
    net.nodes[0].is_gone = false;
    net.watch();
    net.input(0, Input::Link(link(0)));
    net.run(Duration::from_secs(1));
    net.only(1);
    net.run(Duration::from_secs(5));
    net.only(0);
    assert_eq!(net.seen().0, 0, "it preempts by a hand-over: {:#?}", net.told);
    assert!(net.seen().1 <= 5, "{:?}", net.seen());
}

/// It is no longer heard, and lives.
#[test]
fn a_node_that_has_another_secret_or_no_peers_from_now_on_is_not_taken_for_dead() {
    let other = |secret: Option<&[u8]>, peers: bool| {
        let mut settings = settings(0, PAIR);
        settings.secret = secret.map(<[u8]>::to_vec);
        settings.cluster.peers.retain(|_| peers);
        settings
    };
    for settings in [other(Some(b"another"), true), other(None, true), other(Some(b"hush"), false)] {
        let mut net = settled(PAIR);
        net.input(0, Input::Configure(settings));
        net.run(Duration::from_secs(2));
        net.only(0);
        assert_eq!(net.seen(), (0, 0), "{:#?}", net.told);
        let lost = net.told.iter().filter(|(_, told)| matches!(told, Happening::PeerLost { .. })).count();
        assert_eq!(lost, 0);
    }
}

#[test]
fn a_stop_loses_nothing_and_is_no_loss() {
    let mut net = settled(PAIR);
    net.input(0, Input::Stop);
    net.run(Duration::from_millis(10));
    assert!(net.nodes[0].stopped);
    net.kill(0);
    net.run(Duration::from_secs(5));
    net.only(1);
    assert_eq!(net.seen().0, 0);
    assert!(net.seen().1 <= 5, "{:?}", net.seen());
    let lost = net.told.iter().filter(|(_, told)| matches!(told, Happening::PeerLost { .. })).count();
    assert_eq!(lost, 0);
    assert_eq!(net.reason(1), "node 10.0.0.1 handed over");
}

#[test]
fn a_stop_without_an_answer_goes_the_rfc_s_way() {
    let mut net = settled(PAIR);
    net.kill(1);
    net.input(0, Input::Stop);
    net.run(Duration::from_millis(60));
    assert!(net.nodes[0].stopped);
    assert!(net.holders(0).is_empty());
}

#[test]
fn who_was_told_to_fail_over_holds_back_until_the_other_one_leaves() {
    let fail_over = |net: &mut Net, index| net.input(index, Input::FailOver { router: "VI_0".to_owned() });
    let mut net = settled(PAIR);
    fail_over(&mut net, 0);
    net.run(Duration::from_secs(20));
    net.only(1);
    assert_eq!(net.seen().0, 0);
    assert!(net.reason(0).contains("holds back"), "{}", net.reason(0));
    let to: Vec<_> = net
        .told
        .iter()
        .filter_map(|(node, told)| match told {
            Happening::HandOver { to, .. } => Some((*node, *to)),
            _ => None,
        })
        .collect();
    assert_eq!(to, [(0, Some(address(1).into()))]);
    fail_over(&mut net, 1);
    net.run(Duration::from_secs(5));
    net.only(0);
    assert_eq!(net.seen().0, 0);
    fail_over(&mut net, 0);
    net.run(Duration::from_secs(5));
    net.crash(1);
    net.run(Duration::from_millis(110));
    net.only(0);
}

#[test]
fn what_is_not_active_cannot_fail_over() {
    let mut net = settled(PAIR);
    for (index, router) in [(1, "VI_0"), (0, "VI_9")] {
        net.input(index, Input::FailOver { router: router.to_owned() });
        assert!(matches!(net.told.pop(), Some((_, Happening::HandOver { to: None, .. }))));
    }
    net.run(Duration::from_secs(5));
    net.only(0);
}

#[test]
fn a_fault_and_its_end_lose_nothing() {
    let mut net = settled(PAIR);
    net.input(0, Input::Tracked { what: script(), verdict: Verdict::Down });
    net.run(Duration::from_millis(20));
    net.only(1);
    net.input(0, Input::Tracked { what: script(), verdict: Verdict::Up });
    net.run(Duration::from_secs(8));
    net.only(0);
    assert_eq!(net.seen().0, 0);
    assert!(net.seen().1 <= 10, "{:?}", net.seen());
    assert!(net.reason(0).contains("preempt"), "{}", net.reason(0));
}

#[test]
fn a_priority_that_falls_hands_over_and_one_that_rises_takes_back() {
    let mut net = settled(PAIR);
    net.input(0, Input::Tracked { what: weight(), verdict: Verdict::Down });
    net.run(Duration::from_millis(20));
    net.only(1);
    net.run(Duration::from_secs(8));
    net.only(1);
    net.input(0, Input::Tracked { what: weight(), verdict: Verdict::Up });
    net.run(Duration::from_secs(8));
    net.only(0);
    assert_eq!(net.seen().0, 0);
    assert!(net.seen().1 <= 10, "{:?}", net.seen());
}

#[test]
fn a_group_moves_as_one() {
    let mut net = settled(&[&[100, 100, 90], &[80, 80, 70]]);
    net.input(0, Input::FailOver { router: "VI_1".to_owned() });
    net.run(Duration::from_millis(20));
    net.only(1);
    net.input(1, Input::Tracked { what: script(), verdict: Verdict::Down });
    net.run(Duration::from_millis(20));
    net.only(0);
    assert_eq!(net.seen().0, 0);
    net.crash(0);
    net.input(1, Input::Tracked { what: script(), verdict: Verdict::Up });
    net.run(Duration::from_millis(200));
    net.only(1);
}

#[test]
fn the_best_of_those_that_live_takes_over_alone() {
    let mut net = settled(&[&[100], &[80], &[90]]);
    net.crash(0);
    net.run(Duration::from_millis(110));
    net.only(2);
    net.run(Duration::from_secs(5));
    net.only(2);
    net.crash(2);
    net.run(Duration::from_millis(110));
    net.only(1);
    assert_eq!(net.seen().1, 0);
}

#[test]
fn who_hears_steps_down_for_who_is_deaf() {
    let mut net = settled(PAIR);
    net.cut(0, 1);
    net.run(Duration::from_millis(450));
    net.only(1);
    net.run(Duration::from_secs(20));
    net.only(1);
    assert!(net.seen().1 <= 300, "{:?}", net.seen());
    net.heal();
    net.run(Duration::from_secs(10));
    net.only(0);
    assert_eq!(net.seen().0, 0);
}

#[test]
fn without_heartbeats_adverts_decide_and_silence_is_not_believed_again() {
    for cut in [&[(0, 1)][..], &[(1, 0)], &[(0, 1), (1, 0)]] {
        let mut net = settled(PAIR);
        for _ in 0..10 {
            net.cut_beats = cut.to_vec();
            net.run(Duration::from_millis(700));
            net.cut_beats.clear();
            net.run(Duration::from_millis(200));
        }
        net.only(0);
        assert_eq!(net.seen().0, 0, "{cut:?}");
        // One wrong guess, and one advert to put it right: at the most every tenth of an interval.
        assert!(net.seen().1 <= 110, "{cut:?}: {:?}", net.seen());
    }
}

#[test]
fn a_port_that_is_cut_and_healed_ends_with_one_holder() {
    let mut net = settled(PAIR);
    net.cut(0, 1);
    net.cut(1, 0);
    net.nodes[0].is_gone = true;
    net.run(Duration::from_millis(110));
    net.only(1);
    net.run(Duration::from_secs(3));
    net.heal();
    net.nodes[0].is_gone = false;
    net.watch();
    net.run(Duration::from_millis(200));
    net.only(0);
    assert!(net.seen().1 <= 110, "one beat, and no waiting for an advert: {:?}", net.seen());
    net.crash(0);
    net.run(Duration::from_millis(110));
    net.only(1);
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Cut(usize, usize),
    CutBeats(usize, usize),
    Heal,
    Kill(usize),
    Start(usize),
    FailOver(usize),
    Script(usize, bool),
    Weight(usize, bool),
    Loss(u64),
}

fn trouble() -> impl Strategy<Value = (u64, Trouble)> {
    let node = || 0..3_usize;
    let what = prop_oneof![
        (node(), node()).prop_map(|(from, to)| Trouble::Cut(from, to)),
        (node(), node()).prop_map(|(from, to)| Trouble::CutBeats(from, to)),
        Just(Trouble::Heal),
        node().prop_map(Trouble::Kill),
        node().prop_map(Trouble::Start),
        node().prop_map(Trouble::FailOver),
        (node(), any::<bool>()).prop_map(|(index, up)| Trouble::Script(index, up)),
        (node(), any::<bool>()).prop_map(|(index, up)| Trouble::Weight(index, up)),
        (0..30_u64).prop_map(Trouble::Loss),
    ];
    (1..1_500_u64, what)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happened: when all is well again, one node holds it, and stays.
    #[test]
    fn all_ends_with_one_holder(troubles in proptest::collection::vec(trouble(), 1..12), dice: u64) {
        let priorities: &[&[u8]] = &[&[100], &[80], &[90]];
        let mut net = Net::new(priorities);
        net.dice = dice;
        let verdict = |up| if up { Verdict::Up } else { Verdict::Down };
        for (seed, (time, trouble)) in troubles.into_iter().enumerate() {
            match trouble {
                Trouble::Cut(from, to) => net.cut(from, to),
                Trouble::CutBeats(from, to) => net.cut_beats.push((from, to)),
                Trouble::Heal => net.heal(),
                Trouble::Kill(index) => net.kill(index),
                Trouble::Start(index) => net.start(index, priorities, 100 + seed as u64),
                Trouble::FailOver(index) => net.input(index, Input::FailOver { router: "VI_0".to_owned() }),
                Trouble::Script(index, up) => {
                    net.input(index, Input::Tracked { what: script(), verdict: verdict(up) });
                }
                Trouble::Weight(index, up) => {
                    net.input(index, Input::Tracked { what: weight(), verdict: verdict(up) });
                }
                Trouble::Loss(loss) => net.loss = loss,
            }
            net.run(Duration::from_millis(time));
        }
        net.heal();
        net.loss = 0;
        for index in 0..3 {
            if net.nodes[index].node.is_none() {
                net.start(index, priorities, 1_000 + index as u64);
            }
            net.input(index, Input::Tracked { what: script(), verdict: Verdict::Up });
            net.input(index, Input::Tracked { what: weight(), verdict: Verdict::Up });
        }
        net.run(Duration::from_secs(12));
        prop_assert_eq!(net.holders(0).len(), 1);
        net.watch();
        net.run(Duration::from_secs(5));
        prop_assert_eq!(net.seen(), (0, 0));
    }
}

const LATENCY: Duration = Duration::from_millis(1);

use std::net::Ipv4Addr;

use super::*;
use crate::pure::{
    config::{
        model::{Secret, vrrp::Version},
        network::Family,
    },
    testing::an_instant,
    vrrp::node::State,
};

/// Nodes that send to each other; what is under way arrives a little later, in order.
struct Net {
    now: Instant,
    nodes: Vec<Pulse>,
    /// Dead ones neither send nor hear.
    dead: Vec<bool>,
    /// (from, to)
    cut: Vec<(usize, usize)>,
    under_way: Vec<(Instant, usize, usize, Vec<u8>)>,
    /// All that was ever sent, for replays.
    sent: Vec<(usize, usize, Vec<u8>)>,
    events: Vec<(usize, Event)>,
}

impl Net {
    fn new(now: Instant, secrets: &[&str]) -> Net {
        let mut net = Net {
            now,
            nodes: Vec::new(),
            dead: vec![false; secrets.len()],
            cut: Vec::new(),
            under_way: Vec::new(),
            sent: Vec::new(),
            events: Vec::new(),
        };
        net.nodes = (0..secrets.len()).map(|i| net.start(i, i as u64 + 1, secrets)).collect();
        net
    }

    fn start(&self, index: usize, seed: u64, secrets: &[&str]) -> Pulse {
        let cluster = Cluster {
            secret: Secret::Unset,
            peers: (0..secrets.len()).filter(|other| *other != index).map(address).collect(),
            port: 1,
            heartbeat: HEARTBEAT,
            patience: PATIENCE,
        };
        let mut pulse = Pulse::new(seed);
        pulse.configure(self.now, &cluster, Some(secrets[index].as_bytes()));
        pulse
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            for index in 0..self.nodes.len() {
                if !self.dead[index] {
                    self.nodes[index].pass(self.now);
                }
                self.collect(index);
            }
            let now = self.now;
            for (_, from, to, bytes) in
                self.under_way.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>()
            {
                if !self.dead[to] {
                    self.nodes[to].receive(now, address(from), &bytes);
                }
                self.collect(to);
            }
            self.now += Duration::from_millis(1);
        }
    }

    fn collect(&mut self, index: usize) {
        for (to, bytes) in self.nodes[index].take_datagrams() {
            let to = (0..self.nodes.len()).find(|i| address(*i) == to).expect("a node of the net");
            if !self.dead[index] && !self.cut.contains(&(index, to)) {
                self.under_way.push((self.now + LATENCY, index, to, bytes.clone()));
                self.sent.push((index, to, bytes));
            }
        }
        let events = self.nodes[index].take_events();
        self.events.extend(events.into_iter().map(|event| (index, event)));
    }

    /// What happened since it was last asked.
    fn told(&mut self) -> Vec<(usize, &'static str)> {
        let name = |event: &Event| match event {
            Event::Found { .. } => "found",
            Event::Lost { how: Loss::Silent, .. } => "lost",
            Event::Lost { how: Loss::Restarted, .. } => "restarted",
            Event::Left { .. } => "left",
            Event::Roster { .. } => "roster",
            Event::Asked { .. } => "asked",
            Event::Refused { .. } => "refused",
        };
        let mut told: Vec<_> = self.events.drain(..).map(|(node, event)| (node, name(&event))).collect();
        told.sort_unstable();
        told
    }
}

fn address(index: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, index as u8 + 1).into()
}

fn entry(vrid: u8, state: State, priority: u8) -> Entry {
    let key = Key { vrid, family: Family::V4, addresses: 7 };
    Entry { key, version: Version::V3, state, priority, is_held: false }
}

fn two() -> Net {
    let mut net = Net::new(an_instant(), &["hush"; 2]);
    net.run(Duration::from_millis(50));
    assert_eq!(net.told(), [(0, "found"), (1, "found")]);
    net
}

#[test]
fn a_silent_peer_is_lost_after_the_patience_and_no_later() {
    let mut net = two();
    net.dead[0] = true;
    net.run(PATIENCE - HEARTBEAT - LATENCY);
    assert_eq!(net.told(), []);
    net.run(HEARTBEAT + LATENCY * 2);
    assert_eq!(net.told(), [(1, "lost")]);
    net.dead[0] = false;
    net.run(Duration::from_millis(50));
    assert!(net.told().contains(&(1, "found")));
}

#[test]
fn lost_beats_alone_lose_nobody() {
    let mut net = two();
    for _ in 0..50 {
        // Two or three beats are lost, and a probe comes through.
        net.cut = vec![(0, 1), (1, 0)];
        net.run(Duration::from_millis(61));
        net.cut.clear();
        net.run(Duration::from_millis(60));
    }
    assert_eq!(net.told(), []);
}

#[test]
fn who_says_goodbye_is_not_lost() {
    let mut net = two();
    net.nodes[0].say_goodbye(|_| true);
    net.collect(0);
    net.dead[0] = true;
    net.run(Duration::from_secs(1));
    assert_eq!(net.told(), [(1, "left")]);
    assert_eq!(net.nodes[1].status(net.now)[0].state, "stopped");
}

#[test]
fn a_daemon_that_is_there_again_at_once_was_dead_nevertheless() {
    let mut net = two();
    let now = net.now;
    net.nodes[0].set_roster(now, vec![entry(51, State::Active, 100)]);
    net.run(Duration::from_millis(10));
    net.told();
    net.nodes[0] = net.start(0, 77, &["hush"; 2]);
    net.run(Duration::from_millis(10));
    let lost = net.events.iter().find_map(|(_, event)| match event {
        Event::Lost { active, how: Loss::Restarted, .. } => Some(active.clone()),
        _ => None,
    });
    assert_eq!(lost, Some(vec![entry(51, State::Active, 100)]));
    assert_eq!(net.told(), [(0, "found"), (1, "found"), (1, "restarted")]);
    assert_eq!(net.nodes[1].holder(entry(51, State::Active, 0).key), None);
}

#[test]
fn what_was_recorded_is_worth_nothing() {
    let mut net = two();
    let recorded = net.sent.clone();
    let replay = |net: &mut Net| {
        for (from, to, bytes) in &recorded {
            net.nodes[*to].receive(net.now, address(*from), bytes);
            // Nor from elsewhere: to itself, or as somebody else's.
            net.nodes[*from].receive(net.now, address(*to), bytes);
        }
    };
    net.dead[0] = true;
    net.run(Duration::from_millis(120));
    assert_eq!(net.told(), [(1, "lost")]);
    replay(&mut net);
    net.run(Duration::from_millis(50));
    assert_eq!(net.told(), [], "to the same daemons");
    net.nodes[1] = net.start(1, 99, &["hush"; 2]);
    replay(&mut net);
    net.run(Duration::from_millis(50));
    assert_eq!(net.told(), [], "to a daemon that started since");
}

#[test]
fn another_secret_is_told_once_and_nothing_believed() {
    let mut net = Net::new(an_instant(), &["hush", "other"]);
    net.run(Duration::from_secs(2));
    assert_eq!(net.told(), [(0, "refused"), (1, "refused")]);
    assert_eq!(net.nodes[0].status(net.now)[0].state, "refused");
}

#[test]
fn rosters_of_any_size_arrive_though_datagrams_are_lost() {
    let mut net = two();
    let many: Vec<_> = (0..700).map(|i| entry((i % 255) as u8, State::Backup, (i / 255) as u8)).collect();
    let now = net.now;
    net.nodes[0].set_roster(now, many.clone());
    net.nodes[0].take_datagrams();
    net.run(Duration::from_millis(60));
    assert_eq!(net.told(), [(1, "roster")]);
    assert_eq!(net.nodes[1].peers[&address(0)].roster, many);
    let sent = net.sent.len();
    net.run(Duration::from_secs(1));
    assert!(net.sent.len() - sent < 90, "beats alone, once it is known: {}", net.sent.len() - sent);
    let now = net.now;
    net.nodes[0].set_roster(now, Vec::new());
    net.run(Duration::from_millis(10));
    assert_eq!(net.nodes[1].peers[&address(0)].roster, []);
}

#[test]
fn who_does_not_hear_says_so() {
    let mut net = two();
    let now = net.now;
    net.nodes[1].set_roster(now, vec![entry(51, State::Active, 90)]);
    net.run(Duration::from_millis(10));
    net.cut = vec![(0, 1)];
    net.run(PATIENCE + HEARTBEAT * 2);
    let key = entry(51, State::Active, 0).key;
    assert_eq!(net.nodes[0].deaf_holder(net.now, key, Duration::ZERO), Some(address(1)));
    assert_eq!(net.nodes[0].deaf_holder(net.now, key, PATIENCE), None);
    net.run(PATIENCE);
    assert_eq!(net.nodes[0].deaf_holder(net.now, key, PATIENCE), Some(address(1)));
    net.cut.clear();
    net.run(HEARTBEAT * 2);
    assert_eq!(net.nodes[0].deaf_holder(net.now, key, Duration::ZERO), None);
}

#[test]
fn the_best_of_those_that_could_succeeds() {
    let mut net = Net::new(an_instant(), &["hush"; 3]);
    net.run(Duration::from_millis(20));
    let key = entry(51, State::Active, 0).key;
    let mut given = |first: Entry, second: Entry| {
        let now = net.now;
        net.nodes[1].set_roster(now, vec![first]);
        net.nodes[2].set_roster(now, vec![second]);
        net.run(Duration::from_millis(10));
        let successor = net.nodes[0].successor(&[key]).map(|(peer, _)| peer);
        (successor, net.nodes[0].is_better_claimed(key, 100))
    };
    let (one, two) = (Some(address(1)), Some(address(2)));
    let backup = |priority| entry(51, State::Backup, priority);
    assert_eq!(given(backup(90), backup(80)), (one, false));
    assert_eq!(given(backup(90), backup(110)), (two, true));
    assert_eq!(given(backup(90), Entry { is_held: true, ..backup(110) }), (two, false));
    assert_eq!(given(backup(90), entry(51, State::Fault, 110)), (one, false));
    assert_eq!(given(entry(51, State::Initialize, 90), entry(50, State::Backup, 110)), (None, false));
    assert_eq!(given(entry(51, State::Active, 90), entry(51, State::Fault, 110)), (None, true));
}

#[test]
fn a_node_that_overslept_reads_before_it_judges() {
    let mut net = two();
    let mut late = net.now + PATIENCE * 2;
    net.nodes[1].pass(late);
    net.collect(1);
    assert_eq!(net.told(), []);
    while net.nodes[1].status(late)[0].state == "alive" {
        late = net.nodes[1].deadline().expect("a living peer");
        net.nodes[1].pass(late);
    }
    assert!(late < net.now + PATIENCE * 3, "silence is found nevertheless");
}

const HEARTBEAT: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_millis(100);
const LATENCY: Duration = Duration::from_millis(1);

//! The promise as a property: the packet path over host tables, beside the daemon's own state and sweep in virtual
//! time. Whatever changes, no packet of a live connection reaches a server other than its own while that was alive all
//! along; and once nothing changes any more and nobody is left elsewhere, no slot has lookup.
//!
//! ```text
//! Change ─► State ─ Steps ─► HostTables ◄─ packets of connections and floods
//!             ▲                  │
//!             └──── Round ── Sweep
//! ```

use std::{fmt::Write as _, net::SocketAddr};

use lb_common::{
    flow::Ticks,
    net::{TCP, UDP},
    slot::ServerId,
};
use lb_ebpf::{Action, forward};
use lb_user::{
    io::kernel::Sweep,
    pure::{
        config,
        hop::{NextHop, Reach, Tags},
        plan::Tables,
        report::{Outcome, Report},
        state::{Event, Start, State},
    },
};
use proptest::{collection::vec, prelude::*};

use super::{
    host::{HostPacket, HostTables},
    packet::Datagram,
    shape::{ack, syn, udp},
    world::{BACK, BACK_MAC, FRONT, RING_SLOTS, v4},
};

/// What service the changes happen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    forward: &'static str,
    protocol: u8,
    keys: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind { forward: "dsr", protocol: TCP, keys: "" },
    Kind { forward: "ipip", protocol: TCP, keys: "" },
    Kind { forward: "dsr", protocol: UDP, keys: "" },
    Kind { forward: "gateway", protocol: TCP, keys: "" },
    Kind { forward: "dsr", protocol: TCP, keys: "persistence = \"30s\"\n" },
];

#[derive(Debug, Clone)]
enum Change {
    /// In the configuration with this weight, or not.
    Set(usize, Option<u16>),
    /// The result of the next check.
    Checked(usize, bool),
    Balance(bool),
    Restart,
    Open(u8),
    Wake(usize),
    Close(usize),
    /// So many packets of strangers; true: SYNs.
    Flood(u8, bool),
    /// Sixteenths of T.
    Pass(u8),
    /// A pass of the sweep: what happens next happens within its round.
    Sweep,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..PEERS, prop_oneof![1 => Just(None), 1 => Just(Some(0)), 3 => (1..5u16).prop_map(Some)])
            .prop_map(|(peer, weight)| Change::Set(peer, weight)),
        2 => (0..PEERS, any::<bool>()).prop_map(|(peer, passed)| Change::Checked(peer, passed)),
        1 => any::<bool>().prop_map(Change::Balance),
        1 => Just(Change::Restart),
        6 => (0..6u8).prop_map(Change::Open),
        3 => any::<usize>().prop_map(Change::Wake),
        1 => any::<usize>().prop_map(Change::Close),
        2 => (1..80u8, any::<bool>()).prop_map(|(count, syns)| Change::Flood(count, syns)),
        5 => (1..20u8).prop_map(Change::Pass),
        1 => Just(Change::Sweep),
    ]
}

struct Connection {
    client: SocketAddr,
    peer: usize,
    seen: Ticks,
}

struct Bed {
    kind: Kind,
    in_turn: bool,
    /// Weights of those that are configured.
    peers: [Option<u16>; PEERS],
    /// What a new daemon finds.
    pinned: Tables,
    tables: HostTables,
    state: State,
    sweep: Sweep,
    now: Ticks,
    connections: Vec<Connection>,
    strangers: u32,
    clients: u16,
    /// What went wrong first.
    broken: Option<String>,
}

impl Bed {
    fn new(kind: Kind) -> Bed {
        let now = Ticks(100_000);
        let peers = [Some(1), Some(1), Some(2), None, None];
        let state = state(&config(kind, false, &peers), Tables::default());
        let mut bed = Bed {
            kind,
            in_turn: false,
            peers,
            pinned: Tables::default(),
            tables: HostTables::new(now, CAPACITY, RING_SLOTS),
            state,
            sweep: Sweep::default(),
            now,
            connections: Vec::new(),
            strangers: 0,
            clients: 0,
            broken: None,
        };
        bed.arrive();
        bed.plan();
        bed
    }

    /// What the daemon learns as it starts.
    fn arrive(&mut self) {
        self.state.advance(self.now, |id| self.tables.refusals().get(&id).copied());
        self.state.attach(BACK);
        for peer in 0..PEERS {
            let hop = NextHop {
                interface: BACK,
                interface_mac: BACK_MAC,
                source: v4([10, 0, 0, 254], 0).ip(),
                via: address(peer).ip(),
                neighbour: Some([2, 0, 0, 0, 9, peer as u8]),
                mtu: 1_500,
                tags: Tags::NONE,
            };
            self.state.handle(Event::Reached { address: hop.via, reach: Reach::Hop(hop) });
        }
    }

    fn plan(&mut self) {
        for step in self.state.plan() {
            self.tables.apply(&step);
            self.pinned.apply(step);
        }
        assert_eq!(self.pinned.dangling(), None);
    }

    fn apply(&mut self, change: &Change) {
        match *change {
            Change::Set(peer, weight) => {
                let others =
                    self.peers.iter().enumerate().any(|(other, weight)| other != peer && weight.is_some());
                if weight.is_some() || others {
                    self.peers[peer] = weight;
                    self.reload();
                }
            }
            Change::Balance(in_turn) if self.kind.keys.is_empty() => {
                self.in_turn = in_turn;
                self.reload();
            }
            Change::Balance(_) => {}
            Change::Checked(peer, passed) => self.checked(peer, passed),
            Change::Restart => {
                self.state = state(&config(self.kind, self.in_turn, &self.peers), self.pinned.clone());
                self.sweep = Sweep::default();
                self.arrive();
            }
            Change::Open(client) => self.open(client),
            Change::Wake(which) => {
                if let Some(which) = which.checked_rem(self.connections.len()) {
                    self.wake(which);
                }
            }
            Change::Close(which) => {
                if let Some(which) = which.checked_rem(self.connections.len()) {
                    self.connections.swap_remove(which);
                }
            }
            Change::Flood(count, syns) => self.flood(count, syns),
            Change::Pass(sixteenths) => (0..sixteenths).for_each(|_| self.pass()),
            Change::Sweep => self.sweep(),
        }
        self.plan();
    }

    fn reload(&mut self) {
        let text = config(self.kind, self.in_turn, &self.peers);
        let config = config::parse("test.toml", &text).expect("valid").config;
        self.state.reconfigure(config, b"x").expect("room for all");
    }

    fn checked(&mut self, peer: usize, passed: bool) {
        let Some(server) = self.server(peer) else { return };
        let outcome = if passed { Outcome::Passed } else { Outcome::Failed("refused".into()) };
        let report = Report { outcome, steps: Vec::new(), answer: None, warning: None };
        self.state.handle(Event::Checked { server, report });
        if !passed {
            self.connections.retain(|connection| connection.peer != peer);
        }
    }

    /// Configured, or on its way out.
    fn server(&self, peer: usize) -> Option<ServerId> {
        let tasks = self.state.checks();
        tasks.iter().find(|task| task.target.ip() == address(peer).ip()).map(|task| task.server)
    }

    /// A sixteenth of T. Whoever was silent for nearly T speaks; then the sweep goes round.
    fn pass(&mut self) {
        self.now.0 += T / 16;
        self.tables.set_now(self.now);
        for which in 0..self.connections.len() {
            if self.now.since(self.connections[which].seen) + T / 16 >= T - 1 {
                self.wake(which);
            }
        }
        self.sweep();
        self.sweep();
        self.plan();
    }

    fn sweep(&mut self) {
        let Some(round) = self.sweep.pass(&self.tables, self.now, &self.state) else { return };
        let refused = self.tables.refusals();
        self.state.advance(self.now, |id| refused.get(&id).copied());
        let swept = Event::Swept { records: round.records, named: round.named, survey: round.survey };
        self.state.handle(swept);
    }

    fn open(&mut self, client: u8) {
        self.clients += 1;
        let client = v4([192, 0, 2, client + 1], 20_000 + self.clients % 30_000);
        let Some(peer) = self.send(&self.first(client)) else { return };
        self.connections.push(Connection { client, peer, seen: self.now });
        // The client's answer, or its second datagram.
        self.wake(self.connections.len() - 1);
    }

    fn wake(&mut self, which: usize) {
        let Connection { client, peer, .. } = self.connections[which];
        self.connections[which].seen = self.now;
        // Refused for want of room: the client sends it again.
        let Some(reached) = self.send(&self.later(client)) else { return };
        if reached != peer && self.broken.is_none() {
            self.broken = Some(format!("{client} of {peer} reached {reached}: {:?}", self.tables.records()));
        }
    }

    fn flood(&mut self, count: u8, syns: bool) {
        for _ in 0..count {
            self.strangers += 1;
            let [_, a, b, c] = self.strangers.to_be_bytes();
            let source = v4([198, a, b, c], 7_777);
            self.send(&if syns { self.first(source) } else { self.later(source) });
        }
    }

    fn first(&self, source: SocketAddr) -> Datagram {
        Datagram { source, ..if self.kind.protocol == TCP { syn() } else { udp(b"query") } }
    }

    fn later(&self, source: SocketAddr) -> Datagram {
        Datagram { source, ..if self.kind.protocol == TCP { ack() } else { udp(b"query") } }
    }

    /// Who gets it.
    fn send(&self, datagram: &Datagram) -> Option<usize> {
        let mut packet = HostPacket::new(&datagram.bytes(), FRONT, 0xa5);
        let outcome = forward(&mut packet, &self.tables);
        (outcome.action() == Action::Redirect(BACK)).then(|| packet.bytes()[5].into())
    }

    fn unsettled(&self) -> u32 {
        self.state.snapshot().services[0].rings.iter().map(|ring| ring.unsettled).sum()
    }
}

fn state(text: &str, pinned: Tables) -> State {
    let config = config::parse("test.toml", text).expect("valid").config;
    State::new(Start {
        config,
        secret: b"x",
        pinned,
        ring_slots: RING_SLOTS,
        flows_max: 262_144,
        now: std::time::Instant::now(),
    })
    .expect("room for all")
}

fn config(kind: Kind, in_turn: bool, peers: &[Option<u16>; PEERS]) -> String {
    let Kind { forward, protocol, keys } = kind;
    let (port, protocol) = if protocol == TCP { (80, "tcp") } else { (53, "udp") };
    let balance = if in_turn { "roundrobin" } else { "maglev" };
    let mut text = format!(
        "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"x\"\n[[service]]\nname = \"web\"\n\
         address = \"203.0.113.80\"\nport = {port}\nprotocol = \"{protocol}\"\nforward = \"{forward}\"\n\
         balance = \"{balance}\"\nslots = 256\nidle_timeout = \"30s\"\n{keys}\
         check = {{ type = \"tcp\", port = 1, rise = 1, fall = 1 }}\n"
    );
    for (peer, weight) in peers.iter().enumerate() {
        if let Some(weight) = weight {
            let address = address(peer).ip();
            let _ = write!(
                text,
                "[[service.server]]\nname = \"s{peer}\"\naddress = \"{address}\"\nweight = {weight}\n"
            );
        }
    }
    text
}

fn address(peer: usize) -> SocketAddr {
    v4([10, 0, 0, peer as u8 + 1], 0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_change_moves_a_connection_whose_server_lives(
        kind in 0..KINDS.len(),
        changes in vec(change(), 1..80),
    ) {
        let mut bed = Bed::new(KINDS[kind]);
        for (at, change) in changes.iter().enumerate() {
            bed.apply(change);
            let broken = bed.broken.take();
            prop_assert!(broken.is_none(), "{:?}, change {}: {:?}: {:?}", bed.kind, at, change, broken);
        }
        // Every change is over, and every flood.
        (0..16 * 4).for_each(|_| bed.pass());
        let broken = bed.broken.take();
        prop_assert!(broken.is_none(), "{:?}, afterwards: {:?}", bed.kind, broken);
        bed.connections.clear();
        (0..16 * 3).for_each(|_| bed.pass());
        prop_assert_eq!(bed.unsettled(), 0);
    }
}

/// New datagrams leave a draining server after T, and its records are void T later.
#[test]
fn a_udp_drain_ends_within_twice_the_idle_time() {
    let mut bed = Bed::new(KINDS[2]);
    bed.apply(&Change::Set(2, Some(0)));
    let drained = bed.server(2).expect("configured");
    let passes = T.div_ceil(T / 16);
    let mut reached = 0;
    for passed in 1..=2 * passes {
        bed.pass();
        (0..5).for_each(|n| bed.open(n));
        let to_drained = bed.connections.iter().filter(|connection| connection.peer == 2).count();
        assert!(to_drained == 0 || passed < passes, "new flows after {passed} sixteenths of T");
        reached += to_drained;
        // Nobody says more than a query and its repetition.
        bed.connections.clear();
    }
    assert!(reached > 0, "nobody tells a new datagram from one of an old flow");
    assert!(bed.tables.records().values().all(|record| record.server != drained));
    assert_eq!(bed.broken, None);
}

/// While connections stay, they stay; when the last of another server's ends, its slot forgets.
#[test]
fn slots_settle_as_their_connections_end() {
    for kind in KINDS {
        let mut bed = Bed::new(kind);
        (0..60).for_each(|n| bed.open(n % 6));
        bed.apply(&Change::Set(3, Some(4)));
        assert!(bed.unsettled() > 0, "{kind:?}");
        (0..16 * 3).for_each(|_| bed.pass());
        assert_eq!(bed.broken, None, "{kind:?}");
        if kind.forward != "gateway" && kind.keys.is_empty() {
            let held = bed.unsettled();
            assert!((1..60).contains(&held), "{kind:?}: {held}");
        }
        bed.connections.clear();
        (0..16 + 2).for_each(|_| bed.pass());
        assert_eq!(bed.unsettled(), 0, "{kind:?}");
        if kind.forward != "gateway" {
            assert!(bed.tables.records().is_empty(), "{kind:?}: {:?}", bed.tables.records());
        }
    }
}

/// A connection that spoke once in T is known by a record that nobody confirmed: a flood must not take it once the base
/// has followed.
#[test]
fn a_flood_after_the_base_followed_takes_no_connection() {
    let mut bed = Bed::new(KINDS[0]);
    (0..60).for_each(|n| bed.open(n % 6));
    bed.apply(&Change::Set(3, Some(4)));
    (0..T.div_ceil(T / 16) + 1).for_each(|_| bed.pass());
    (0..10).for_each(|_| bed.flood(200, true));
    (0..bed.connections.len()).for_each(|which| bed.wake(which));
    assert_eq!(bed.broken, None);
}

const PEERS: usize = 5;
/// Records of the table: few, so that it fills.
const CAPACITY: u32 = 120;
const T: u32 = Ticks::in_ms(30_000);

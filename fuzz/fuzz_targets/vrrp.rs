//! Any packets at virtual routers: no panic, and what is told is short and no secret.
#![no_main]

use std::{
    net::IpAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use lb_user::pure::{
    config::{model::Config, model::vrrp::Router, parse},
    vrrp::{
        advert::{ChecksumForm, Seen},
        codec::{self, Outgoing},
        flood::Gate,
        frame,
        hmac::{Senders, Sequencer},
        node::{Action, Input, Link, Node, Settings},
        receive::{Expected, receive, stranger},
    },
};

fuzz_target!(|bytes: &[u8]| {
    let mut bench = Bench::new();
    let mut rest = bytes;
    while let Some((&[kind, router, length], after)) = rest.split_first_chunk::<3>() {
        let (packet, after) = after.split_at(after.len().min(length.into()));
        rest = after;
        bench.step(kind, router, packet);
    }
});

struct Bench {
    node: Node,
    now: Instant,
    clock: Timestamp,
    senders: Senders,
    gate: Gate,
    sequencer: Sequencer,
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::now();
        let clock = Timestamp::from_second(0x6800_0000).expect("a moment of 2025");
        let mut node = Node::new(now, 1);
        node.handle(now, Input::Clock(clock));
        let Config { vrrp, cluster, .. } = CONFIG.clone();
        node.handle(now, Input::Configure(Settings { vrrp, cluster, secret: Some(b"fuzz".to_vec()) }));
        node.handle(now, Input::Ready(true));
        let addresses = OURS.map(|address| (address.parse().expect("an address"), 64)).to_vec();
        let link = Link { name: "eth0".to_owned(), index: 2, is_up: true, mac: [2, 0, 0, 0, 0, 1], addresses };
        node.handle(now, Input::Link(link));
        let (senders, gate) = (Senders::default(), Gate::default());
        Bench { node, now, clock, senders, gate, sequencer: Sequencer::default() }
    }

    /// `kind`: how the packet is made of the bytes, and how it comes.
    fn step(&mut self, kind: u8, router: u8, bytes: &[u8]) {
        let router = &CONFIG.vrrp.routers[usize::from(router) % CONFIG.vrrp.routers.len()];
        let seen = seen(router, kind);
        match kind & 7 {
            0 => self.hear(router, &seen, bytes),
            1 => {
                let advert = self.of_peer(router, &seen, bytes);
                self.hear(router, &seen, &advert);
            }
            2 => {
                let advert = bent(self.of_peer(router, &seen, &[]), bytes);
                self.hear(router, &seen, &advert);
            }
            3 => drop(frame::claim(bytes)),
            4 => {
                let address = router.addresses[0].address;
                self.node.handle(self.now, Input::Claim { interface: 2, address, mac: [2, 0, 0, 0, 0, kind] });
            }
            5 => self.node.handle(self.now, Input::Peer { source: seen.source, bytes }),
            _ => {
                self.now += Duration::from_millis(u64::from(kind) * 20);
                self.node.handle(self.now, Input::Pass);
            }
        }
        self.check_actions();
    }

    /// An advert that is right but for what the bytes make of it.
    fn of_peer(&mut self, router: &Router, seen: &Seen, bytes: &[u8]) -> Vec<u8> {
        let mut router = router.clone();
        let (priority, interval, vrid) = match bytes {
            [priority, interval, vrid, ..] => (*priority, *interval, *vrid),
            _ => (100, 0, 0),
        };
        if interval > 0 {
            router.interval = Duration::from_millis(u64::from(interval) * 10);
        }
        router.vrid = router.vrid.wrapping_add(vrid & 3);
        let forms = [ChecksumForm::MessageOnly, ChecksumForm::PseudoHeader, ChecksumForm::GroupPseudoHeader];
        let Seen { source, destination, .. } = *seen;
        let (form, sequence) = (forms[usize::from(priority) % 3], self.sequencer.next(self.clock));
        Outgoing { router: &router, priority, form, source, destination, sequence }.encode()
    }

    fn hear(&mut self, router: &Router, seen: &Seen, bytes: &[u8]) {
        self.gate.admits(self.now, seen.source, bytes);
        if let Ok(parsed) = codec::parse(bytes, seen) {
            assert_eq!(parsed.message.len() + parsed.trailer.len(), bytes.len());
        }
        let (own, clock) = (OURS[0].parse().ok(), self.clock);
        let (active, differs_for) = (None, Duration::ZERO);
        let expected = Expected { router, own, active, differs_for, clock, senders: &mut self.senders };
        if let Err(rejected) = receive(bytes, seen, expected) {
            told(&rejected.detail);
        }
        told(&stranger(bytes, seen).detail);
        self.node.handle(self.now, Input::Packet { seen: *seen, bytes });
    }

    fn check_actions(&mut self) {
        for action in self.node.take_actions() {
            match action {
                Action::Send { bytes, .. } => assert!(bytes.len() >= 12, "{bytes:02x?}"),
                Action::Happened(happening) => told(&happening.to_string()),
                _ => {}
            }
        }
        for router in self.node.status(self.now).routers {
            router.senders.iter().filter_map(|sender| sender.detail.as_deref()).for_each(told);
        }
    }
}

/// What an operator reads stands in one line of bounded length, and is no secret.
fn told(text: &str) {
    assert!(text.len() < 1_024 && !text.contains('\n'), "{text}");
    assert!(!text.contains("passw0rd"), "{text}");
}

/// Some of the bytes are changed.
fn bent(mut message: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for (at, change) in changes.iter().enumerate() {
        let length = message.len();
        message[at % length] ^= change;
    }
    message
}

fn seen(router: &Router, kind: u8) -> Seen {
    let is_v4 = router.addresses[0].address.is_ipv4();
    let (source, own) = if is_v4 { ("10.98.0.9", OURS[0]) } else { ("fe80::9", OURS[1]) };
    let source: IpAddr = source.parse().expect("an address");
    let is_unicast = router.is_unicast() != (kind & 0x80 != 0);
    let destination = if is_unicast { own.parse().expect("an address") } else { router.group_address() };
    let ttl = if kind & 0x40 == 0 { 255 } else { kind };
    Seen { interface: 2, source, destination, ttl }
}

const OURS: [&str; 2] = ["10.98.0.1", "fe80::1"];

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text = r#"
        [cluster]
        secret = "fuzz"
        [[vrrp]]
        name = "password"
        interface = "eth0"
        vrid = 1
        version = 2
        auth_pass = "passw0rd"
        addresses = ["10.98.0.101/24", "10.98.0.102/24"]
        [[vrrp]]
        name = "plain"
        interface = "eth0"
        vrid = 2
        addresses = ["10.98.0.103/24"]
        [[vrrp]]
        name = "signed"
        interface = "eth0"
        vrid = 3
        addresses = ["10.98.0.104/24"]
        auth_hmac = [{ id = 1, key = "0123456789abcdef0123456789abcdef" }]
        [[vrrp]]
        name = "unicast"
        interface = "eth0"
        vrid = 4
        addresses = ["10.98.0.105/24"]
        unicast_peers = ["10.98.0.9"]
        address_check = "refuse"
        [[vrrp]]
        name = "six"
        interface = "eth0"
        vrid = 5
        addresses = ["fd98::105/64"]
    "#;
    match parse("vrrp.toml", text) {
        Ok(parsed) => parsed.config,
        Err(diagnostics) => panic!("{diagnostics:?}"),
    }
});

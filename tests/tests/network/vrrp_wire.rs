//! Crafted adverts at daemons that run: each receive check counts and names what differs, and no state moves but by
//! time and by adverts that are right.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use etherparse::{IpNumber, Ipv4Header};
use jiff::Timestamp;
use lb_tests::bed::{
    Family::{V4, V6},
    Host, Pair, Steelyard,
    pair::INTERFACE,
    poll,
};
use lb_user::pure::{
    config::{
        model::vrrp::{Auth, Router, Version},
        parse,
    },
    status::{RouterStatus, Status},
    vrrp::{
        advert::{ChecksumForm, Refusal},
        codec::{Outgoing, PROTOCOL},
        hmac::Sequencer,
    },
};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

#[test]
fn each_bad_advert_is_counted_named_and_moves_nothing() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    // For adverts from an own address, which the kernel would keep from the daemon.
    pair.nodes[0].namespace.set(&[("ipv4/conf/all/accept_local", "1")])?;
    let mut node = pair.steelyard(0)?;
    node.write_config(&(global(&node) + &every_kind(&pair)?))?;
    node.start()?;
    let status = node.wait("every router active", |status| all(status, "active", 5))?;
    let transitions = transitions(&status);
    let forger = Forger::new(&pair.nodes[1])?;
    for case in cases(&pair)? {
        let name = case.refusal.name();
        for packet in &case.packets {
            forger.send(packet)?;
        }
        let counted = |status: &Status| refused(status, case.router, case.refusal) > 0;
        let status = node.wait(&format!("{name} counted at {:?}", case.router), counted)?;
        if let (Some(router), Some(detail)) = (case.router, case.detail) {
            let source = case.packets[0].source.to_string();
            let senders = &of(&status, router).context("its status")?.senders;
            let sender = senders.iter().find(|sender| sender.address == source).context("its sender")?;
            let told = sender.detail.as_deref().unwrap_or_default();
            ensure!(told.contains(detail), "{name} at {router}: {sender:?}");
            ensure!(sender.refused.as_deref() == Some(name), "{name} at {router}: {sender:?}");
        }
    }
    let after = node.status()?;
    ensure!(all(&after, "active", 5) && self::transitions(&after) == transitions, "{:?}", after.vrrp);
    ensure!(!node.log().contains(PASSWORD), "the password is in the log");
    Ok(())
}

#[test]
fn ipv6_adverts_are_checked_as_well() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let mut node = pair.steelyard(0)?;
    let vip = Pair::vip(V6, 7);
    node.write_config(&(global(&node) + &router_text("six", 1, "priority = 100", &format!("{vip}/64"))))?;
    node.start()?;
    node.wait("the router active", |status| all(status, "active", 1))?;
    let send = |hops: u32, message: &[u8]| -> Result<()> {
        pair.nodes[1].namespace.enter(|| {
            let protocol = Protocol::from(i32::from(PROTOCOL));
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(protocol)).context("a raw socket")?;
            socket.set_multicast_hops_v6(hops)?;
            let scope = if_nametoindex(INTERFACE)?;
            let group = std::net::SocketAddrV6::new("ff02::12".parse()?, 0, 0, scope);
            socket.send_to(message, &group.into()).context("sending")?;
            anyhow::Ok(())
        })?
    };
    let message = [&[0x31, 1, 255, 1, 0, 10, 0xba, 0xd0][..], &[0xfd; 16]].concat();
    for (hops, message, refusal) in [
        (254, &message[..], Refusal::Ttl),
        (255, &message[..], Refusal::Checksum),
        (255, &message[..9], Refusal::Length),
    ] {
        send(hops, message)?;
        node.wait(refusal.name(), |status| refused(status, Some("six"), refusal) > 0)?;
    }
    ensure!(all(&node.status()?, "active", 1), "a bad advert was followed");
    Ok(())
}

#[test]
fn a_flood_of_forged_adverts_delays_none_and_moves_nobody() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [backup, active] = signed_pair(&pair)?;
    let before = [backup.status()?, active.status()?].map(|status| transitions(&status));
    let (sent, arrived) = thread::scope(|scope| -> Result<(u64, Vec<Instant>)> {
        let flood = scope.spawn(|| flood(&pair, FLOOD));
        let listener = Listener::new(&pair.client)?;
        let arrived = listener.arrivals(v4(&pair.nodes[1]), FLOOD)?;
        Ok((flood.join().expect("the flood does not panic")?, arrived))
    })?;
    let gaps = arrived.windows(2).map(|pair| pair[1] - pair[0]);
    let longest = gaps.max().context("fewer than two adverts during the flood")?;
    println!("{sent} packets, {} adverts, the longest gap {longest:?}", arrived.len());
    // The flood has the source of the active node, and is told from its adverts by their signature alone.
    ensure!(longest < DOWN, "an advert came {longest:?} after the one before");
    let after = [backup.status()?, active.status()?];
    ensure!(after.each_ref().map(transitions) == before, "a state moved: {after:?}");
    ensure!(all(&after[0], "backup", 1) && all(&after[1], "active", 1), "{after:?}");
    let looked_at: u64 =
        after.iter().flat_map(|status| &status.vrrp.routers[0].counters.refused).map(|(_, n)| n).sum();
    let flooded: u64 = after.iter().filter_map(|status| status.vrrp.refused.get(Refusal::Flood.name())).sum();
    println!("refused {looked_at}, not looked at {flooded}");
    ensure!(looked_at > 0 && flooded > 0, "nothing of the flood arrived");
    Ok(())
}

#[test]
fn a_replayed_advert_is_refused() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let listener = Listener::new(&pair.client)?;
    let [backup, mut active] = signed_pair(&pair)?;
    let source = v4(&pair.nodes[1]);
    let recorded = listener.next_of(source, |message| message[2] > 0)?;
    active.terminate()?;
    backup.wait("the other node active", |status| all(status, "active", 1))?;
    let before = transitions(&backup.status()?);
    let forger = Forger::new(&pair.client)?;
    forger.send(&Packet { source, destination: GROUP, ttl: 255, message: recorded })?;
    backup.wait("a replay", |status| refused(status, Some("signed"), Refusal::Replay) > 0)?;
    let after = backup.status()?;
    ensure!(all(&after, "active", 1) && transitions(&after) == before, "{:?}", after.vrrp);
    Ok(())
}

/// Packets that one router, or none, refuses for one reason.
struct Case {
    refusal: Refusal,
    /// None: no router has their VRID.
    router: Option<&'static str>,
    /// A part of what is told; None: nothing that operators must know.
    detail: Option<&'static str>,
    packets: Vec<Packet>,
}

fn cases(pair: &Pair) -> Result<Vec<Case>> {
    let routers =
        parse("crafted.toml", &every_kind(pair)?).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let routers = routers.config.vrrp.routers;
    let find = |name: &str| routers.iter().find(|router| router.name == name).expect("it is in `every_kind`");
    let (own, peer) = (v4(&pair.nodes[0]), v4(&pair.nodes[1]));
    let outsider = v4(&pair.client);
    // Priority 255 would win if it were believed.
    let bent = |name, refusal, detail, change: &dyn Fn(&mut Forged)| {
        let router = find(name);
        let destination = if router.is_unicast() { own } else { GROUP };
        let mut forged = Forged {
            router: router.clone(),
            priority: 255,
            source: peer,
            destination,
            ttl: 255,
            bend: |_| {},
        };
        change(&mut forged);
        Case { refusal, router: Some(name), detail, packets: vec![forged.packet()] }
    };
    let mut cases = vec![
        bent("plain", Refusal::Length, None, &|forged| forged.bend = |message| message.truncate(11)),
        bent("plain", Refusal::Ttl, Some("ttl is 254, it must be 255"), &|forged| forged.ttl = 254),
        bent("plain", Refusal::Version, Some("version 2, this router version 3"), &|forged| {
            forged.router.version = Version::V2;
        }),
        bent("plain", Refusal::Type, None, &|forged| forged.bend = |message| message[0] = 0x32),
        bent("plain", Refusal::Checksum, None, &|forged| forged.bend = |message| message[6] ^= 1),
        bent("plain", Refusal::Own, None, &|forged| forged.source = own),
        bent("plain", Refusal::Cast, Some("came unicast"), &|forged| forged.destination = own),
        bent("plain", Refusal::Addresses, Some("the addresses differ: only this router has"), &|forged| {
            forged.router.addresses.clear();
            // This one counts, and so must not win.
            forged.priority = 1;
        }),
        bent("password", Refusal::Interval, Some("interval is 3s, that of this router 1s"), &|forged| {
            forged.router.interval = Duration::from_secs(3);
        }),
        bent("password", Refusal::AuthType, Some("authentication type 9"), &|forged| {
            forged.bend = |message| with_auth_type(message, 9);
        }),
        bent(
            "password",
            Refusal::AuthMismatch,
            Some("none (type 0), that of this router a password"),
            &|forged| {
                forged.router.auth = Auth::None;
            },
        ),
        bent("password", Refusal::Password, Some("is not that of this router"), &|forged| {
            forged.router.auth = Auth::Pass(*b"another!");
        }),
        bent("signed", Refusal::Hmac, Some("not signed"), &|forged| forged.router.auth = Auth::None),
        bent("unicast", Refusal::Cast, Some("came by multicast"), &|forged| forged.destination = GROUP),
        bent("unicast", Refusal::Source, Some("is no unicast peer"), &|forged| forged.source = outsider),
        bent("unicast", Refusal::Ttl, Some("that of this peer is from 254 to 255"), &|forged| {
            forged.ttl = 253
        }),
        bent("owner", Refusal::Owner, Some("priority 255, and so has this router"), &|_| {}),
    ];
    let mut carp = bent("plain", Refusal::Carp, None, &|_| {});
    carp.packets[0].message = [&[0x21, 2, 0, 7][..], &[0; 32]].concat();
    // Of VRIDs that nobody here has every eighth advert is looked at.
    let mut foreign = bent("plain", Refusal::Vrid, None, &|_| {});
    foreign.router = None;
    for priority in 0..200 {
        let different = bent("plain", Refusal::Vrid, None, &|forged| {
            forged.router.vrid = 99;
            forged.priority = priority;
        });
        foreign.packets.extend(different.packets);
    }
    foreign.packets.remove(0);
    cases.extend([carp, foreign]);
    Ok(cases)
}

/// An advert of a peer that is configured as the router, but for what a case changes.
struct Forged {
    router: Router,
    priority: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    bend: fn(&mut Vec<u8>),
}

impl Forged {
    fn packet(&self) -> Packet {
        let (source, destination) = (self.source, self.destination);
        let outgoing = Outgoing {
            router: &self.router,
            priority: self.priority,
            form: ChecksumForm::PseudoHeader,
            source: source.into(),
            destination: destination.into(),
            sequence: Sequencer::default().next(Timestamp::now()),
        };
        let mut message = outgoing.encode();
        (self.bend)(&mut message);
        Packet { source, destination, ttl: self.ttl, message }
    }
}

/// The checksum gets back what the type adds.
fn with_auth_type(message: &mut [u8], kind: u8) {
    let added = u32::from(kind.wrapping_sub(message[4])) << 8;
    message[4] = kind;
    let checksum = u32::from(u16::from_be_bytes([message[6], message[7]]));
    // In ones' complement.
    let less = checksum + 0xffff - added;
    let folded = (less & 0xffff) + (less >> 16);
    message[6..8].copy_from_slice(&(folded as u16).to_be_bytes());
}

#[derive(Debug, Clone)]
struct Packet {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    message: Vec<u8>,
}

impl Packet {
    fn bytes(&self) -> Result<Vec<u8>> {
        let Packet { source, destination, ttl, message } = self;
        let length = u16::try_from(message.len())?;
        let header =
            Ipv4Header::new(length, *ttl, IpNumber(PROTOCOL), source.octets(), destination.octets())?;
        let mut bytes = Vec::with_capacity(header.header_len() + message.len());
        header.write(&mut bytes)?;
        bytes.extend(message);
        Ok(bytes)
    }
}

/// Somebody on the segment who says what it likes, in anybody's name.
struct Forger {
    socket: Socket,
}

impl Forger {
    fn new(host: &Host) -> Result<Forger> {
        host.namespace.enter(|| {
            let socket = raw_socket()?;
            socket.set_header_included_v4(true).context("taking over the header")?;
            socket.set_multicast_loop_v4(false)?;
            Ok(Forger { socket })
        })?
    }

    fn send(&self, packet: &Packet) -> Result<()> {
        self.send_bytes(packet.destination, &packet.bytes()?)
    }

    /// With their IP header.
    fn send_bytes(&self, destination: Ipv4Addr, bytes: &[u8]) -> Result<()> {
        let to = SocketAddr::new(destination.into(), 0);
        self.socket.send_to(bytes, &to.into()).context("sending a crafted packet").map(drop)
    }
}

/// Somebody on the segment who hears adverts.
struct Listener {
    socket: Socket,
}

impl Listener {
    fn new(host: &Host) -> Result<Listener> {
        host.namespace.enter(|| {
            let socket = raw_socket()?;
            let index = InterfaceIndexOrAddress::Index(if_nametoindex(INTERFACE)?);
            socket.join_multicast_v4_n(&GROUP, &index).context("joining the group")?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(Listener { socket })
        })?
    }

    /// The source of the next message, and what is in it.
    fn next(&self) -> Option<(Ipv4Addr, Vec<u8>)> {
        let mut packet = [0; 2_048];
        let length = (&self.socket).read(&mut packet).ok()?;
        let (header, message) = Ipv4Header::from_slice(&packet[..length]).ok()?;
        Some((Ipv4Addr::from(header.source), message.to_vec()))
    }

    /// When adverts of `source` came.
    fn arrivals(&self, source: Ipv4Addr, duration: Duration) -> Result<Vec<Instant>> {
        let end = Instant::now() + duration;
        let mut arrivals = Vec::new();
        while Instant::now() < end {
            arrivals.extend(self.next().filter(|(from, _)| *from == source).map(|_| Instant::now()));
        }
        Ok(arrivals)
    }

    fn next_of(&self, source: Ipv4Addr, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        poll(&format!("an advert of {source}"), LIMIT, || {
            self.next()
                .filter(|(from, message)| *from == source && wanted(message))
                .map(|(_, message)| message)
        })
    }
}

fn raw_socket() -> Result<Socket> {
    let protocol = Protocol::from(i32::from(PROTOCOL));
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).context("opening a raw socket")?;
    socket.bind_device(Some(INTERFACE.as_bytes())).context("binding it to its interface")?;
    Ok(socket)
}

/// In the active node's name, as fast as it goes up to `RATE` packets a second; returns how many. None is right.
fn flood(pair: &Pair, duration: Duration) -> Result<u64> {
    let forger = Forger::new(&pair.client)?;
    let source = v4(&pair.nodes[1]);
    let text = signed(pair, 255);
    let routers =
        parse("flood.toml", &text).map_err(|faults| anyhow::anyhow!("{faults:?}"))?.config.vrrp.routers;
    let mut forged = Forged {
        router: routers[0].clone(),
        priority: 255,
        source,
        destination: GROUP,
        ttl: 255,
        // A wrong digest.
        bend: |message| message.last_mut().into_iter().for_each(|last| *last ^= 1),
    };
    let wrong_digest = forged.packet();
    forged.router.auth = Auth::None;
    forged.bend = |_| {};
    let unsigned = forged.packet();
    forged.bend = |message| message[7] ^= 1;
    let wrong_checksum = forged.packet();
    forged.bend = |message| message.truncate(9);
    let packets = [wrong_digest, unsigned, wrong_checksum, forged.packet()];
    let mut packets = packets.iter().map(Packet::bytes).collect::<Result<Vec<_>>>()?;
    let (start, mut sent) = (Instant::now(), 0_u64);
    while start.elapsed() < duration {
        let due = (start.elapsed().as_secs_f64() * RATE) as u64;
        while sent < due && start.elapsed() < duration {
            let kind = sent as usize % packets.len();
            let packet = &mut packets[kind];
            // Half of them are copies, half are each another one.
            if kind.is_multiple_of(2) {
                let interval = IP_HEADER + 5;
                packet[interval] = packet[interval].wrapping_add(1);
            }
            forger.send_bytes(GROUP, packet)?;
            sent += 1;
        }
    }
    Ok(sent)
}

/// Two nodes whose router signs; the second is active.
fn signed_pair(pair: &Pair) -> Result<[Steelyard<'_>; 2]> {
    let mut nodes = [pair.steelyard(0)?, pair.steelyard(1)?];
    for (node, priority) in nodes.iter_mut().zip([100, 200]) {
        node.write_config(&(global(node) + &signed(pair, priority)))?;
        node.start()?;
    }
    nodes[1].wait("the second node active", |status| all(status, "active", 1))?;
    nodes[0].wait("the first node backup", |status| all(status, "backup", 1))?;
    Ok(nodes)
}

fn signed(_pair: &Pair, priority: u8) -> String {
    let keys = format!("priority = {priority}\nauth_hmac = [{{ id = 1, key = \"{KEY}\" }}]");
    router_text("signed", 51, &keys, &format!("{}/24", Pair::vip(V4, 7)))
}

/// One router for each kind of check.
fn every_kind(pair: &Pair) -> Result<String> {
    let peer = v4(&pair.nodes[1]);
    let vip = |number| format!("{}/24", Pair::vip(V4, number));
    let password = format!(
        "\n[[vrrp]]\nname = \"password\"\ninterface = {INTERFACE:?}\nvrid = 1\nversion = 2\npriority = 250\n\
         down_timer_adverts = 1\nauth_pass = {PASSWORD:?}\naddresses = [{:?}]\n",
        vip(11)
    );
    let peers = format!("priority = 100\nunicast_peers = [{{ address = \"{peer}\", ttl_min = 254 }}]");
    let hmac = format!("priority = 100\nauth_hmac = [{{ id = 1, key = \"{KEY}\" }}]");
    Ok(password
        + &router_text("plain", 2, "priority = 100", &vip(12))
        + &router_text("signed", 3, &hmac, &vip(13))
        + &router_text("unicast", 4, &peers, &vip(14))
        + &router_text("owner", 5, "priority = 255", &vip(15)))
}

/// Of version 3, an advert every 100 ms.
fn router_text(name: &str, vrid: u8, keys: &str, address: &str) -> String {
    format!(
        "\n[[vrrp]]\nname = {name:?}\ninterface = {INTERFACE:?}\nvrid = {vrid}\nversion = 3\n\
         advert_interval = \"100ms\"\n{keys}\naddresses = [{address:?}]\n"
    )
}

fn global(steelyard: &Steelyard) -> String {
    let (socket, state, pin) = (steelyard.socket(), steelyard.state(), steelyard.pin());
    format!("[global]\nadmin_socket = {socket:?}\nstate = {state:?}\n\n[datapath]\npin = {pin:?}\n")
}

fn v4(host: &Host) -> Ipv4Addr {
    match host.address(V4) {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => unreachable!("{address} is of the other family"),
    }
}

fn of<'s>(status: &'s Status, router: &str) -> Option<&'s RouterStatus> {
    status.vrrp.routers.iter().find(|known| known.name == router)
}

fn all(status: &Status, state: &str, routers: usize) -> bool {
    let routers_in_it = status.vrrp.routers.iter().filter(|router| router.state == state).count();
    routers_in_it == routers && status.vrrp.routers.len() == routers
}

fn transitions(status: &Status) -> Vec<u64> {
    status.vrrp.routers.iter().map(|router| router.transitions).collect()
}

/// None: what concerns no router.
fn refused(status: &Status, router: Option<&str>, refusal: Refusal) -> u64 {
    let counters = match router {
        Some(router) => of(status, router).map(|router| &router.counters.refused),
        None => Some(&status.vrrp.refused),
    };
    counters.and_then(|refused| refused.get(refusal.name())).copied().unwrap_or_default()
}

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const KEY: &str = "0123456789abcdef0123456789abcdef";
const PASSWORD: &str = "pa55word";
const IP_HEADER: usize = 20;
const FLOOD: Duration = Duration::from_secs(1);
/// Packets a second.
const RATE: f64 = 100_000.0;
/// Three adverts: from then on others take over.
const DOWN: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(10);

//! Cases of checks through the data path: what a probe's packet becomes, and what becomes of the answer, on the host and
//! in the kernel.

pub mod host;
pub mod packet;

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    entry::{Hop, Mode, Server, Tags},
    net::{Be16, Be128, Mac},
    slot::ServerId,
    through::{Target, counter::Counter, mark},
};
use lb_ebpf::through::{INNER_TTL, Verdict};

use self::packet::{Protocol, framed, in_udp, ip, unreachable, wrapped};

/// One packet of a probe, and one that comes back.
pub struct Exchange {
    pub name: String,
    pub target: Target,
    pub server: Server,
    pub sent: Step,
    pub back: Step,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub mark: u32,
    pub packet: Vec<u8>,
    pub expected: Effect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub verdict: Verdict,
    pub mark: u32,
    pub packet: Vec<u8>,
}

/// The server under check.
pub const ID: ServerId = ServerId(0x7ffe);
const MARK: u32 = mark(ID);

/// Every mode, mix of families and protocol. What is nobody's check comes first, before anything is remembered.
pub fn all() -> Vec<Exchange> {
    let mut exchanges = others();
    for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::BareUdp] {
        for (over, service) in [(true, true), (true, false), (false, true), (false, false)] {
            for mode in [Mode::Dsr, Mode::Ipip, Mode::Gue] {
                // Without a checksum IPv6 takes no datagram, and so there is nothing to turn it into.
                if protocol != Protocol::BareUdp || (over && service) {
                    exchanges.push(Ends::new(over, service).exchange(mode, protocol));
                }
            }
            if over == service && protocol == Protocol::Udp {
                exchanges.push(Ends::new(over, service).refusal());
                exchanges.push(Ends::new(over, service).refusal_by_another());
            }
        }
    }
    exchanges
}

/// What is nobody's check, and what cannot be sent.
fn others() -> Vec<Exchange> {
    let plain = || Ends::new(true, true).exchange(Mode::Ipip, Protocol::Tcp);
    let mut others = Vec::new();
    for (name, mark) in [("no mark", 0), ("another prefix", MARK ^ 1 << 24), ("an unknown server", MARK ^ 1)]
    {
        let mut exchange = plain();
        name.clone_into(&mut exchange.name);
        exchange.sent = untouched(mark, exchange.sent.packet);
        exchange.back = untouched(0, exchange.back.packet);
        others.push(exchange);
    }
    let ends = Ends::new(true, true);
    let stranger = SocketAddr::new(address(true, 77), SERVER_PORT);
    let port = SocketAddr::new(ends.server, SERVER_PORT + 1);
    for (name, to) in [("the mark on a packet to another address", stranger), ("to another port", port)] {
        let mut exchange = plain();
        name.clone_into(&mut exchange.name);
        let packet = framed(&ip(SocketAddr::new(ends.local, LOCAL_PORT), to, 64, Protocol::Tcp));
        exchange.sent = untouched(MARK, packet);
        exchange.back = untouched(0, exchange.back.packet);
        others.push(exchange);
    }
    let mut sourceless = Ends::new(true, false).exchange(Mode::Gue, Protocol::Tcp);
    "no source".clone_into(&mut sourceless.name);
    sourceless.target.source = Be128::default();
    sourceless.sent.expected = Effect {
        verdict: Verdict::Drop(Counter::CheckNoSource),
        mark: MARK,
        packet: sourceless.sent.packet.clone(),
    };
    sourceless.back = untouched(0, sourceless.back.packet);
    others.push(sourceless);
    others
}

fn untouched(mark: u32, packet: Vec<u8>) -> Step {
    let expected = Effect { verdict: Verdict::Next(None), mark, packet: packet.clone() };
    Step { mark, packet, expected }
}

/// Who talks to whom.
struct Ends {
    server: IpAddr,
    local: IpAddr,
    planned: IpAddr,
    vip: IpAddr,
    source: IpAddr,
    mixed: bool,
}

const LOCAL_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 80;
const VIP_PORT: u16 = 8_080;

impl Ends {
    /// Server and service over IPv4, or not.
    fn new(over: bool, service: bool) -> Ends {
        let local = address(over, 254);
        Ends {
            server: address(over, 1),
            local,
            planned: address(over, 253),
            vip: address(service, 9),
            source: if over == service { local } else { address(service, 254) },
            mixed: over != service,
        }
    }

    fn exchange(&self, mode: Mode, protocol: Protocol) -> Exchange {
        let (socket, server) =
            (SocketAddr::new(self.local, LOCAL_PORT), SocketAddr::new(self.server, SERVER_PORT));
        let (source, vip) = (SocketAddr::new(self.source, LOCAL_PORT), SocketAddr::new(self.vip, VIP_PORT));
        let inner = ip(source, vip, INNER_TTL, protocol);
        let number = if self.vip.is_ipv4() { 4 } else { 41 };
        let carried = match mode {
            Mode::Ipip => wrapped(self.planned, self.server, number, &inner),
            Mode::Gue => wrapped(self.planned, self.server, 17, &in_udp(ENTROPY, 6_080, &inner)),
            Mode::Dsr | Mode::Nat | Mode::Gateway => inner,
        };
        let sent = Step {
            mark: MARK,
            packet: framed(&ip(socket, server, 64, protocol)),
            expected: Effect {
                verdict: Verdict::Next(Some(Counter::CheckSent)),
                mark: MARK,
                packet: framed(&carried),
            },
        };
        let back = Step {
            mark: 0,
            packet: framed(&ip(vip, source, 61, protocol)),
            expected: Effect {
                verdict: Verdict::Next(Some(Counter::CheckAnswered)),
                mark: MARK,
                packet: framed(&ip(server, socket, 64, protocol)),
            },
        };
        let name = format!("{mode:?}, {} for {}, {protocol:?}", self.server, self.vip);
        Exchange { name, target: self.target(mode), server: self.entry(), sent, back }
    }

    /// The VIP says that the port is closed.
    fn refusal(&self) -> Exchange {
        self.told("the VIP", self.vip, self.server)
    }

    /// Somebody on the way does.
    fn refusal_by_another(&self) -> Exchange {
        let router = address(self.vip.is_ipv4(), 200);
        self.told("a router", router, router)
    }

    fn told(&self, who: &str, from: IpAddr, seen: IpAddr) -> Exchange {
        let mut exchange = self.exchange(Mode::Dsr, Protocol::Udp);
        let (socket, server) =
            (SocketAddr::new(self.local, LOCAL_PORT), SocketAddr::new(self.server, SERVER_PORT));
        let (source, vip) = (SocketAddr::new(self.source, LOCAL_PORT), SocketAddr::new(self.vip, VIP_PORT));
        let quoted = ip(source, vip, 1, Protocol::Udp);
        // A quoted transport checksum, and IPv4's, are nobody's business; they stay as the quoted packet's changes have
        // them.
        let mut known = ip(socket, server, 1, Protocol::Udp);
        let field = if self.vip.is_ipv4() { 26 } else { 46 };
        known[field..field + 2].copy_from_slice(&quoted[field..field + 2]);
        exchange.name = format!("an error by {who}, {} for {}", self.server, self.vip);
        exchange.back = Step {
            mark: 0,
            packet: framed(&unreachable(from, self.source, &quoted)),
            expected: Effect {
                verdict: Verdict::Next(Some(Counter::CheckError)),
                mark: MARK,
                packet: framed(&unreachable(seen, self.local, &known)),
            },
        };
        exchange
    }

    fn target(&self, mode: Mode) -> Target {
        Target {
            vip: Be128::from_ip(self.vip),
            source: if self.mixed { Be128::from_ip(self.source) } else { Be128::default() },
            vip_port: Be16::new(VIP_PORT),
            port: Be16::new(SERVER_PORT),
            mode: mode as u32,
        }
    }

    fn entry(&self) -> Server {
        let hop = Hop {
            lives: false,
            resolved: true,
            mac: Mac::from_bytes([2, 0, 0, 0, 0, 9]),
            source_mac: Mac::from_bytes([2, 0, 0, 0, 0, 8]),
            interface: 1,
            tags: Tags::default(),
            mtu: 1_500,
        };
        Server {
            hop,
            nat_first: 0,
            nat_count: 0,
            address: self.server,
            port: Be16::new(SERVER_PORT),
            weight: 1,
            service: 1,
            outer_source: self.planned,
        }
    }
}

fn address(v4: bool, last: u8) -> IpAddr {
    if v4 { [10, 0, 0, last].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)].into() }
}

/// The tunnel's source port: of the range from 0xc000 on, by the socket's.
const ENTROPY: u16 = 0xc000 | LOCAL_PORT & 0x3fff;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lb_ebpf::through::{egress, ingress};

    use super::{
        host::{HostBuffer, HostTables},
        *,
    };

    fn check(name: &str, found: (Verdict, HostBuffer), expected: &Effect) -> Option<String> {
        let (verdict, buffer) = found;
        println!("{name}");
        let found = Effect { verdict, mark: buffer.mark, packet: buffer.finish() };
        (found != *expected).then(|| format!("{name}\n  found    {found:x?}\n  expected {expected:x?}"))
    }

    #[test]
    fn every_exchange_has_the_effect_it_promises() {
        let mut failed = Vec::new();
        for Exchange { name, target, server, sent, back } in all() {
            let bare = name.contains("BareUdp");
            let mut out = vec![HostBuffer::new(&sent.packet, sent.mark)];
            let mut arriving = vec![HostBuffer::new(&back.packet, back.mark)];
            let mut short = HostBuffer::new(&back.packet, back.mark);
            short.linear = 30;
            arriving.push(short);
            // Nobody verifies, and nobody computes, what is not there.
            if !bare {
                arriving.push(HostBuffer::complete(&back.packet));
                out.push(HostBuffer::partial(&sent.packet, sent.mark));
                if back.expected.verdict != Verdict::Next(Some(Counter::CheckError)) {
                    arriving.push(HostBuffer::partial(&back.packet, back.mark));
                }
            }
            let tables = HostTables::new(ID, target, server);
            for mut buffer in out {
                let verdict = egress(&mut buffer, &tables);
                failed.extend(check(&format!("{name}, sent"), (verdict, buffer), &sent.expected));
            }
            for mut buffer in arriving {
                let verdict = ingress(&mut buffer, &tables);
                failed.extend(check(&format!("{name}, back"), (verdict, buffer), &back.expected));
            }
        }
        assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    }

    /// The caller's frames may end anywhere.
    #[test]
    fn what_is_cut_short_passes_untouched() {
        for Exchange { name, target, server, sent, back } in all() {
            let tables = HostTables::new(ID, target, server);
            let mut whole = HostBuffer::new(&sent.packet, sent.mark);
            let _ = egress(&mut whole, &tables);
            for length in 0..34 {
                for packet in [&sent.packet[..length], &back.packet[..length]] {
                    let (mut out, mut arriving) = (HostBuffer::new(packet, MARK), HostBuffer::new(packet, 0));
                    assert_eq!(egress(&mut out, &tables), Verdict::Next(None), "{name}, {length}");
                    assert_eq!(ingress(&mut arriving, &tables), Verdict::Next(None), "{name}, {length}");
                    assert_eq!(out.finish(), packet, "{name}, {length}");
                    assert_eq!(arriving.finish(), packet, "{name}, {length}");
                }
            }
        }
    }

    #[test]
    fn names_are_unique_and_every_way_out_has_a_case() {
        let exchanges = all();
        let names: BTreeSet<_> = exchanges.iter().map(|exchange| &exchange.name).collect();
        assert_eq!(names.len(), exchanges.len());
        for counter in Counter::ALL.iter().filter(|&&counter| counter != Counter::CheckRefused) {
            let ends = |step: &Step| match step.expected.verdict {
                Verdict::Next(way) => way == Some(*counter),
                Verdict::Drop(way) => way == *counter,
            };
            let found = exchanges.iter().any(|exchange| ends(&exchange.sent) || ends(&exchange.back));
            assert!(found, "no case for {}", counter.name());
        }
    }
}

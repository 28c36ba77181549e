//! What is measured: tables, packets, and what must be true of every packet.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use lb_common::{
    counter::Counter,
    entry::Mode,
    limits::FLOWS_DEFAULT,
    net::{TCP, UDP},
};

use super::{
    packet::{Kind, Packet},
    rig::{Setting, VIP, VIP_V6},
};

pub struct Case {
    pub name: &'static str,
    pub flows: u32,
    /// Nanoseconds that must be reached, and those aimed at; None: only shown.
    pub bars: Option<Bars>,
    pub(super) setting: Setting,
    /// Sent once for each flow, in this order, before the measurement, and what the program does with them.
    pub(super) before: &'static [Kind],
    pub(super) action_before: u32,
    pub(super) packet: Packet,
    pub(super) sender: Sender,
    /// Whether the program moves the head of the packet: it encapsulates, or changes tags.
    pub(super) moves_head: bool,
    /// The one counter that counts, once for each packet.
    pub(super) counter: Counter,
    pub(super) action: u32,
}

/// Who sends the packets that are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// To the address of the packet.
    Clients,
    /// Answers within the NAT flows that were recorded before.
    Servers,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bars {
    pub must_ns: f64,
    pub aim_ns: f64,
}

pub fn cases() -> Vec<Case> {
    vec![
        ipip("ipip, settled", 1).bars(45.0, 28.0),
        ipip("ipip, settled", 1 << 17).bars(60.0, 40.0),
        ipip("ipip, settled", 1 << 20).bars(60.0, 40.0),
        ipip("ipip, settled, SYN flood", 1 << 20).kind(Kind::Syn).bars(60.0, 40.0),
        ipip("ipip, settled, UDP", 1 << 20).kind(Kind::Udp).bars(60.0, 42.0),
        ipip("ipip, unsettled, recorded", 1 << 17).unsettled().bars(200.0, 110.0),
        ipip("ipip, wildcards beside", 1).wildcards(),
        ipip("ipip, VLAN", 1).tagged(),
        ipip("ip6ip6, settled", 1).to(VIP_V6).bars(55.0, 35.0),
        ipip("ip6ip6, settled", 1 << 20).to(VIP_V6),
        gue("gue, settled", 1).bars(70.0, 45.0),
        gue("gue, settled", 1 << 20),
        dsr("dsr, settled", 1),
        dsr("dsr, settled", 1 << 20),
        dsr("dsr, settled, IPv6", 1).to(VIP_V6),
        dsr("dsr, unsettled, recorded", 1 << 17).unsettled().bars(200.0, 110.0),
        nat("nat, established", 1).bars(110.0, 70.0),
        nat("nat, established", 1 << 17).bars(260.0, 150.0),
        nat("nat, default table, half full", 1 << 16).records(FLOWS_DEFAULT),
        nat("nat, reply", 1).reply(Counter::ForwardNatReply),
        nat("nat, reply", 1 << 17).reply(Counter::ForwardNatReply),
        gateway("gateway, established", 1),
        gateway("gateway, established", 1 << 17),
        no_service("no service", ELSEWHERE, Counter::PassNoService).bars(20.0, 8.0),
        no_service("no service, IPv6", ELSEWHERE_V6, Counter::PassNoService).bars(20.0, 8.0),
        no_service("no service, VLAN", ELSEWHERE, Counter::PassNoService).tagged(),
        no_service("no service, wildcards beside", ELSEWHERE, Counter::PassNoService).wildcards(),
    ]
}

/// A mode that keeps no state of a settled slot: established connections.
fn stateless(name: &'static str, flows: u32, mode: Mode, counter: Counter) -> Case {
    Case {
        name,
        flows,
        bars: None,
        setting: Setting {
            mode,
            protocol: TCP,
            moving: false,
            flows: FLOWS_DEFAULT,
            vip: VIP,
            wildcards: false,
        },
        before: &[],
        action_before: XDP_TX,
        packet: Packet { kind: Kind::Ack, to: VIP, vlan: None },
        sender: Sender::Clients,
        moves_head: false,
        counter,
        action: XDP_TX,
    }
}

fn dsr(name: &'static str, flows: u32) -> Case {
    stateless(name, flows, Mode::Dsr, Counter::ForwardDsr)
}

fn ipip(name: &'static str, flows: u32) -> Case {
    Case { moves_head: true, ..stateless(name, flows, Mode::Ipip, Counter::ForwardIpip) }
}

fn gue(name: &'static str, flows: u32) -> Case {
    Case { moves_head: true, ..stateless(name, flows, Mode::Gue, Counter::ForwardGue) }
}

fn gateway(name: &'static str, flows: u32) -> Case {
    let case = stateless(name, flows, Mode::Gateway, Counter::ForwardGatewayRequest);
    Case { before: &[Kind::Syn, Kind::Ack], ..case }.records(NAT_RECORDS)
}

fn nat(name: &'static str, flows: u32) -> Case {
    let case = stateless(name, flows, Mode::Nat, Counter::ForwardNatRequest);
    Case { before: &[Kind::Syn, Kind::Ack], ..case }.records(NAT_RECORDS)
}

fn no_service(name: &'static str, to: SocketAddr, counter: Counter) -> Case {
    let case = Case { action: XDP_PASS, ..stateless(name, 1, Mode::Dsr, counter) };
    Case { packet: Packet { to, ..case.packet }, ..case }
}

impl Case {
    fn bars(self, must_ns: f64, aim_ns: f64) -> Case {
        Case { bars: Some(Bars { must_ns, aim_ns }), ..self }
    }

    fn kind(self, kind: Kind) -> Case {
        let protocol = if kind == Kind::Udp { UDP } else { TCP };
        let setting = Setting { protocol, ..self.setting };
        Case { packet: Packet { kind, ..self.packet }, setting, ..self }
    }

    /// Every slot is moving, and every flow recorded.
    fn unsettled(self) -> Case {
        Case { setting: Setting { moving: true, ..self.setting }, before: &[Kind::Ack, Kind::Ack], ..self }
    }

    /// Capacity of the flow table.
    fn records(self, flows: u32) -> Case {
        Case { setting: Setting { flows, ..self.setting }, ..self }
    }

    /// The servers' answers to what was sent before.
    fn reply(self, counter: Counter) -> Case {
        Case { sender: Sender::Servers, counter, ..self }
    }

    fn to(self, vip: SocketAddr) -> Case {
        Case { packet: Packet { to: vip, ..self.packet }, setting: Setting { vip, ..self.setting }, ..self }
    }

    fn wildcards(self) -> Case {
        Case { setting: Setting { wildcards: true, ..self.setting }, ..self }
    }

    fn tagged(self) -> Case {
        Case { packet: Packet { vlan: Some(VLAN), ..self.packet }, ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} flows", self.name, self.flows)
    }
}

/// Of no service.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 80);
const ELSEWHERE_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)), 80);
const VLAN: u16 = 42;
/// Two records for each flow and a quarter more, so that no flow of the largest case is refused.
const NAT_RECORDS: u32 = (1 << 18) + (1 << 16);

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

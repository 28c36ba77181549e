//! What is measured: tables, packets, and what must be true of every packet.

use std::fmt;

use lb_common::{
    counter::Counter,
    entry::Mode,
    limits::FLOWS_DEFAULT,
    net::{TCP, UDP},
};

use super::{
    packet::{Kind, Packet},
    rig::{ELSEWHERE, Setting, VIP},
};

pub struct Case {
    pub name: &'static str,
    pub flows: u32,
    /// Nanoseconds that must be reached, and those aimed at; None: only shown.
    pub bars: Option<Bars>,
    pub(super) setting: Setting,
    /// Sent once for each flow, in this order, before the measurement.
    pub(super) before: &'static [Kind],
    pub(super) packet: Packet,
    /// The one counter that counts, once for each packet.
    pub(super) counter: Counter,
    pub(super) action: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bars {
    pub must_ns: f64,
    pub aim_ns: f64,
}

pub fn cases() -> Vec<Case> {
    let dsr = |name, flows| Case {
        name,
        flows,
        bars: None,
        setting: Setting { mode: Mode::Dsr, protocol: TCP, moving: false, flows: FLOWS_DEFAULT },
        before: &[],
        packet: Packet { kind: Kind::Ack, to: VIP },
        counter: Counter::ForwardDsr,
        action: XDP_TX,
    };
    let nat = |name, flows| Case {
        setting: Setting { mode: Mode::Nat, protocol: TCP, moving: false, flows: NAT_RECORDS },
        before: &[Kind::Syn, Kind::Ack],
        counter: Counter::ForwardNatRequest,
        ..dsr(name, flows)
    };
    let syn = Packet { kind: Kind::Syn, to: VIP };
    let udp = Packet { kind: Kind::Udp, to: VIP };
    vec![
        Case { bars: bars(40.0, 28.0), ..dsr("dsr, settled", 1) },
        Case { bars: bars(55.0, 40.0), ..dsr("dsr, settled", 1 << 20) },
        Case { packet: syn, ..dsr("dsr, settled, SYN flood", 1 << 20) },
        Case {
            setting: Setting { protocol: UDP, ..dsr("", 1).setting },
            packet: udp,
            ..dsr("dsr, settled, UDP", 1 << 20)
        },
        Case {
            setting: Setting { moving: true, ..dsr("", 1).setting },
            before: &[Kind::Ack, Kind::Ack],
            ..dsr("dsr, unsettled, recorded", 1 << 17)
        },
        Case { bars: bars(110.0, 70.0), ..nat("nat, established", 1) },
        Case { bars: bars(260.0, 150.0), ..nat("nat, established", 1 << 17) },
        Case {
            setting: Setting { flows: FLOWS_DEFAULT, ..nat("", 1).setting },
            ..nat("nat, default table, half full", 1 << 16)
        },
        nat("nat, established", 1 << 13),
        Case {
            bars: bars(20.0, 8.0),
            packet: Packet { kind: Kind::Ack, to: ELSEWHERE },
            counter: Counter::PassNoService,
            action: XDP_PASS,
            ..dsr("no service", 1)
        },
    ]
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} flows", self.name, self.flows)
    }
}

fn bars(must_ns: f64, aim_ns: f64) -> Option<Bars> {
    Some(Bars { must_ns, aim_ns })
}

/// Two records for each flow and a quarter more, so that no flow of the largest case is refused.
const NAT_RECORDS: u32 = (1 << 18) + (1 << 16);

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

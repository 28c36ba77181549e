//! Services without a usable server, and the answer their clients get.

use etherparse::TcpHeader;
use lb_common::{
    counter::Counter::{
        self, AnswerNoServer, DropNoFlow, DropNoServer, DropTables, DropUnresolved, ResetNoFlow,
        ResetNoServer,
    },
    entry::Mode,
    flow::Ticks,
    slot::{ServerId, Slot},
};

use super::{
    Case, every_mode,
    expected::unreachable,
    packet::{Datagram, Transport},
    shape::{ack, fin, rst, syn, tcp, udp},
    world::{A, FRONT, RING_SLOTS, World},
};

/// The RST of RFC 9293, section 3.10.7.1, to a segment for a closed port.
pub(super) fn refusal(asked: &Datagram) -> Datagram {
    let Transport::Tcp(header) = &asked.transport else { panic!("only tcp is refused with a RST") };
    let length = asked.payload.len() as u32 + u32::from(header.syn) + u32::from(header.fin);
    let mut answer = TcpHeader { rst: true, ..TcpHeader::default() };
    if header.ack {
        answer.sequence_number = header.acknowledgment_number;
    } else {
        answer.ack = true;
        answer.acknowledgment_number = header.sequence_number.wrapping_add(length);
    }
    Datagram {
        to: asked.from,
        from: asked.to,
        source: asked.destination,
        destination: asked.source,
        tags: asked.tags.clone(),
        transport: Transport::Tcp(Box::new(answer)),
        ..Datagram::empty()
    }
}

pub(super) fn cases(now: Ticks) -> Vec<Case> {
    let empty = |mode| World::new(mode, now).slots(Slot::settled(ServerId::NONE));
    let answered = [
        ("a SYN", syn()),
        ("a SYN with data", tcp(b"early", |header| header.syn = true)),
        ("a SYN and ACK", tcp(&[], |header| (header.syn, header.ack) = (true, true))),
        ("an ACK with data", ack()),
        ("a FIN with data", tcp(b"bye", |header| header.fin = true)),
        ("a FIN and ACK", fin()),
        ("no flag at all", tcp(b"odd", |_| ())),
        ("numbers that wrap", tcp(b"wrap", |header| (header.syn, header.sequence_number) = (true, u32::MAX))),
        ("options", tcp(b"x", with_options)),
        ("a frame of 60 bytes", syn().padded()),
        ("a full segment", tcp(&[7; 1_460], |header| header.psh = true)),
        ("leave to fragment", Datagram { dont_fragment: false, traffic_class: 10 << 2, ..syn() }),
    ];
    let mut cases = Vec::new();
    for (mode, family) in every_mode() {
        let word = format!("{mode:?} over {}", family.name()).to_lowercase();
        for (name, packet) in &answered {
            let packet = packet.clone().of(family);
            let (reset, _) = reasons(mode, &packet);
            cases.push(
                Case::new(&format!("no server, {word}: {name}, answered by a RST"), empty(mode), &packet)
                    .leaves(FRONT, reset, &refusal(&packet)),
            );
        }
        for (name, packet) in silent() {
            let packet = packet.of(family);
            let (_, drop) = reasons(mode, &packet);
            cases.push(
                Case::new(&format!("no server, {word}: {name}, dropped"), empty(mode), &packet).drops(drop),
            );
        }
        let query = udp(b"query").of(family);
        let quiet = || empty(mode).services(|service| service.reset = false);
        cases.extend([
            Case::new(&format!("no server, {word}: udp, answered by an ICMP error"), empty(mode), &query)
                .leaves(FRONT, AnswerNoServer, &unreachable(&query)),
            Case::new(&format!("no server, {word}: not reset but dropped"), quiet(), &syn().of(family))
                .drops(DropNoServer),
            Case::new(&format!("no server, {word}: udp, not answered but dropped"), quiet(), &query)
                .drops(DropNoServer),
        ]);
    }
    cases.extend(
        [(Mode::Dsr, "dsr"), (Mode::Nat, "nat")].iter().flat_map(|(mode, word)| broken(*mode, word, now)),
    );
    cases
}

/// Why a packet is refused where no server is left: a NAT service asks for the flow first.
fn reasons(mode: Mode, packet: &Datagram) -> (Counter, Counter) {
    match &packet.transport {
        Transport::Tcp(header) if mode == Mode::Nat && (header.ack || !header.syn) => {
            (ResetNoFlow, DropNoFlow)
        }
        _ => (ResetNoServer, DropNoServer),
    }
}

fn silent() -> [(&'static str, Datagram); 4] {
    [
        ("a RST", rst()),
        ("a RST and ACK", tcp(&[], |header| (header.rst, header.ack) = (true, true))),
        ("a frame from a group", Datagram { from: [3, 0, 0, 0, 0, 1], ..syn() }),
        ("udp from a group", Datagram { from: [3, 0, 0, 0, 0, 1], ..udp(b"query") }),
    ]
}

/// Tables that contradict themselves.
fn broken(mode: Mode, word: &str, now: Ticks) -> [Case; 4] {
    let world = || World::new(mode, now);
    let name = |what: &str| format!("faulty tables, {word}: {what}");
    let unwritten = world().slots(Slot::settled(ServerId(99)));
    let unwritten = Case::new(&name("a slot names an unwritten entry"), unwritten, &syn());
    [
        Case::new(
            &name("a ring outside the map"),
            world().services(|service| service.ring_base = RING_SLOTS),
            &syn(),
        )
        .leaves(FRONT, ResetNoServer, &refusal(&syn())),
        Case::new(
            &name("a slot names a server outside the table"),
            world().slots(Slot::settled(ServerId(0xff_ffff))),
            &syn(),
        )
        .drops(DropTables),
        unwritten.drops(if mode == Mode::Nat { DropTables } else { DropUnresolved }),
        match mode {
            _ if mode != Mode::Nat => Case::new(
                &name("a server without a next hop"),
                world().server(A, |server| server.hop.resolved = false),
                &ack(),
            )
            .drops(DropUnresolved),
            _ => Case::new(
                &name("a server without a NAT source"),
                world().server(A, |server| server.nat_count = 0),
                &syn(),
            )
            .drops(DropTables),
        },
    ]
}

fn with_options(header: &mut TcpHeader) {
    header.syn = true;
    header.set_options_raw(&[2, 4, 5, 180, 1, 3, 3, 7]).expect("eight bytes of options fit a header");
}

//! ICMP and ICMPv6: echo requests to services' addresses, and errors about their flows.
//!
//! An error quotes the packet it is about, which went the other way: its source and destination reversed name the
//! flow's packets towards the server.

use lb_common::{
    counter::Counter,
    entry::{Service, Tags},
    flow::{FlowView, NAT_REPLY, NAT_REQUEST, Tuple},
    flow_table,
    net::{Be16, Family, Mac, UDP, V4, V6},
    slot::ServerId,
};

use crate::{
    checksum::{Sum, udp_field},
    decide::{self, Refusal, Request},
    direct::{self, Detour, Path, Sent},
    forward::{Held, Outcome, Stages, held},
    fragment::is_vip,
    header::{Ethernet, Icmp, Ports, Udp},
    ip::{Ip, TTL},
    link,
    parse::Parsed,
    rewrite,
    tables::{FamilyTables, Packet, Tables, find_rule, find_service},
};

/// The messages of an IP version.
pub(crate) trait Messages: Stages {
    const ECHO_REQUEST: u8;
    const ECHO_REPLY: u8;
    /// Whether the message is an error that quotes a packet.
    fn is_error(kind: u8) -> bool;
    /// What new ends of the packet change in its own checksum.
    fn covered(old: Tuple<Self>, new: Tuple<Self>) -> Sum;
}

impl Messages for V4 {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, time exceeded, parameter problem.
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn covered(_: Tuple<V4>, _: Tuple<V4>) -> Sum {
        Sum::default()
    }
}

impl Messages for V6 {
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn covered(old: Tuple<V6>, new: Tuple<V6>) -> Sum {
        V6::exchange(V6::exchange(Sum::default(), old.source, new.source), old.destination, new.destination)
    }
}

/// The stage of ICMP messages.
#[inline(always)]
pub(crate) fn stage<F: Messages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
) -> Outcome {
    let Some(Held { parsed, .. }) = held::<F>(tables) else {
        return Outcome::drop(Counter::DropTables);
    };
    let mut frame = packet.frame();
    let Some(&mut message) = frame.at::<Icmp>(parsed.l4) else {
        return Outcome::pass(Counter::PassTruncated);
    };
    if message.kind == F::ECHO_REQUEST {
        return match is_vip::<F>(tables, parsed.tuple.destination) {
            true => echo(packet, &parsed),
            false => Outcome::pass(Counter::PassIcmp),
        };
    }
    if !F::is_error(message.kind) {
        return Outcome::pass(Counter::PassIcmp);
    }
    relay(packet, tables, parsed)
}

/// Whether the frame holds the packet, and the packet a message.
#[inline(always)]
fn is_whole<F: Messages>(packet: &impl Packet, parsed: &Parsed<F>) -> bool {
    let least = (parsed.l4 - parsed.l3 + size_of::<Icmp>()) as u32;
    least <= parsed.length && parsed.length + parsed.l3 as u32 <= packet.length()
}

/// Sends an echo request back as its reply.
#[inline(always)]
fn echo<F: Messages>(packet: &mut impl Packet, parsed: &Parsed<F>) -> Outcome {
    match reflect(packet, parsed) {
        Some(()) => Outcome::transmit(Counter::AnswerEcho),
        None => Outcome::drop(Counter::DropMalformed),
    }
}

#[inline(always)]
fn reflect<F: Messages>(packet: &mut impl Packet, parsed: &Parsed<F>) -> Option<()> {
    if !is_whole(packet, parsed) {
        return None;
    }
    let mut frame = packet.frame();
    let ethernet = frame.at::<Ethernet>(0)?;
    let (from, to) = (ethernet.source, ethernet.destination);
    if from.is_multicast() || !F::is_unicast(parsed.tuple.source) {
        return None;
    }
    ethernet.destination = from;
    ethernet.source = to;
    let header = frame.at::<F::Header>(parsed.l3)?;
    F::set_ends(header, parsed.tuple.destination, parsed.tuple.source);
    F::set_ttl(header, TTL);
    let message = frame.at::<Icmp>(parsed.l4)?;
    let old = Be16(u16::from_ne_bytes([F::ECHO_REQUEST, message.code]));
    let new = Be16(u16::from_ne_bytes([F::ECHO_REPLY, message.code]));
    // Ends that change places change no sum.
    message.checksum = Sum::of_field(message.checksum).replace16(old, new).field();
    message.kind = F::ECHO_REPLY;
    Some(())
}

/// The packet that an error quotes.
#[derive(Clone, Copy)]
struct Quoted<F: Family> {
    /// As quoted.
    tuple: Tuple<F>,
    protocol: u8,
    l3: usize,
    l4: usize,
    /// A whole UDP header, and not only its ports.
    has_udp: bool,
}

/// Sends an error to where the packets of its flow go.
#[inline(always)]
fn relay<F: Messages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
    parsed: Parsed<F>,
) -> Outcome {
    const PASS: Outcome = Outcome::pass(Counter::PassIcmp);
    let Some(globals) = tables.globals() else { return PASS };
    let Some(quoted) = quoted(packet, &parsed) else { return PASS };
    let about = Parsed { tuple: quoted.tuple.reversed(), protocol: quoted.protocol, ..parsed };
    // An error goes to the sender of what it quotes; any other is nobody's.
    if about.tuple.destination != parsed.tuple.destination {
        return PASS;
    }
    let service = find_service(tables, about.service_key()).or_else(|| match globals.has_wildcards() {
        true => find_rule::<F>(tables, about.tuple.destination, about.tuple.destination_port, about.protocol),
        false => None,
    });
    match service {
        Some(service) if service.mode.rewrites() => {
            rewritten(packet, tables, &parsed, &about, quoted, NAT_REQUEST)
        }
        Some(service) => to_server(packet, tables, &parsed, &about, &service),
        None if globals.may_be_reply::<F>(about.tuple.source, about.tuple.destination) => {
            rewritten(packet, tables, &parsed, &about, quoted, NAT_REPLY)
        }
        None => PASS,
    }
}

/// The quoted packet, if it has the ports of TCP or UDP.
#[inline(always)]
fn quoted<F: Messages>(packet: &mut impl Packet, parsed: &Parsed<F>) -> Option<Quoted<F>> {
    let mut frame = packet.frame();
    let l3 = parsed.l4 + size_of::<Icmp>();
    let fields = F::fields(frame.at::<F::Header>(l3)?)?;
    let l4 = F::quoted_l4(&mut frame, l3)?;
    let ports = *frame.at::<Ports>(l4)?;
    // What stands behind the packet is padding.
    let end = parsed.l3 + parsed.length as usize;
    if l4 + size_of::<Ports>() > end {
        return None;
    }
    let has_udp = fields.protocol == UDP && l4 + size_of::<Udp>() <= end;
    let tuple = Tuple {
        source: fields.source,
        destination: fields.destination,
        source_port: ports.source,
        destination_port: ports.destination,
    };
    Some(Quoted { tuple, protocol: fields.protocol, l3, l4, has_udp })
}

/// Modes in which packets keep their ends: the error goes as any packet of the flow does.
#[inline(always)]
fn to_server<F: Messages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
    parsed: &Parsed<F>,
    about: &Parsed<F>,
    service: &Service,
) -> Outcome {
    let Some(globals) = tables.globals() else { return Outcome::drop(Counter::DropTables) };
    if !is_whole(packet, parsed) {
        return Outcome::drop(Counter::DropMalformed);
    }
    if parsed.ttl <= 1 {
        return Outcome::drop(Counter::DropTtl);
    }
    if service.access && decide::denied::<F>(tables, service.id, about.tuple.source) {
        return Outcome::drop(Counter::DropAccess);
    }
    let request = Request::new(globals.hash_key(), about, service);
    let server = match decide::peek(tables, &request) {
        Ok(server) => server,
        Err(Refusal::NoServer | Refusal::Full | Refusal::Moving) => {
            return Outcome::drop(Counter::DropNoServer);
        }
    };
    match carry(packet, tables, parsed, &request, server) {
        Ok(outcome) | Err(Detour::Out(outcome)) => outcome,
        Err(Detour::Answer(_) | Detour::Slow) => Outcome::drop(Counter::DropTooBig),
    }
}

#[inline(always)]
fn carry<F: Messages>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    parsed: &Parsed<F>,
    request: &Request<'_, F>,
    server: ServerId,
) -> Result<Outcome, Detour> {
    let entry = tables.server(server).ok_or(Detour::Out(Outcome::drop(Counter::DropTables)))?;
    let hop = direct::way(entry, Path::Any)?;
    let sent = Sent { entry, hop, hash: request.hash, mode: request.service.mode };
    let overhead = direct::overhead(sent.mode, entry.is_v6());
    if parsed.length + overhead > hop.mtu as u32 {
        return Err(Detour::Out(Outcome::drop(Counter::DropTooBig)));
    }
    direct::deliver::<F>(packet, &sent, parsed.l3, parsed.length)?;
    Ok(link::leave(packet, hop.interface, Counter::ForwardIcmp))
}

/// Modes that rewrite: the error and the packet it quotes get the ends that the other side knows. `half`: the record
/// of the direction that the error follows.
#[inline(always)]
fn rewritten<F: Messages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
    parsed: &Parsed<F>,
    about: &Parsed<F>,
    quoted: Quoted<F>,
    half: u32,
) -> Outcome {
    let found = flow_table::read(tables, &about.flow_key()).filter(|(_, view)| view.state & half != 0);
    let Some((_, view)) = found else { return Outcome::pass(Counter::PassIcmp) };
    if !is_whole(packet, parsed) {
        return Outcome::drop(Counter::DropMalformed);
    }
    if parsed.ttl <= 1 {
        return Outcome::drop(Counter::DropTtl);
    }
    let sent = ends(packet, parsed, about, quoted, &view).and_then(|()| match half {
        NAT_REQUEST => onward::<F>(packet, tables, ServerId(view.server), parsed.l3),
        _ => back(packet, &view, parsed.l3),
    });
    sent.unwrap_or(Outcome::drop(Counter::DropMalformed))
}

#[inline(always)]
fn ends<F: Messages>(
    packet: &mut impl Packet,
    parsed: &Parsed<F>,
    about: &Parsed<F>,
    quoted: Quoted<F>,
    view: &FlowView<F>,
) -> Option<()> {
    let mut frame = packet.frame();
    // Whoever sent the error stays its source where the client does.
    let keeps_source = view.rewrite.source == about.tuple.source;
    let outer = Tuple {
        source: if keeps_source { parsed.tuple.source } else { view.rewrite.source },
        destination: view.rewrite.destination,
        ..parsed.tuple
    };
    let header = frame.at::<F::Header>(parsed.l3)?;
    F::set_ends(header, outer.source, outer.destination);
    F::hop(header);

    let inner = view.rewrite.reversed();
    let header = frame.at::<F::Header>(quoted.l3)?;
    F::set_ends(header, inner.source, inner.destination);
    let mut sum = F::covered(parsed.tuple, outer).plus(F::covered(quoted.tuple, inner));
    *frame.at::<Ports>(quoted.l4)? = Ports { source: inner.source_port, destination: inner.destination_port };
    sum = sum
        .replace16(quoted.tuple.source_port, inner.source_port)
        .replace16(quoted.tuple.destination_port, inner.destination_port);
    if quoted.has_udp
        && let Some(udp) = frame.at::<Udp>(quoted.l4)
        && udp.checksum != Be16(0)
    {
        let old = udp.checksum;
        let change = rewrite::change(quoted.tuple, inner);
        udp.checksum = udp_field(Sum::of_field(old).plus(change));
        sum = sum.replace16(old, udp.checksum);
    }
    let message = frame.at::<Icmp>(parsed.l4)?;
    message.checksum = Sum::of_field(message.checksum).plus(sum).field();
    Some(())
}

#[inline(always)]
fn onward<F: Messages>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    server: ServerId,
    l3: usize,
) -> Option<Outcome> {
    let hop = tables.server(server)?.hop();
    if !hop.resolved {
        return Some(Outcome::drop(Counter::DropUnresolved));
    }
    if let Err(outcome) = link::resize(packet, l3, hop.tags, 0) {
        return Some(outcome);
    }
    link::to_hop(&mut packet.frame(), &hop, F::ETHERTYPE)?;
    Some(link::leave(packet, hop.interface, Counter::ForwardIcmp))
}

#[inline(always)]
fn back<F: Messages>(packet: &mut impl Packet, view: &FlowView<F>, l3: usize) -> Option<Outcome> {
    let tags = Tags(view.tags);
    if let Err(outcome) = link::resize(packet, l3, tags, 0) {
        return Some(outcome);
    }
    let (to, from) = (Mac::from_word(view.peer_mac), Mac::from_word(view.own_mac));
    link::write(&mut packet.frame(), to, from, tags, F::ETHERTYPE)?;
    Some(link::leave(packet, view.interface, Counter::ForwardIcmpReply))
}

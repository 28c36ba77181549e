//! `nat`: both ends rewritten, every flow recorded as a pair, replies restored.

use lb_common::{
    counter::Counter,
    entry::{Globals, Server, ServiceKey},
    flow::{
        FIN, Flow, FlowKey, FlowView, NAT_REPLY, NAT_REQUEST, OPENING, RST, Ticks, Tuple, nat_idle_ticks,
        nat_port, nat_source_index,
    },
    flow_table::{self, InsertError},
    hash,
    limits::NAT_PORT_TRIES,
    net::{Be32, Mac, TCP},
    slot::ServerId,
};

use crate::{
    decide::{self, NoServer, Request},
    forward::{Outcome, leave},
    header::{Ethernet, TCP_FIN, TCP_RST},
    parse::{self, Parsed},
    reset, rewrite,
    tables::{Packet, Tables, find_service},
};

/// Where the client side's packets come from, so that replies find the way back.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Arrival {
    interface: u32,
    peer_mac: Mac,
    own_mac: Mac,
}

/// The half of a pair that a packet needs.
#[derive(Clone, Copy)]
struct Path {
    server: ServerId,
    rewrite: Tuple,
    /// The packet made the pair.
    recorded: bool,
}

/// Client to server.
#[inline(always)]
pub(crate) fn request(
    packet: &mut impl Packet,
    tables: &impl Tables,
    globals: &Globals,
    request: &Request<'_>,
) -> Result<Outcome, NoServer> {
    let Some(arrival) = arrival(packet) else { return Ok(Outcome::drop(Counter::DropMalformed)) };
    let key = request.parsed.flow_key();
    let now = tables.now();
    let path = match recorded(tables, &key, request, now, arrival) {
        Some(path) => path,
        // Within a connection that nobody recorded, so that no server knows its source port: answered here,
        // since a record for each such packet would let anyone fill the table.
        None if request.parsed.protocol == TCP && !request.transport.is_syn() => {
            return Ok(reset::refuse(packet, request.parsed, Counter::ResetNoFlow, Counter::DropNoFlow));
        }
        None => match open(tables, globals, &key, request, now, arrival)? {
            Ok(path) => path,
            Err(outcome) => return Ok(outcome),
        },
    };
    let Some(entry) = tables.server(path.server) else { return Ok(Outcome::drop(Counter::DropTables)) };
    let hop = entry.load().hop;
    if !hop.resolved {
        return Ok(Outcome::drop(Counter::DropUnresolved));
    }
    let mut frame = packet.frame();
    if rewrite::link(&mut frame, hop.mac, hop.source_mac).is_none()
        || rewrite::ends(&mut frame, request.parsed.tuple, path.rewrite, request.parsed.protocol).is_none()
    {
        return Ok(Outcome::drop(Counter::DropMalformed));
    }
    let opens = request.opens(path.recorded);
    tables.count_server(path.server, request.parsed.total_length as u32, opens);
    Ok(leave(packet, hop.interface, Counter::ForwardNatRequest))
}

/// Server to client, or none of ours.
#[inline(always)]
pub(crate) fn reply(packet: &mut impl Packet, tables: &impl Tables, parsed: &Parsed) -> Outcome {
    const NO_SERVICE: Outcome = Outcome::pass(Counter::PassNoService);
    let Some(globals) = tables.globals() else { return NO_SERVICE };
    if globals.nat_filter.get() & hash::address_bit(parsed.tuple.destination) == 0 {
        return NO_SERVICE;
    }
    let found = flow_table::read(tables, &parsed.flow_key());
    let Some((flow, view)) = found else { return Outcome::pass(Counter::PassNoFlow) };
    if view.state & NAT_REPLY == 0 {
        return Outcome::pass(Counter::PassNoFlow);
    }
    let transport = match parse::transport(&mut packet.frame(), parsed) {
        Ok(transport) => transport,
        Err(outcome) => return outcome,
    };
    flow.touch(tables.now(), ended(transport.flags), 0);
    let mut frame = packet.frame();
    if rewrite::link(&mut frame, Mac::from_word(view.peer_mac), Mac::from_word(view.own_mac)).is_none()
        || rewrite::ends(&mut frame, parsed.tuple, view.rewrite, parsed.protocol).is_none()
    {
        return Outcome::drop(Counter::DropMalformed);
    }
    leave(packet, view.interface, Counter::ForwardNatReply)
}

#[inline(always)]
fn arrival(packet: &mut impl Packet) -> Option<Arrival> {
    let interface = packet.interface();
    let mut frame = packet.frame();
    let ethernet = frame.at::<Ethernet>(0)?;
    Some(Arrival { interface, peer_mac: ethernet.source.get(), own_mac: ethernet.destination.get() })
}

/// The path of a recorded flow, stamped; a pair that no longer counts is taken away.
#[inline(always)]
fn recorded(
    tables: &impl Tables,
    key: &FlowKey,
    request: &Request<'_>,
    now: Ticks,
    arrival: Arrival,
) -> Option<Path> {
    let (flow, view) = flow_table::read(tables, key)?;
    if view.state & NAT_REQUEST == 0 || is_void(tables, key, &view, request, now) {
        if twin(tables, key, &view).is_some() {
            flow_table::remove(tables, &key.twin(view.rewrite));
        }
        flow_table::remove(tables, key);
        return None;
    }
    flow.touch(now, ended(request.transport.flags), request.confirmed());
    if view.state & request.confirmed() != 0
        && let Some((twin, _)) = twin(tables, key, &view)
    {
        twin.clear_state(OPENING);
    }
    let known = Arrival {
        interface: view.interface,
        peer_mac: Mac::from_word(view.peer_mac),
        own_mac: Mac::from_word(view.own_mac),
    };
    if known != arrival {
        learn(flow, arrival);
        if let Some((twin, _)) = twin(tables, key, &view) {
            learn(twin, arrival);
        }
    }
    Some(Path { server: ServerId(view.server), rewrite: view.rewrite, recorded: false })
}

/// Whether a pair has expired, its server died, or a SYN begins a new connection over a closed one.
///
/// The other half is read only when this one's silence or a SYN leaves it in doubt.
#[inline(always)]
fn is_void(tables: &impl Tables, key: &FlowKey, view: &FlowView, request: &Request<'_>, now: Ticks) -> bool {
    if !decide::lives(tables, ServerId(view.server)) {
        return true;
    }
    let idle = request.service.idle_ticks;
    let silent = now.since(view.seen);
    let closed = view.state & (FIN | RST | OPENING) != 0;
    if !request.transport.is_syn() && !closed {
        return silent >= idle && twin_silent(tables, key, view, now) >= idle;
    }
    let (reply_state, reply_silent) = match twin(tables, key, view) {
        Some((_, twin)) => (twin.state, now.since(twin.seen)),
        None => return true,
    };
    if request.transport.is_syn() && (view.state | reply_state) & (FIN | RST) != 0 {
        return true;
    }
    let silent = if reply_silent < silent { reply_silent } else { silent };
    silent >= nat_idle_ticks(view.state, reply_state, idle)
}

#[inline(always)]
fn twin_silent(tables: &impl Tables, key: &FlowKey, view: &FlowView, now: Ticks) -> u32 {
    match twin(tables, key, view) {
        Some((_, twin)) => now.since(twin.seen),
        None => u32::MAX,
    }
}

/// The other half of a pair. Once that half gave way, another flow may have its port and so its key.
#[inline(always)]
fn twin<'a>(tables: &'a impl Tables, key: &FlowKey, view: &FlowView) -> Option<(&'a Flow, FlowView)> {
    let (flow, twin) = flow_table::read(tables, &key.twin(view.rewrite))?;
    (twin.rewrite == key.tuple().reversed()).then_some((flow, twin))
}

#[inline(always)]
fn learn(flow: &Flow, arrival: Arrival) {
    flow.set_peer(arrival.interface, arrival.peer_mac.0, arrival.own_mac.0);
}

/// Bits of the record that a packet sets.
#[inline(always)]
fn ended(tcp_flags: u8) -> u32 {
    let mut ended = 0;
    if tcp_flags & TCP_FIN != 0 {
        ended |= FIN;
    }
    if tcp_flags & TCP_RST != 0 {
        ended |= RST;
    }
    ended
}

/// Chooses a server and a source port, and records the pair whole or not at all.
#[inline(always)]
fn open(
    tables: &impl Tables,
    globals: &Globals,
    key: &FlowKey,
    request: &Request<'_>,
    now: Ticks,
    arrival: Arrival,
) -> Result<Result<Path, Outcome>, NoServer> {
    // Every flow has a record, so what has none is new.
    let id = decide::present(decide::slot(tables, request)?.current())?;
    let Some(entry) = tables.server(id) else { return Ok(Err(Outcome::drop(Counter::DropTables))) };
    let server = entry.load();
    let opening = if request.transport.is_syn() { OPENING } else { 0 };
    let mut view = FlowView {
        server: id.0,
        seen: now,
        state: NAT_REPLY | opening,
        interface: arrival.interface,
        rewrite: request.parsed.tuple.reversed(),
        peer_mac: arrival.peer_mac.0,
        own_mac: arrival.own_mac.0,
    };
    let rewrite = match reserve(tables, globals, &server, request, &view) {
        Ok(rewrite) => rewrite,
        Err(outcome) => return Ok(Err(outcome)),
    };
    view.state = NAT_REQUEST | opening;
    view.rewrite = rewrite;
    match flow_table::insert(tables, key, &view) {
        Ok(()) => {
            tables.count(Counter::FlowRecorded);
            Ok(Ok(Path { server: id, rewrite, recorded: true }))
        }
        Err(error) => {
            flow_table::remove(tables, &key.twin(rewrite));
            Ok(lost(tables, key, error))
        }
    }
}

/// The pair was not inserted: another CPU was faster with a packet of this flow, or the table is full.
#[inline(always)]
fn lost(tables: &impl Tables, key: &FlowKey, error: InsertError) -> Result<Path, Outcome> {
    match (error, flow_table::read(tables, key)) {
        (InsertError::Exists, Some((_, flow))) => {
            Ok(Path { server: ServerId(flow.server), rewrite: flow.rewrite, recorded: false })
        }
        (InsertError::Exists, None) | (InsertError::Full, _) => Err(Outcome::drop(Counter::DropFlowsFull)),
    }
}

/// Inserts the reply half under the first free source port, and returns what requests become.
#[inline(always)]
fn reserve(
    tables: &impl Tables,
    globals: &Globals,
    server: &Server,
    request: &Request<'_>,
    reply: &FlowView,
) -> Result<Tuple, Outcome> {
    let start = hash::again(request.hash);
    let source = source(globals, server, start).ok_or(Outcome::drop(Counter::DropTables))?;
    for attempt in 0..NAT_PORT_TRIES {
        let rewrite = Tuple {
            source,
            destination: server.address,
            source_port: nat_port(start, attempt),
            destination_port: server.port,
        };
        // The address may be a VIP, too: a reply to a service's port would count as a request.
        let taken = ServiceKey::new(source, rewrite.source_port, request.parsed.protocol);
        if find_service(tables, taken).is_some() {
            continue;
        }
        match flow_table::insert(tables, &request.parsed.flow_key().twin(rewrite), reply) {
            Ok(()) => return Ok(rewrite),
            Err(InsertError::Exists) => {}
            Err(InsertError::Full) => return Err(Outcome::drop(Counter::DropFlowsFull)),
        }
    }
    Err(Outcome::drop(Counter::DropNatPorts))
}

#[inline(always)]
fn source(globals: &Globals, server: &Server, hash: u32) -> Option<Be32> {
    let count = server.nat_count as u32;
    if count == 0 {
        return None;
    }
    globals.nat_source(server.nat_first as u32 + nat_source_index(hash, count))
}

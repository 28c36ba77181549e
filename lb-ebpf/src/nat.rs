//! `nat` and `gateway`: ends rewritten, every flow recorded as a pair, replies restored.
//!
//! `nat` rewrites both ends, so that replies come to the balancer by their address; `gateway` keeps the client's, so
//! that they come by the servers' route.

use lb_common::{
    counter::Counter,
    entry::{Globals, Mode, ServerEntry, ServiceKey, Tags},
    flow::{
        ARRIVAL, FIN, Flow, FlowKey, FlowView, NAT_REPLY, NAT_REQUEST, NatFlow, OPENING, Owner, RST, Ticks,
        Tuple, UNCONFIRMED, nat_idle_ticks, nat_port, nat_source_index,
    },
    flow_table::{self, InsertError},
    hash,
    limits::NAT_PORT_TRIES,
    net::{Be16, Family, Mac, TCP},
    slot::ServerId,
};

use crate::{
    clamp,
    decide::{self, Request, closed, ended, opened},
    forward::{self, Held, Kind, Outcome, Stages, Task, held},
    header::{TCP_ACK, TCP_SYN},
    link::{self, Arrival},
    parse::{self, Parsed, Unfit},
    rewrite,
    tables::{FamilyTables, Packet, Tables, find_rule, find_service},
};

/// The half of a pair that a packet needs.
#[derive(Clone, Copy)]
struct Path<F: Family> {
    server: ServerId,
    rewrite: Tuple<F>,
    /// The packet made the pair.
    recorded: bool,
}

/// Whether a packet is a server's answer to a recorded flow.
#[inline(always)]
pub(crate) fn is_reply<F: Family>(tables: &impl FamilyTables<F>, parsed: &Parsed<F>) -> bool {
    flow_table::owner(tables, &parsed.flow_key()).is_some_and(|(_, _, owner)| owner.state & NAT_REPLY != 0)
}

/// The stage from client to server.
#[inline(always)]
pub(crate) fn request<F: Stages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
) -> Outcome {
    let Some(Held { parsed, service, task }) = held::<F>(tables) else {
        return Outcome::drop(Counter::DropTables);
    };
    let Some(globals) = tables.globals() else { return Outcome::drop(Counter::DropTables) };
    let Some(arrival) = link::arrival(packet, parsed.l3) else {
        return Outcome::drop(Counter::DropMalformed);
    };
    let request = Request::new(globals.hash_key(), &parsed, &service);
    let visit = Visit { arrival, opened: task.kind == Kind::Opened };
    match recorded(tables, &request, visit) {
        Some(path) => to_server(packet, tables, &request, Path { recorded: task.value != 0, ..path }),
        // Taken away in the moment it was made: the table is full.
        None if visit.opened => Outcome::drop(Counter::DropFlowsFull),
        // Within a connection that nobody recorded, so that no server knows its source port: answered here,
        // since a record for each such packet would let anyone fill the table.
        None if is_lost(&request) => forward::pass_on::<F>(tables, Task::of(Kind::NoFlow), F::ANSWER),
        None => Outcome::next(F::CHOOSE),
    }
}

/// The stage of flows that have no record yet; the task names the server.
#[inline(always)]
pub(crate) fn open<F: Stages>(packet: &mut impl Packet, tables: &(impl Tables + FamilyTables<F>)) -> Outcome {
    let Some(Held { parsed, service, task }) = held::<F>(tables) else {
        return Outcome::drop(Counter::DropTables);
    };
    let Some(globals) = tables.globals() else { return Outcome::drop(Counter::DropTables) };
    let Some(arrival) = link::arrival(packet, parsed.l3) else {
        return Outcome::drop(Counter::DropMalformed);
    };
    let request = Request::new(globals.hash_key(), &parsed, &service);
    match pair(tables, globals, &request, arrival, ServerId(task.value)) {
        Ok(recorded) => {
            let task = Task { kind: Kind::Opened, value: recorded as u32 };
            forward::pass_on::<F>(tables, task, F::NAT)
        }
        Err(outcome) => {
            // A fault of the tables is no want of room.
            if outcome.counter() != Counter::DropTables as usize {
                decide::refused(tables, service.id, tables.now());
            }
            outcome
        }
    }
}

#[inline(always)]
fn is_lost<F: Family>(request: &Request<'_, F>) -> bool {
    request.service.mode == Mode::Nat && request.parsed.protocol == TCP && !request.parsed.is_syn()
}

#[inline(always)]
fn to_server<F: Stages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
    path: Path<F>,
) -> Outcome {
    let parsed = request.parsed;
    let Some(entry) = tables.server(path.server) else { return Outcome::drop(Counter::DropTables) };
    let hop = entry.hop();
    if !hop.resolved {
        return Outcome::drop(Counter::DropUnresolved);
    }
    if parsed.length > hop.mtu as u32 {
        let task = Task::too_big(hop.mtu as u32);
        return forward::pass_on::<F>(tables, task, F::ANSWER);
    }
    if rewrite::ends(&mut packet.frame(), parsed, path.rewrite).is_none() {
        return Outcome::drop(Counter::DropMalformed);
    }
    if let Err(outcome) = link::resize(packet, parsed.l3, hop.tags, 0) {
        return outcome;
    }
    if link::to_hop(&mut packet.frame(), &hop, F::ETHERTYPE).is_none() {
        return Outcome::drop(Counter::DropMalformed);
    }
    tables.count_server(path.server, parsed.length, request.opens(path.recorded));
    let counter = match request.service.mode {
        Mode::Gateway => Counter::ForwardGatewayRequest,
        _ => Counter::ForwardNatRequest,
    };
    link::leave(packet, hop.interface, counter)
}

/// The stage from server to client, of packets that may be none of ours.
#[inline(always)]
pub(crate) fn reply<F: Stages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
) -> Outcome {
    let Some(Held { parsed, .. }) = held::<F>(tables) else { return Outcome::drop(Counter::DropTables) };
    let found = flow_table::read(tables, &parsed.flow_key());
    let Some((found, view)) = found.filter(|(_, view)| view.state & NAT_REPLY != 0) else {
        // The kernel would answer with a RST.
        return match tables.globals().is_some_and(|globals| globals.is_moving()) {
            true => Outcome::drop(Counter::DropNoFlow),
            false => Outcome::pass(Counter::PassNoFlow),
        };
    };
    let gateway = view.rewrite.destination == parsed.tuple.destination;
    let flags = match parse::transport(packet, &parsed) {
        Ok(flags) => flags,
        Err(Unfit::Malformed) => return Outcome::drop(Counter::DropMalformed),
        // The answer would have the client's address as its own.
        Err(Unfit::Expired) if gateway => return Outcome::drop(Counter::DropTtl),
        Err(Unfit::Expired) => return forward::pass_on::<F>(tables, Task::of(Kind::Expired), F::ANSWER),
    };
    found.flow.touch(tables.now(), ended(flags), 0);
    let counter = if gateway { Counter::ForwardGatewayReply } else { Counter::ForwardNatReply };
    if flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK {
        clamp::mss(packet, tables, &parsed, mss_of(tables, view.rewrite, parsed.protocol));
    }
    if rewrite::ends(&mut packet.frame(), &parsed, view.rewrite).is_none() {
        return Outcome::drop(Counter::DropMalformed);
    }
    let tags = Tags(view.tags);
    if let Err(outcome) = link::resize(packet, parsed.l3, tags, 0) {
        return outcome;
    }
    let (to, from) = (Mac::from_word(view.peer_mac), Mac::from_word(view.own_mac));
    match link::write(&mut packet.frame(), to, from, tags, F::ETHERTYPE) {
        Some(()) => link::leave(packet, view.interface, counter),
        None => Outcome::drop(Counter::DropMalformed),
    }
}

/// The most that segments of a VIP's connections may hold; 0: no limit.
#[inline(always)]
fn mss_of<F: Family>(tables: &(impl Tables + FamilyTables<F>), ends: Tuple<F>, protocol: u8) -> u16 {
    let exact = find_service(tables, ServiceKey::<F>::new(ends.source, ends.source_port, protocol));
    let found = exact.or_else(|| find_rule::<F>(tables, ends.source, ends.source_port, protocol));
    found.map_or(0, |service| service.mss)
}

/// A packet meets the record of its flow.
#[derive(Clone, Copy)]
struct Visit {
    arrival: Arrival,
    /// The record was made for this packet: nothing makes it void.
    opened: bool,
}

/// The path of a recorded flow, stamped; a pair that no longer counts is taken away.
#[inline(always)]
fn recorded<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
    Visit { arrival, opened }: Visit,
) -> Option<Path<F>> {
    let key = &request.parsed.flow_key();
    let (flow, index, owner) = flow_table::owner(tables, key)?;
    let found = flow_table::nat(tables, index)?;
    // The clock only now: the CPU reads it while it waits for the record.
    let now = tables.now();
    let is_void = !opened && is_void(tables, key, found, owner, request, now);
    if owner.state & NAT_REQUEST == 0 || is_void {
        if twin(tables, key, found).is_some() {
            remove_twin(tables, key, &found.rewrite());
        }
        flow_table::remove(tables, key);
        return None;
    }
    let server = ServerId(owner.server);
    let set = ended(request.parsed.flags);
    let digest = arrival.digest();
    let moved = owner.state & ARRIVAL != digest;
    // The packet that made the pair does not confirm it.
    let confirmed = if opened { 0 } else { request.confirmed() };
    let before = flow.touch(now, set | digest, confirmed | ARRIVAL);
    closed(tables, request.service, server, before, set);
    if moved {
        learn(found, arrival);
    }
    if (moved || owner.state & confirmed != 0)
        && let Some(twin) = twin(tables, key, found)
    {
        twin.flow.clear_state(confirmed);
        learn(twin, arrival);
    }
    if request.service.by_client && owner.seen != now {
        keep_client::<F>(tables, now);
    }
    let rewrite = request_rewrite(tables, request, flow, server)?;
    // Removed and given to another flow meanwhile?
    flow.is(key).then_some(Path { server, rewrite, recorded: false })
}

/// Stamps the record of the held packet's client, if it has one: it is not silent.
// Not inlined, and told nothing: the key would take room on the caller's stack.
#[inline(never)]
fn keep_client<F: Family>(tables: &impl FamilyTables<F>, now: Ticks) {
    let Some(Held { parsed, service, .. }) = tables.held() else { return };
    let Tuple { source, destination, .. } = parsed.tuple;
    let key = FlowKey::of_client(source, destination, parsed.protocol, service.id);
    if let Some((flow, _, _)) = flow_table::owner(tables, &key) {
        flow.touch(now, 0, 0);
    }
}

/// What requests of a recorded flow become, without a look at its half.
#[inline(always)]
fn request_rewrite<F: Family>(
    tables: &impl Tables,
    request: &Request<'_, F>,
    flow: &Flow<F>,
    server: ServerId,
) -> Option<Tuple<F>> {
    let (source_port, destination_port, nat_source) = flow.request_ends();
    let source = match request.service.mode {
        Mode::Gateway => request.parsed.tuple.source,
        _ => tables.globals()?.nat_source::<F>(nat_source)?,
    };
    Some(Tuple { source, destination: tables.server(server)?.address::<F>(), source_port, destination_port })
}

/// Whether a pair has expired, its server died, or a SYN begins a new connection over a closed one.
///
/// The other half is read only when this one's silence or a SYN leaves it in doubt.
#[inline(always)]
fn is_void<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    key: &FlowKey<F>,
    found: NatFlow<'_, F>,
    owner: Owner,
    request: &Request<'_, F>,
    now: Ticks,
) -> bool {
    if !decide::lives(tables, ServerId(owner.server)) {
        return true;
    }
    let idle = request.service.idle_ticks;
    let silent = now.since(owner.seen);
    let in_doubt = owner.state & (FIN | RST | OPENING | UNCONFIRMED) != 0;
    if !request.parsed.is_syn() && !in_doubt && silent < idle {
        return false;
    }
    let Some(twin) = twin(tables, key, found).map(|twin| twin.flow.owner()) else { return true };
    let reply_silent = now.since(twin.seen);
    if request.parsed.is_syn() && (owner.state | twin.state) & (FIN | RST) != 0 {
        return true;
    }
    let silent = if reply_silent < silent { reply_silent } else { silent };
    silent >= nat_idle_ticks(owner.state, twin.state, idle)
}

/// The other half of a pair. Once that half gave way, another flow may have its port and so its key.
#[inline(always)]
fn twin<'a, F: Family>(
    tables: &'a impl FamilyTables<F>,
    key: &FlowKey<F>,
    found: NatFlow<'_, F>,
) -> Option<NatFlow<'a, F>> {
    let twin = flow_table::nat(tables, find_twin(tables, key, &found)?)?;
    twin.rewrites_to(key.tuple().reversed()).then_some(twin)
}

// Not inlined: the key it makes would take room on the caller's stack, once for each call.
#[inline(never)]
fn find_twin<F: Family>(
    tables: &impl FamilyTables<F>,
    key: &FlowKey<F>,
    found: &NatFlow<'_, F>,
) -> Option<u32> {
    flow_table::find(tables, &key.twin(found.rewrite()))
}

/// Takes away the other half of a pair.
#[inline(never)]
fn remove_twin<F: Family>(tables: &impl FamilyTables<F>, key: &FlowKey<F>, rewrite: &Tuple<F>) {
    flow_table::remove(tables, &key.twin(*rewrite));
}

#[inline(always)]
fn learn<F: Family>(found: NatFlow<'_, F>, arrival: Arrival) {
    found.set_peer(arrival.interface, arrival.tags.0, arrival.peer_mac.0, arrival.own_mac.0);
}

/// Chooses new ends, and records the pair whole or not at all: false, when another CPU was faster with a packet of
/// this flow.
#[inline(always)]
fn pair<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    globals: &Globals,
    request: &Request<'_, F>,
    arrival: Arrival,
    id: ServerId,
) -> Result<bool, Outcome> {
    let Some(entry) = tables.server(id) else { return Err(Outcome::drop(Counter::DropTables)) };
    let nat_source = source_index(entry, spread(request));
    let half = Half { request, arrival, now: tables.now(), server: id, nat_source };
    let Reserved { rewrite, made } = reserve(tables, globals, entry, &half)?;
    let key = &request.parsed.flow_key();
    let result = half.insert(tables, key, NAT_REQUEST, rewrite);
    if matches!(result, Ok(true)) {
        tables.count(Counter::FlowRecorded);
        opened(tables, request.service, id);
    } else if made {
        remove_twin(tables, key, &rewrite);
    }
    result
}

/// What requests become, and whether the reply half was made for it: one that was there may be another CPU's.
struct Reserved<F: Family> {
    rewrite: Tuple<F>,
    made: bool,
}

/// What both halves of a pair have in common.
struct Half<'a, F: Family> {
    request: &'a Request<'a, F>,
    arrival: Arrival,
    now: Ticks,
    server: ServerId,
    /// Position among the NAT sources.
    nat_source: u32,
}

impl<F: Family> Half<'_, F> {
    /// Whether a half found its place; not, when another flow has it.
    #[inline(always)]
    fn insert(
        &self,
        tables: &impl FamilyTables<F>,
        key: &FlowKey<F>,
        direction: u32,
        rewrite: Tuple<F>,
    ) -> Result<bool, Outcome> {
        let fill = |index| {
            if let Some(found) = flow_table::nat(tables, index) {
                self.fill(found, direction, rewrite);
            }
        };
        match flow_table::insert(tables, key, self.now, fill) {
            Ok(()) => Ok(true),
            Err(InsertError::Exists) => Ok(false),
            Err(InsertError::Full) => Err(Outcome::drop(Counter::DropFlowsFull)),
        }
    }

    #[inline(always)]
    fn fill(&self, found: NatFlow<'_, F>, direction: u32, rewrite: Tuple<F>) {
        found.fill(&FlowView {
            seen: self.now,
            state: direction | self.request.state() | self.arrival.digest(),
            rewrite,
            peer_mac: self.arrival.peer_mac.0,
            own_mac: self.arrival.own_mac.0,
            interface: self.arrival.interface,
            tags: self.arrival.tags.0,
            server: self.server.0,
            nat_source: self.nat_source,
        });
    }
}

/// Inserts the reply half under the first free source port, or the client's own, and returns what requests become.
#[inline(always)]
fn reserve<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    globals: &Globals,
    entry: &ServerEntry,
    half: &Half<'_, F>,
) -> Result<Reserved<F>, Outcome> {
    let request = half.request;
    let reply = request.parsed.tuple.reversed();
    let Parsed { tuple, protocol, .. } = *request.parsed;
    let port = match entry.port() {
        Be16(0) => tuple.destination_port,
        port => port,
    };
    let mut rewrite = Tuple { destination: entry.address::<F>(), destination_port: port, ..tuple };
    let key = request.parsed.flow_key();
    if request.service.mode == Mode::Gateway {
        let twin = key.twin(rewrite);
        let made = half.insert(tables, &twin, NAT_REPLY, reply)?;
        if !made {
            // The flow's own half, which outlived the other, or another flow's.
            let found = half_of(tables, &twin, reply).ok_or(Outcome::drop(Counter::DropNatPorts))?;
            half.fill(found, NAT_REPLY, reply);
        }
        return Ok(Reserved { rewrite, made });
    }
    let start = spread(request);
    let (_, sources) = entry.nat_range();
    if sources == 0 {
        return Err(Outcome::drop(Counter::DropTables));
    }
    rewrite.source = globals.nat_source::<F>(half.nat_source).ok_or(Outcome::drop(Counter::DropTables))?;
    for attempt in 0..NAT_PORT_TRIES {
        rewrite.source_port = nat_port(start, attempt);
        // The address may be a VIP, too: a reply to a service's port would count as a request.
        if is_service(tables, &ServiceKey::<F>::new(rewrite.source, rewrite.source_port, protocol)) {
            continue;
        }
        if half.insert(tables, &key.twin(rewrite), NAT_REPLY, reply)? {
            return Ok(Reserved { rewrite, made: true });
        }
    }
    Err(Outcome::drop(Counter::DropNatPorts))
}

/// The half with this key, if that is what its packets become.
#[inline(always)]
fn half_of<'a, F: Family>(
    tables: &'a impl FamilyTables<F>,
    key: &FlowKey<F>,
    rewrite: Tuple<F>,
) -> Option<NatFlow<'a, F>> {
    let found = flow_table::nat(tables, flow_table::find(tables, key)?)?;
    found.rewrites_to(rewrite).then_some(found)
}

// Not inlined: the verifier follows its probes once, not for every port that is tried.
#[inline(never)]
fn is_service<F: Family>(tables: &impl FamilyTables<F>, key: &ServiceKey<F>) -> bool {
    find_service(tables, *key).is_some()
}

/// Where a flow's search for a port begins: another place for each flow, also of clients that stay with one server.
#[inline(always)]
fn spread<F: Family>(request: &Request<'_, F>) -> u32 {
    let Tuple { source_port, destination_port, .. } = request.parsed.tuple;
    let ports = (source_port.0 as u32) << 16 | destination_port.0 as u32;
    hash::again(if request.service.by_client { request.hash ^ ports } else { request.hash })
}

/// Which of the NAT sources a new flow gets.
#[inline(always)]
fn source_index(entry: &ServerEntry, hash: u32) -> u32 {
    match entry.nat_range() {
        (_, 0) => 0,
        (first, count) => first as u32 + nat_source_index(hash, count as u32),
    }
}

//! Chooses a server: the slot, and the record where records matter.

use lb_common::{
    counter::Counter,
    entry::{DENY, Mode, Scheduler, Scoped, Service},
    flow::{self, FIN, FlowKey, OPENING, Owner, RST, Ticks, Tuple, UNCONFIRMED},
    flow_table::{self, InsertError},
    hash::{self, FlowTuple, HashKey},
    limits::LEASTCONN_CHOICES,
    net::{Be16, Family, TCP, UDP},
    slot::{ServerId, Slot},
};

use crate::{
    header::{TCP_FIN, TCP_RST},
    parse::Parsed,
    tables::{FamilyTables, Tables},
};

/// A packet for a service, parsed and hashed.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a, F: Family> {
    pub parsed: &'a Parsed<F>,
    pub service: &'a Service,
    pub hash: u32,
}

impl<'a, F: Family> Request<'a, F> {
    #[inline(always)]
    pub(crate) fn new(key: HashKey, parsed: &'a Parsed<F>, service: &'a Service) -> Self {
        let Tuple { source, source_port, destination_port, .. } = parsed.tuple;
        let tuple = match service.by_client {
            true => FlowTuple { source, source_port: Be16(0), destination_port: Be16(0) },
            false => FlowTuple { source, source_port, destination_port },
        };
        Request { parsed, service, hash: hash::flow::<F>(key, tuple) }
    }

    /// Of the record that says whose the packet is.
    #[inline(always)]
    fn key(&self) -> FlowKey<F> {
        let Parsed { tuple, protocol, .. } = *self.parsed;
        match self.service.by_client {
            true => FlowKey::of_client(tuple.source, tuple.destination, protocol, self.service.id),
            false => self.parsed.flow_key(),
        }
    }

    /// Whether the packet counts as a connection: a TCP SYN, or the UDP packet that a record is made for.
    #[inline(always)]
    pub(crate) fn opens(&self, recorded: bool) -> bool {
        self.parsed.is_syn() || recorded && self.parsed.protocol == UDP
    }

    /// Bits of the record that the packet ends: after the SYN it shows that the client got an answer.
    #[inline(always)]
    pub(crate) fn confirmed(&self) -> u32 {
        if self.parsed.is_syn() { 0 } else { OPENING | UNCONFIRMED }
    }

    /// Begins something that no server knows of: a client's further connections are no such thing.
    #[inline(always)]
    fn is_new(&self) -> bool {
        self.parsed.is_syn() && !self.service.by_client
    }

    /// Bits of a flow's record that the packet makes.
    #[inline(always)]
    pub(crate) fn state(&self) -> u32 {
        if self.parsed.is_syn() { OPENING } else { UNCONFIRMED }
    }
}

/// Bits of the record that a packet sets.
#[inline(always)]
pub(crate) fn ended(tcp_flags: u8) -> u32 {
    let mut ended = 0;
    if tcp_flags & TCP_FIN != 0 {
        ended |= FIN;
    }
    if tcp_flags & TCP_RST != 0 {
        ended |= RST;
    }
    ended
}

/// Who gets a packet, and whether it made a record.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub server: ServerId,
    pub recorded: bool,
}

impl Choice {
    #[inline(always)]
    pub(crate) fn of(server: ServerId) -> Self {
        Choice { server, recorded: false }
    }
}

/// Nobody gets it.
pub(crate) enum Refusal {
    /// The service has no usable server.
    NoServer,
    /// No room for a record that the flow cannot do without.
    Full,
    /// Its record may be on the way from another table: the packet is repeated.
    Moving,
}

/// Whether a client may not use a service with an access list.
#[inline(always)]
pub(crate) fn denied<F: Family>(tables: &impl Tables, service: u32, client: F::Address) -> bool {
    tables.access(&Scoped::new::<F>(service, client)) == Some(DENY)
}

/// The server of a flow, recorded where that is needed. Modes that rewrite record every flow by themselves.
#[inline(always)]
pub(crate) fn choose<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
) -> Result<Choice, Refusal> {
    let pairs = request.service.mode.rewrites() && !request.service.by_client;
    match (request.service.scheduler, pairs) {
        (Scheduler::Ring, false) => by_ring(tables, request),
        (Scheduler::Ring, true) => by_slot(tables, request).map(Choice::of),
        (Scheduler::RoundRobin | Scheduler::LeastConn, false) => scheduled(tables, request),
        (Scheduler::RoundRobin | Scheduler::LeastConn, true) => turn(tables, request).map(Choice::of),
    }
}

/// The server of a flow whose slot is settled, or that has a record. None: a record is to be made.
#[inline(always)]
pub(crate) fn known<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
) -> Result<Option<ServerId>, Refusal> {
    let slot = slot(tables, request.service, request.hash)?;
    if !slot.lookup() {
        return present(slot.current()).map(Some);
    }
    let Some((flow, _, owner)) = flow_table::owner(tables, &request.key()) else { return Ok(None) };
    // The clock only now: the CPU reads it while it waits for the record.
    let now = tables.now();
    if !counts(tables, &owner, now, request) {
        return Ok(None);
    }
    flow.touch(now, 0, request.confirmed());
    Ok(Some(ServerId(owner.server)))
}

/// The server of a flow that needs a record only while its slot is unsettled.
#[inline(always)]
fn by_ring<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
) -> Result<Choice, Refusal> {
    let slot = slot(tables, request.service, request.hash)?;
    if !slot.lookup() {
        return present(slot.current()).map(Choice::of);
    }
    let key = request.key();
    let now = tables.now();
    if let Some(server) = recorded(tables, request, &key, now, 0) {
        return Ok(Choice::of(server));
    }
    wait_for_record(tables, request)?;
    let base_lives = lives(tables, slot.base());
    let id = present(slot.owner(request.is_new(), base_lives))?;
    match record(tables, request, &key, id, now) {
        Ok(()) => {
            tables.count(Counter::FlowRecorded);
            Ok(Choice { server: id, recorded: true })
        }
        Err(InsertError::Exists) => Ok(Choice::of(id)),
        Err(InsertError::Full) => {
            tables.count(Counter::FlowUnrecorded);
            refused(tables, request.service.id, now);
            present(if base_lives { slot.base() } else { slot.current() }).map(Choice::of)
        }
    }
}

/// The server of a flow that is recorded as a pair, and is not yet. One of `nat` is new; one of `gateway` may be
/// older than any record, and then belongs to its slot's base.
#[inline(always)]
fn by_slot<F: Family>(tables: &impl Tables, request: &Request<'_, F>) -> Result<ServerId, Refusal> {
    let slot = slot(tables, request.service, request.hash)?;
    wait_for_record(tables, request)?;
    let opening = request.is_new() || request.service.mode == Mode::Nat || !slot.lookup();
    present(slot.owner(opening, opening || lives(tables, slot.base())))
}

/// The server of a flow of a service whose scheduler is no hash: every flow is recorded.
#[inline(always)]
fn scheduled<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
) -> Result<Choice, Refusal> {
    let key = request.key();
    let now = tables.now();
    // A client's record beside pairs: those are counted.
    let counts = !request.service.mode.rewrites();
    let set = if counts && !request.service.by_client { ended(request.parsed.flags) } else { 0 };
    if let Some(server) = recorded(tables, request, &key, now, set) {
        return Ok(Choice::of(server));
    }
    wait_for_record(tables, request)?;
    let id = turn(tables, request)?;
    match record(tables, request, &key, id, now) {
        Ok(()) => {
            tables.count(Counter::FlowRecorded);
            if counts {
                opened(tables, request.service, id);
            }
            Ok(Choice { server: id, recorded: true })
        }
        Err(InsertError::Exists) => Ok(Choice::of(id)),
        Err(InsertError::Full) => {
            refused(tables, request.service.id, now);
            Err(Refusal::Full)
        }
    }
}

/// While records move to another table, only what begins something goes on without one.
#[inline(always)]
fn wait_for_record<F: Family>(tables: &impl Tables, request: &Request<'_, F>) -> Result<(), Refusal> {
    let moving = tables.globals().is_some_and(|globals| globals.is_moving());
    if moving && !request.is_new() { Err(Refusal::Moving) } else { Ok(()) }
}

/// A flow goes on without a record: the slots of its service do not forget whose it is.
#[inline(always)]
pub(crate) fn refused(tables: &impl Tables, service: u32, now: Ticks) {
    if let Some(at) = tables.refused(service) {
        at.set(now.stamp());
    }
}

/// Who is next. What no SYN began was somebody's before: the ring says whose, on every node alike. So was a datagram
/// without a record while its slot is unsettled.
#[inline(always)]
fn turn<F: Family>(tables: &impl Tables, request: &Request<'_, F>) -> Result<ServerId, Refusal> {
    let service = request.service;
    let by_ring = matches!(service.scheduler, Scheduler::Ring);
    if by_ring || !request.parsed.is_syn() {
        let slot = slot(tables, service, request.hash)?;
        if by_ring || request.parsed.protocol == TCP || slot.lookup() {
            return present(slot.owner(false, slot.lookup() && lives(tables, slot.base())));
        }
    }
    let turns = tables.turns(service.id).ok_or(Refusal::NoServer)?;
    match service.scheduler {
        Scheduler::LeastConn => {
            let first = turns.add(LEASTCONN_CHOICES as u64) as u32;
            least_loaded(tables, service, first)
        }
        Scheduler::Ring | Scheduler::RoundRobin => {
            present(slot(tables, service, turns.add(1) as u32)?.current())
        }
    }
}

/// Of the servers of the next slots, the one with the fewest connections for its weight.
#[inline(always)]
fn least_loaded(tables: &impl Tables, service: &Service, first: u32) -> Result<ServerId, Refusal> {
    let mut best = ServerId::NONE;
    let (mut best_load, mut best_weight) = (0, 0);
    for step in 0..LEASTCONN_CHOICES {
        let id = slot(tables, service, first.wrapping_add(step))?.current();
        let Some(entry) = tables.server(id) else { continue };
        let Some(load) = tables.load(id) else { continue };
        let load = at_least_none(load.get());
        let weight = entry.weight() as u64;
        if best.is_none() || (load + 1) * best_weight < (best_load + 1) * weight {
            (best, best_load, best_weight) = (id, load, weight);
        }
    }
    present(best)
}

/// A number of connections that is below zero for a moment, because a sweep and a packet counted the same end.
#[inline(always)]
fn at_least_none(load: u64) -> u64 {
    if load >> 63 != 0 { 0 } else { load }
}

/// Counts a connection of a leastconn service.
#[inline(always)]
pub(crate) fn opened(tables: &impl Tables, service: &Service, id: ServerId) {
    if matches!(service.scheduler, Scheduler::LeastConn)
        && let Some(load) = tables.load(id)
    {
        load.add(1);
    }
}

/// Counts one less, for the first packet that ends it; the daemon's sweep sets right what two CPUs count twice.
#[inline(always)]
pub(crate) fn closed(tables: &impl Tables, service: &Service, id: ServerId, before: u32, set: u32) {
    if matches!(service.scheduler, Scheduler::LeastConn)
        && set != 0
        && before & (FIN | RST) == 0
        && let Some(load) = tables.load(id)
        && at_least_none(load.get()) != 0
    {
        load.add(u64::MAX);
    }
}

/// Who would get a packet, without leaving a trace.
#[inline(always)]
pub(crate) fn peek<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
) -> Result<ServerId, Refusal> {
    let slot = slot(tables, request.service, request.hash)?;
    let by_ring = matches!(request.service.scheduler, Scheduler::Ring);
    if by_ring && !slot.lookup() {
        return present(slot.current());
    }
    if let Some((_, _, owner)) = flow_table::owner(tables, &request.key())
        && counts(tables, &owner, tables.now(), request)
    {
        return Ok(ServerId(owner.server));
    }
    match by_ring {
        true => present(slot.owner(false, lives(tables, slot.base()))),
        false => Err(Refusal::NoServer),
    }
}

/// The server of the flow's record, stamped; a record that no longer counts is taken away.
#[inline(always)]
fn recorded<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    request: &Request<'_, F>,
    key: &FlowKey<F>,
    now: Ticks,
    set: u32,
) -> Option<ServerId> {
    let (flow, _, owner) = flow_table::owner(tables, key)?;
    let again = request.is_new() && owner.state & (FIN | RST) != 0;
    if counts(tables, &owner, now, request) && !again {
        let before = flow.touch(now, set, request.confirmed());
        closed(tables, request.service, ServerId(owner.server), before, set);
        return Some(ServerId(owner.server));
    }
    flow_table::remove(tables, key);
    None
}

/// A slot of a service's ring. One outside the ring map is a fault of the daemon and counts as empty.
#[inline(always)]
fn slot(tables: &impl Tables, service: &Service, number: u32) -> Result<Slot, Refusal> {
    let index = service.ring_base.wrapping_add(number & service.ring_mask);
    tables.slot(index).ok_or(Refusal::NoServer)
}

#[inline(always)]
fn present(id: ServerId) -> Result<ServerId, Refusal> {
    if id.is_none() { Err(Refusal::NoServer) } else { Ok(id) }
}

#[inline(always)]
pub(crate) fn lives(tables: &impl Tables, id: ServerId) -> bool {
    !id.is_none() && tables.server(id).is_some_and(|entry| entry.lives())
}

/// A record counts while it is younger than its idle time and its server lives.
#[inline(always)]
fn counts<F: Family>(tables: &impl Tables, owner: &Owner, now: Ticks, request: &Request<'_, F>) -> bool {
    let service = request.service;
    let longest = if service.by_client { service.client_ticks } else { service.idle_ticks };
    let idle = flow::idle_ticks(owner.state, longest);
    let Some(entry) = tables.server(ServerId(owner.server)) else { return false };
    // On a server that drains only a SYN's own repetition stays: a client's port may come back for ever.
    let drained = request.is_new() && owner.state & OPENING == 0 && entry.weight() == 0;
    owner.server != 0 && entry.lives() && !drained && now.since(owner.seen) < idle
}

#[inline(always)]
fn record<F: Family>(
    tables: &impl FamilyTables<F>,
    request: &Request<'_, F>,
    key: &FlowKey<F>,
    id: ServerId,
    now: Ticks,
) -> Result<(), InsertError> {
    // A client's further connections are of no less weight than its first.
    let state = if request.service.by_client { 0 } else { request.state() };
    let owner = Owner { server: id.0, seen: now, state };
    flow_table::insert(tables, key, now, |index| {
        if let Some(flow) = tables.flow_record(index) {
            flow.fill(owner);
        }
    })
}

//! Chooses a server: the slot, and the record where records matter.

use lb_common::{
    counter::Counter,
    entry::Service,
    flow::{Flow, FlowView, OPENING, Ticks, Tuple},
    flow_table::{self, InsertError},
    net::{Be16, Be32, UDP},
    slot::{ServerId, Slot},
};

use crate::{
    parse::{Parsed, Transport},
    tables::Tables,
};

/// A packet for a service, parsed and hashed.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub parsed: &'a Parsed,
    pub transport: Transport,
    pub service: Service,
    pub hash: u32,
}

impl Request<'_> {
    /// Whether the packet counts as a connection: a TCP SYN, or the UDP packet that a record is made for.
    #[inline(always)]
    pub(crate) fn opens(&self, recorded: bool) -> bool {
        self.transport.is_syn() || recorded && self.parsed.protocol == UDP
    }

    /// Bits of the record that the packet ends: after the SYN it shows that the client got an answer.
    #[inline(always)]
    pub(crate) fn confirmed(&self) -> u32 {
        if self.transport.is_syn() { 0 } else { OPENING }
    }
}

/// Who gets a packet, and whether it made a record.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    pub server: ServerId,
    pub recorded: bool,
}

/// The service has no usable server.
pub(crate) struct NoServer;

/// The server of a flow that needs a record only while its slot is unsettled.
#[inline(always)]
pub(crate) fn server(tables: &impl Tables, request: &Request<'_>) -> Result<Choice, NoServer> {
    let slot = slot(tables, request)?;
    let unrecorded = |server| Choice { server, recorded: false };
    if !slot.lookup() {
        return present(slot.current()).map(unrecorded);
    }
    let key = request.parsed.flow_key();
    let now = tables.now();
    if let Some((flow, view)) = flow_table::read(tables, &key) {
        if counts(tables, &view, now, request) {
            flow.touch(now, 0, request.confirmed());
            return Ok(unrecorded(ServerId(view.server)));
        }
        flow_table::remove(tables, &key);
    }
    let base_lives = lives(tables, slot.base());
    let id = present(slot.owner(request.transport.is_syn(), base_lives))?;
    let state = if request.transport.is_syn() { OPENING } else { 0 };
    match flow_table::insert(tables, &key, &record(id, now, state)) {
        Ok(()) => {
            tables.count(Counter::FlowRecorded);
            Ok(Choice { server: id, recorded: true })
        }
        Err(InsertError::Exists) => Ok(unrecorded(id)),
        Err(InsertError::Full) => {
            tables.count(Counter::FlowUnrecorded);
            present(if base_lives { slot.base() } else { slot.current() }).map(unrecorded)
        }
    }
}

/// The slot of a request. A slot outside the ring map is a fault of the daemon and counts as empty.
#[inline(always)]
pub(crate) fn slot(tables: &impl Tables, request: &Request<'_>) -> Result<Slot, NoServer> {
    let index = request.service.ring_base.wrapping_add(request.hash & request.service.ring_mask);
    tables.slot(index).ok_or(NoServer)
}

#[inline(always)]
pub(crate) fn present(id: ServerId) -> Result<ServerId, NoServer> {
    if id.is_none() { Err(NoServer) } else { Ok(id) }
}

#[inline(always)]
pub(crate) fn lives(tables: &impl Tables, id: ServerId) -> bool {
    !id.is_none() && tables.server(id).is_some_and(|entry| entry.lives())
}

/// A record counts while it is younger than its idle time and its server lives.
#[inline(always)]
fn counts(tables: &impl Tables, view: &FlowView, now: Ticks, request: &Request<'_>) -> bool {
    let idle = Flow::idle_ticks(view.state, request.service.idle_ticks);
    now.since(view.seen) < idle && lives(tables, ServerId(view.server))
}

#[inline(always)]
fn record(id: ServerId, now: Ticks, state: u32) -> FlowView {
    const NOT_REWRITTEN: Tuple =
        Tuple { source: Be32(0), destination: Be32(0), source_port: Be16(0), destination_port: Be16(0) };
    FlowView { server: id.0, seen: now, state, interface: 0, rewrite: NOT_REWRITTEN, peer_mac: 0, own_mac: 0 }
}

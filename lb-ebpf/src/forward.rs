//! The order of the steps, and every way out.

use lb_common::{
    counter::{COUNTS, Counter},
    entry::{Mode, Service},
    hash::{self, FlowTuple},
};

use crate::{
    decide::{self, Choice, Request},
    nat,
    parse::{self, Parsed},
    reset, rewrite,
    tables::{Packet, Tables, find_service},
};

/// What becomes of a packet, and the counter that names the reason: one word, since the kernel half passes
/// it through every branch of the program.
///
/// ```text
///  63..32     9..8    4..0
///  interface  action  counter
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Outcome(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To the kernel, untouched.
    Pass,
    Drop,
    /// Out of the interface it came in by.
    Transmit,
    /// Out of another interface, given by its index.
    Redirect(u32),
}

impl Outcome {
    #[inline(always)]
    pub const fn pass(counter: Counter) -> Self {
        Outcome(counter as u64)
    }

    #[inline(always)]
    pub const fn drop(counter: Counter) -> Self {
        Outcome(counter as u64 | 1 << ACTION_SHIFT)
    }

    #[inline(always)]
    pub const fn transmit(counter: Counter) -> Self {
        Outcome(counter as u64 | 2 << ACTION_SHIFT)
    }

    #[inline(always)]
    pub const fn redirect(counter: Counter, interface: u32) -> Self {
        Outcome(counter as u64 | 3 << ACTION_SHIFT | (interface as u64) << 32)
    }

    #[inline(always)]
    pub const fn action(self) -> Action {
        match self.0 >> ACTION_SHIFT & 3 {
            0 => Action::Pass,
            1 => Action::Drop,
            2 => Action::Transmit,
            _ => Action::Redirect((self.0 >> 32) as u32),
        }
    }

    /// Index of the counter, within `COUNTS` by its bits.
    #[inline(always)]
    pub const fn counter(self) -> usize {
        self.0 as usize & (COUNTS - 1)
    }
}

impl core::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = Counter::ALL.get(self.counter()).map_or("?", |counter| counter.name());
        write!(f, "{:?} {name}", self.action())
    }
}

const ACTION_SHIFT: u32 = 8;

/// The whole data path.
#[inline(always)]
pub fn forward(packet: &mut impl Packet, tables: &impl Tables) -> Outcome {
    let parsed = match parse::parse(&mut packet.frame()) {
        Ok(parsed) => parsed,
        Err(outcome) => return outcome,
    };
    let found = find_service(tables, parsed.service_key());
    match found {
        Some(service) => to_server(packet, tables, &parsed, service),
        None => nat::reply(packet, tables, &parsed),
    }
}

#[inline(always)]
fn to_server(packet: &mut impl Packet, tables: &impl Tables, parsed: &Parsed, service: Service) -> Outcome {
    let transport = match parse::transport(&mut packet.frame(), parsed) {
        Ok(transport) => transport,
        Err(outcome) => return outcome,
    };
    let Some(globals) = tables.globals() else { return Outcome::drop(Counter::DropTables) };
    let hash = hash::flow(
        globals.hash_key(),
        FlowTuple {
            source: parsed.tuple.source,
            source_port: parsed.tuple.source_port,
            destination_port: parsed.tuple.destination_port,
        },
    );
    let request = Request { parsed, transport, service, hash };
    match service.mode {
        Mode::Dsr => match decide::server(tables, &request) {
            Ok(choice) => direct(packet, tables, &request, choice),
            Err(decide::NoServer) => no_server(packet, &request),
        },
        Mode::Nat => match nat::request(packet, tables, globals, &request) {
            Ok(outcome) => outcome,
            Err(decide::NoServer) => no_server(packet, &request),
        },
    }
}

/// `dsr`: the server is reached by its MAC address and answers the client itself.
#[inline(always)]
fn direct(packet: &mut impl Packet, tables: &impl Tables, request: &Request<'_>, choice: Choice) -> Outcome {
    let Some(entry) = tables.server(choice.server) else { return Outcome::drop(Counter::DropTables) };
    let hop = entry.load().hop;
    if !hop.resolved {
        return Outcome::drop(Counter::DropUnresolved);
    }
    let mut frame = packet.frame();
    if rewrite::link(&mut frame, hop.mac, hop.source_mac).is_none() || rewrite::hop(&mut frame).is_none() {
        return Outcome::drop(Counter::DropMalformed);
    }
    let opens = request.opens(choice.recorded);
    tables.count_server(choice.server, request.parsed.total_length as u32, opens);
    leave(packet, hop.interface, Counter::ForwardDsr)
}

#[inline(always)]
pub(crate) fn leave(packet: &impl Packet, interface: u32, counter: Counter) -> Outcome {
    if interface == packet.interface() {
        Outcome::transmit(counter)
    } else {
        Outcome::redirect(counter, interface)
    }
}

#[inline(always)]
fn no_server(packet: &mut impl Packet, request: &Request<'_>) -> Outcome {
    if request.service.reset {
        reset::refuse(packet, request.parsed, Counter::ResetNoServer, Counter::DropNoServer)
    } else {
        Outcome::drop(Counter::DropNoServer)
    }
}

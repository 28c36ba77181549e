//! Fragments: the first of a datagram has the ports, the others follow it.

use lb_common::{
    counter::Counter,
    entry::ServiceKey,
    fragment::{FRAGMENT_TICKS, FragmentEntry, FragmentKey},
    net::{Be128, Family},
};

use crate::{
    forward::Outcome,
    ip::Part,
    parse::Parsed,
    tables::{FamilyTables, Tables, find_rule, find_service},
};

/// Notes where the fragments after this packet belong, if it is the first.
#[inline(always)]
pub(crate) fn remember<F: Family>(tables: &impl Tables, parsed: &Parsed<F>, id: u32) {
    if parsed.part == Part::First {
        let entry = FragmentEntry {
            source_port: parsed.tuple.source_port,
            destination_port: parsed.tuple.destination_port,
            seen: tables.now(),
        };
        tables.keep_fragment(&key(parsed, id), &entry);
    }
}

/// The packet with the ports of its datagram.
#[inline(always)]
pub(crate) fn recall<F: Family>(
    tables: &(impl Tables + FamilyTables<F>),
    mut parsed: Parsed<F>,
    id: u32,
) -> Result<Parsed<F>, Outcome> {
    let known = tables.fragment(&key(&parsed, id));
    match known.filter(|known| tables.now().since(known.seen) < FRAGMENT_TICKS) {
        Some(known) => {
            parsed.tuple.source_port = known.source_port;
            parsed.tuple.destination_port = known.destination_port;
            Ok(parsed)
        }
        None if is_vip::<F>(tables, parsed.tuple.destination) => Err(Outcome::drop(Counter::DropFragment)),
        None => Err(Outcome::pass(Counter::PassFragment)),
    }
}

/// Whether an address is a service's, on whatever port.
#[inline(always)]
pub(crate) fn is_vip<F: Family>(tables: &(impl Tables + FamilyTables<F>), address: F::Address) -> bool {
    let key = ServiceKey::<F>::of_vip(address);
    find_service(tables, key).is_some()
        || tables.globals().is_some_and(|globals| globals.has_wildcards())
            && find_rule::<F>(tables, address, key.port(), F::ICMP).is_some()
}

#[inline(always)]
fn key<F: Family>(parsed: &Parsed<F>, id: u32) -> FragmentKey {
    let Be128(source) = F::mapped(parsed.tuple.source);
    let Be128(destination) = F::mapped(parsed.tuple.destination);
    FragmentKey { source, destination, id, protocol: parsed.protocol as u32 }
}

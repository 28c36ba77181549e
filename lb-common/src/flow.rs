//! Flow records: which server a connection belongs to, and what a NAT flow is rewritten to.
//!
//! ```text
//! request  client:port -> vip:port        rewritten to  nat:port -> server:port
//! reply    server:port -> nat:port        rewritten to  vip:port -> client:port
//! ```
//!
//! The key of each half is the reversed rewrite of the other, so either finds its twin.

use crate::{
    limits::{NAT_PORT_FIRST, NAT_PORT_LAST, NAT_SOURCES_MAX, SERVERS_MAX},
    net::{Be16, Family, V4, V6},
    word::{SharedWords, Word, Words},
};

/// Time in units of 2^27 ns (134 ms) since boot: fine enough for timeouts, and a record's stamp changes
/// seldom enough that a packet rarely writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticks(pub u32);

pub const TICK_SHIFT: u32 = 27;

impl Ticks {
    #[inline(always)]
    pub const fn from_ns(ns: u64) -> Self {
        Ticks((ns >> TICK_SHIFT) as u32)
    }

    /// Ticks from `earlier` to here; a stamp another CPU just wrote may be ahead, and counts as now.
    #[inline(always)]
    pub const fn since(self, earlier: Ticks) -> u32 {
        let passed = self.0.wrapping_sub(earlier.0);
        if passed > u32::MAX / 2 { 0 } else { passed }
    }

    /// The time as a word of its own, of which 0 says that there is none.
    #[inline(always)]
    pub const fn stamp(self) -> u64 {
        self.0 as u64 | STAMPED
    }

    /// What `stamp` made; None: never.
    pub const fn of_stamp(word: u64) -> Option<Ticks> {
        if word & STAMPED == 0 { None } else { Some(Ticks(word as u32)) }
    }

    /// Whole ticks in a number of milliseconds, at least one.
    pub const fn in_ms(ms: u64) -> u32 {
        let ticks = ms.saturating_mul(1_000_000) >> TICK_SHIFT;
        if ticks == 0 {
            1
        } else if ticks > (u32::MAX / 4) as u64 {
            u32::MAX / 4
        } else {
            ticks as u32
        }
    }
}

const STAMPED: u64 = 1 << 32;

/// Ends of one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C, align(8))]
pub struct Tuple<F: Family = V4> {
    pub source: F::Address,
    pub destination: F::Address,
    pub source_port: Be16,
    pub destination_port: Be16,
}

impl<F: Family> Tuple<F> {
    /// Source first.
    #[inline(always)]
    fn addresses(self) -> F::Pair {
        F::pair(self.source, self.destination)
    }

    /// Source low.
    #[inline(always)]
    fn ports(self) -> u32 {
        self.source_port.0 as u32 | (self.destination_port.0 as u32) << 16
    }

    #[inline(always)]
    fn from_words(addresses: F::Pair, ports: u32) -> Self {
        let (source, destination) = F::unpair(addresses);
        Tuple {
            source,
            destination,
            source_port: Be16(ports as u16),
            destination_port: Be16((ports >> 16) as u16),
        }
    }

    #[inline(always)]
    pub fn reversed(self) -> Self {
        Tuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Key of a flow table: the first words of a record. The last is never 0, so that a record without a key is told
/// from any other.
///
/// ```text
///  63    62..56  55..40             39..32    31..16            15..0
///  used  zero    service id and 1,  protocol  destination port  source port
///                if by client
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey<F: Family = V4> {
    addresses: F::Pair,
    rest: u64,
}

impl<F: Family> FlowKey<F> {
    #[inline(always)]
    pub fn new(tuple: Tuple<F>, protocol: u8) -> Self {
        let rest = tuple.ports() as u64 | (protocol as u64) << 32 | KEY_USED;
        FlowKey { addresses: tuple.addresses(), rest }
    }

    /// All flows of one client with one service.
    #[inline(always)]
    pub fn of_client(client: F::Address, vip: F::Address, protocol: u8, service: u32) -> Self {
        let rest = (protocol as u64) << 32 | (service as u64 + 1) << 40 | KEY_USED;
        FlowKey { addresses: F::pair(client, vip), rest }
    }

    #[inline(always)]
    pub fn addresses(&self) -> F::Pair {
        self.addresses
    }

    #[inline(always)]
    pub fn rest(&self) -> u64 {
        self.rest
    }

    pub fn tuple(&self) -> Tuple<F> {
        Tuple::from_words(self.addresses, self.rest as u32)
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.rest >> 32) as u8
    }

    /// Stands for all flows of a client: the ports say nothing.
    pub fn is_of_client(&self) -> bool {
        self.rest >> 40 & 0xffff != 0
    }

    /// The key of the other half of a NAT flow whose packets are rewritten to `rewrite`.
    #[inline(always)]
    pub fn twin(&self, rewrite: Tuple<F>) -> FlowKey<F> {
        FlowKey::new(rewrite.reversed(), self.protocol())
    }
}

type Shared<W> = <W as Words>::Shared;

/// A flow record: half a cache line for IPv4, a whole one for IPv6. Removed and reused at any time, so every word is
/// shared. What only flows that are rewritten have stands apart: records so small stay in the caches twice as long.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Flow<F: Family = V4> {
    addresses: Shared<F::Pair>,
    /// The rest of the key: written last and cleared first.
    key: Word,
    /// `Ticks` of the last packet in this direction, and above them the bits below.
    clock: Word,
    /// The ports that packets of a NAT half get, source lowest; the server's id; and which of the NAT sources requests
    /// get, in the highest byte: with the server's address that is all a request needs.
    ports_server: Word,
}

/// What a half of a NAT flow has beside its record, under the same index.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct Half<F: Family = V4> {
    /// The addresses that packets get, source first.
    addresses: Shared<F::Pair>,
    /// The client side's next hop, our own address towards it, the interface it arrives on, and above it the VLAN
    /// tags.
    peer_mac: Word,
    own_mac: Word,
    interface: Word,
}

impl<F: Family> Default for Flow<F> {
    fn default() -> Self {
        let word = || Word::new(0);
        Flow { addresses: SharedWords::ZERO, key: word(), clock: word(), ports_server: word() }
    }
}

impl<F: Family> Default for Half<F> {
    fn default() -> Self {
        let word = || Word::new(0);
        Half { addresses: SharedWords::ZERO, peer_mac: word(), own_mac: word(), interface: word() }
    }
}

const KEY_USED: u64 = 1 << 63;
const SERVER_BITS: u32 = 24;
const SERVER_MASK: u32 = (1 << SERVER_BITS) - 1;

/// Made by a SYN, and no later packet of the client seen yet. On both halves of a NAT flow.
pub const OPENING: u32 = 1;
/// A FIN passed in this direction.
pub const FIN: u32 = 1 << 1;
/// A RST passed in this direction.
pub const RST: u32 = 1 << 2;
/// The client's half of a NAT flow.
pub const NAT_REQUEST: u32 = 1 << 3;
/// The server's half of a NAT flow.
pub const NAT_REPLY: u32 = 1 << 4;
/// Made without a SYN, and no later packet of the client seen yet: in a full bucket such a record gives way, as a
/// half-open one does, but it lives as long as any other. On both halves of a NAT flow.
pub const UNCONFIRMED: u32 = 1 << 5;
/// Of the client's half of a NAT flow: a digest of where its packets arrive, so that a packet shows a change without a
/// look at the other half.
pub const ARRIVAL: u32 = 0xffff_0000;

/// How long a record counts that a SYN made and no later packet confirmed (LVS: syn_recv).
pub const OPENING_TICKS: u32 = Ticks::in_ms(60_000);
/// One side closed: RFC 5382, section 5, allows transitory connections four minutes.
pub const CLOSING_TICKS: u32 = Ticks::in_ms(240_000);
/// Both sides closed: time for the last acknowledgment to be repeated. Short, since a closed flow holds its NAT
/// port (DPVS: 7 s).
pub const CLOSED_TICKS: u32 = Ticks::in_ms(10_000);
/// After a RST: time for its retransmissions.
pub const RESET_TICKS: u32 = Ticks::in_ms(10_000);

/// The values of a record, read once. Laid out so that what the compiler reads together, and the verifier then
/// wants aligned on the stack, is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct FlowView<F: Family = V4> {
    pub seen: Ticks,
    pub state: u32,
    pub rewrite: Tuple<F>,
    pub peer_mac: u64,
    pub own_mac: u64,
    pub interface: u32,
    /// See `Tags`.
    pub tags: u32,
    pub server: u32,
    /// Position among the NAT sources.
    pub nat_source: u32,
}

impl<F: Family> Flow<F> {
    #[inline(always)]
    pub fn is(&self, key: &FlowKey<F>) -> bool {
        self.addresses.differs(key.addresses) | (self.key.get() ^ key.rest) == 0
    }

    /// None: the place is free, or its record is being written.
    #[inline(always)]
    pub fn key(&self) -> Option<FlowKey<F>> {
        let key = FlowKey { addresses: self.addresses.load(), rest: self.key.get() };
        (key.rest & KEY_USED != 0).then_some(key)
    }

    /// Fills a place that is the caller's, for a flow that is not rewritten.
    #[inline(always)]
    pub fn fill(&self, owner: Owner) {
        self.clock.set(owner.seen.0 as u64 | (owner.state as u64) << 32);
        self.ports_server.set((owner.server as u64) << 32);
    }

    #[inline(always)]
    pub(crate) fn publish(&self, key: &FlowKey<F>) {
        self.addresses.store(key.addresses);
        // A full barrier: whoever looks for others with this key afterwards has shown its own.
        self.key.swap(key.rest);
    }

    /// Whether the record stood under this key and no longer does: true for one caller, who then owns the place.
    #[inline(always)]
    pub(crate) fn withdraw(&self, key: &FlowKey<F>) -> bool {
        self.is(key) && self.key.compare_exchange(key.rest, 0)
    }

    /// What every record says: its server, its stamp and its bits.
    #[inline(always)]
    pub fn owner(&self) -> Owner {
        let clock = self.clock.get();
        Owner {
            server: (self.ports_server.get() >> 32) as u32 & SERVER_MASK,
            seen: Ticks(clock as u32),
            state: (clock >> 32) as u32,
        }
    }

    /// The ports that requests of a NAT flow get, source first, and the position of their source address.
    #[inline(always)]
    pub fn request_ends(&self) -> (Be16, Be16, u32) {
        let word = self.ports_server.get();
        (Be16(word as u16), Be16((word >> 16) as u16), (word >> 56) as u32)
    }

    /// Stamps the record and changes its bits, writing only a change; returns the bits before. Two CPUs that see
    /// packets of one direction at once may lose a bit; the record then only lives longer.
    #[inline(always)]
    pub fn touch(&self, now: Ticks, set: u32, clear: u32) -> u32 {
        let old = self.clock.get();
        let state = (old >> 32) as u32 & !clear | set;
        let new = now.0 as u64 | (state as u64) << 32;
        if new != old {
            self.clock.set(new);
        }
        (old >> 32) as u32
    }

    /// Changes bits without stamping the record.
    #[inline(always)]
    pub fn clear_state(&self, clear: u32) {
        self.clock.set(self.clock.get() & !((clear as u64) << 32));
    }

    /// Makes the record one that does not give way, and loses no stamp that a packet sets meanwhile. False: packets
    /// came faster than that, or there was nothing to do.
    pub fn confirm(&self) -> bool {
        const TRIES: u32 = 4;
        let bit = (UNCONFIRMED as u64) << 32;
        (0..TRIES).any(|_| {
            let old = self.clock.get();
            old & bit != 0 && self.clock.compare_exchange(old, old & !bit)
        })
    }

    /// The key of a record that was made at least `ticks` ago and that nobody confirmed since.
    #[inline(always)]
    pub(crate) fn half_open_since(&self, now: Ticks, ticks: u32) -> Option<FlowKey<F>> {
        let key = self.key()?;
        let clock = self.clock.get();
        let half_open =
            (clock >> 32) as u32 & (OPENING | UNCONFIRMED) != 0 && now.since(Ticks(clock as u32)) >= ticks;
        half_open.then_some(key)
    }
}

/// A half of a NAT flow: its record, and what it is rewritten to.
#[derive(Debug, Clone, Copy)]
pub struct NatFlow<'a, F: Family> {
    pub flow: &'a Flow<F>,
    pub half: &'a Half<F>,
}

impl<F: Family> NatFlow<'_, F> {
    /// Fills a place that is the caller's.
    #[inline(always)]
    pub fn fill(&self, view: &FlowView<F>) {
        self.flow.clock.set(view.seen.0 as u64 | (view.state as u64) << 32);
        let server = view.server & SERVER_MASK | view.nat_source << SERVER_BITS;
        self.flow.ports_server.set(view.rewrite.ports() as u64 | (server as u64) << 32);
        self.half.addresses.store(view.rewrite.addresses());
        self.set_peer(view.interface, view.tags, view.peer_mac, view.own_mac);
    }

    #[inline(always)]
    pub fn view(&self) -> FlowView<F> {
        let clock = self.flow.clock.get();
        let interface = self.half.interface.get();
        let server = (self.flow.ports_server.get() >> 32) as u32;
        FlowView {
            seen: Ticks(clock as u32),
            state: (clock >> 32) as u32,
            rewrite: self.rewrite(),
            peer_mac: self.half.peer_mac.get(),
            own_mac: self.half.own_mac.get(),
            interface: interface as u32,
            tags: (interface >> 32) as u32,
            server: server & SERVER_MASK,
            nat_source: server >> SERVER_BITS,
        }
    }

    /// What the half's packets become.
    #[inline(always)]
    pub fn rewrite(&self) -> Tuple<F> {
        Tuple::from_words(self.half.addresses.load(), self.flow.ports_server.get() as u32)
    }

    /// Whether the half's packets become `tuple`.
    #[inline(always)]
    pub fn rewrites_to(&self, tuple: Tuple<F>) -> bool {
        self.flow.ports_server.get() as u32 == tuple.ports() && self.half.addresses.is(tuple.addresses())
    }

    /// Where replies go.
    #[inline(always)]
    pub fn set_peer(&self, interface: u32, tags: u32, peer_mac: u64, own_mac: u64) {
        self.half.interface.set(interface as u64 | (tags as u64) << 32);
        self.half.peer_mac.set(peer_mac);
        self.half.own_mac.set(own_mac);
    }
}

/// See `Flow::owner`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub server: u32,
    pub seen: Ticks,
    pub state: u32,
}

/// Ticks of silence after which a record that is not rewritten is void, given the service's idle time.
#[inline(always)]
pub fn idle_ticks(state: u32, idle_ticks: u32) -> u32 {
    let own = if state & RST != 0 {
        RESET_TICKS
    } else if state & FIN != 0 {
        CLOSING_TICKS
    } else if state & OPENING != 0 {
        OPENING_TICKS
    } else {
        idle_ticks
    };
    if own < idle_ticks { own } else { idle_ticks }
}

/// The source port a NAT flow tries at its `attempt`, given `hash::again` of its hash. Candidates are spread
/// over the range, so that a full stretch is left at once.
#[inline(always)]
pub const fn nat_port(hash: u32, attempt: u32) -> Be16 {
    const PORTS: u32 = NAT_PORT_LAST as u32 - NAT_PORT_FIRST as u32 + 1;
    const STRIDE: u32 = 10_007;
    const _: () = assert!(
        !PORTS.is_multiple_of(STRIDE),
        "a prime stride that does not divide the range visits every port"
    );
    Be16::new(NAT_PORT_FIRST + ((hash % PORTS + attempt * STRIDE) % PORTS) as u16)
}

/// Which of `count` NAT source addresses a flow uses; `count` is not zero.
#[inline(always)]
pub const fn nat_source_index(hash: u32, count: u32) -> u32 {
    (hash >> 16) % count
}

/// Ticks of silence after which a NAT flow is void, from the bits of both halves.
pub const fn nat_idle_ticks(request: u32, reply: u32, idle_ticks: u32) -> u32 {
    let own = if (request | reply) & RST != 0 {
        RESET_TICKS
    } else if request & FIN != 0 && reply & FIN != 0 {
        CLOSED_TICKS
    } else if (request | reply) & FIN != 0 {
        CLOSING_TICKS
    } else if request & OPENING != 0 {
        OPENING_TICKS
    } else {
        idle_ticks
    };
    if own < idle_ticks { own } else { idle_ticks }
}

const _: () = assert!(SERVERS_MAX <= 1 << SERVER_BITS && NAT_SOURCES_MAX <= 1 << (32 - SERVER_BITS));
const _: () = assert!(size_of::<Flow<V4>>() == 32 && size_of::<Half<V4>>() == 32);
const _: () = assert!(size_of::<Flow<V6>>() == 64 && size_of::<Half<V6>>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Be32;

    #[test]
    fn a_key_and_its_twin_name_each_other() {
        let request: Tuple =
            Tuple { source: Be32(1), destination: Be32(2), source_port: Be16(3), destination_port: Be16(4) };
        let rewritten =
            Tuple { source: Be32(5), destination: Be32(6), source_port: Be16(7), destination_port: Be16(8) };
        let key = FlowKey::new(request, 6);
        let twin = key.twin(rewritten);
        assert_eq!(twin.tuple(), rewritten.reversed());
        assert_eq!(twin.twin(request.reversed()), key);
    }

    #[test]
    fn ticks_survive_a_stamp_from_the_future_and_a_wrap() {
        assert_eq!(Ticks(5).since(Ticks(3)), 2);
        assert_eq!(Ticks(3).since(Ticks(5)), 0);
        assert_eq!(Ticks(1).since(Ticks(u32::MAX)), 2);
        assert_eq!(Ticks::in_ms(1), 1);
        assert_eq!(Ticks::in_ms(900_000), 6_705);
        assert_eq!(Ticks::of_stamp(0), None);
        assert_eq!(
            [0, u32::MAX].map(|n| Ticks::of_stamp(Ticks(n).stamp())),
            [0, u32::MAX].map(|n| Some(Ticks(n)))
        );
    }

    #[test]
    fn confirming_changes_one_bit() {
        let flow = Flow::<V4>::default();
        flow.fill(Owner { server: 7, seen: Ticks(9), state: UNCONFIRMED | NAT_REPLY });
        assert!(flow.confirm() && !flow.confirm());
        assert_eq!(flow.owner(), Owner { server: 7, seen: Ticks(9), state: NAT_REPLY });
    }

    #[test]
    fn idle_time_of_every_nat_state() {
        const IDLE: u32 = 10_000;
        for (name, request, reply, expected) in [
            ("established", 0, 0, IDLE),
            ("opening", OPENING, 0, OPENING_TICKS),
            ("client closed", FIN, 0, CLOSING_TICKS),
            ("server closed", 0, FIN, CLOSING_TICKS),
            ("both closed", FIN, FIN, CLOSED_TICKS),
            ("client reset", RST, 0, RESET_TICKS),
            ("server refused the SYN", OPENING, RST, RESET_TICKS),
            ("server reset after close", FIN, FIN | RST, RESET_TICKS),
        ] {
            assert_eq!(nat_idle_ticks(request, reply, IDLE), expected, "{name}");
            assert!(nat_idle_ticks(request, reply, 1) == 1, "{name}: the service's time is the longest");
        }
    }
}

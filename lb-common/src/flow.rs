//! Flow records: which server a connection belongs to, and what a NAT flow is rewritten to.
//!
//! ```text
//! request  client:port -> vip:port        rewritten to  nat:port -> server:port
//! reply    server:port -> nat:port        rewritten to  vip:port -> client:port
//! ```
//!
//! The key of each half is the reversed rewrite of the other, so either finds its twin.

use crate::{
    limits::{NAT_PORT_FIRST, NAT_PORT_LAST},
    net::{Be16, Be32},
    word::Word,
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

/// Ends of one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(8))]
pub struct Tuple {
    pub source: Be32,
    pub destination: Be32,
    pub source_port: Be16,
    pub destination_port: Be16,
}

impl Tuple {
    /// Source low.
    #[inline(always)]
    const fn addresses(self) -> u64 {
        self.source.0 as u64 | (self.destination.0 as u64) << 32
    }

    /// Source low.
    #[inline(always)]
    const fn ports(self) -> u32 {
        self.source_port.0 as u32 | (self.destination_port.0 as u32) << 16
    }

    #[inline(always)]
    const fn from_words(addresses: u64, ports: u32) -> Self {
        Tuple {
            source: Be32(addresses as u32),
            destination: Be32((addresses >> 32) as u32),
            source_port: Be16(ports as u16),
            destination_port: Be16((ports >> 16) as u16),
        }
    }

    #[inline(always)]
    pub const fn reversed(self) -> Self {
        Tuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Key of the IPv4 flow table: the words of a record. The second is never 0, so that a record without a key is
/// told from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey([u64; 2]);

impl FlowKey {
    #[inline(always)]
    pub const fn new(tuple: Tuple, protocol: u8) -> Self {
        FlowKey([tuple.addresses(), tuple.ports() as u64 | (protocol as u64) << 32 | KEY_USED])
    }

    /// None: no key.
    pub const fn from_words(words: [u64; 2]) -> Option<Self> {
        if words[1] & KEY_USED == 0 { None } else { Some(FlowKey(words)) }
    }

    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    pub const fn tuple(&self) -> Tuple {
        Tuple::from_words(self.0[0], self.0[1] as u32)
    }

    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        (self.0[1] >> 32) as u8
    }

    /// The key of the other half of a NAT flow whose packets are rewritten to `rewrite`.
    #[inline(always)]
    pub const fn twin(&self, rewrite: Tuple) -> FlowKey {
        FlowKey::new(rewrite.reversed(), self.protocol())
    }
}

/// A flow record: one cache line. Removed and reused at any time, so every word is shared.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Flow {
    /// The second word is written last and cleared first.
    key: [Word; 2],
    /// `Ticks` of the last packet in this direction, and above them the bits below.
    clock: Word,
    /// NAT only: the addresses that packets of this half get, source low.
    addresses: Word,
    /// NAT only: the ports they get, source lowest; in the high half the server's id.
    ports_server: Word,
    /// NAT only: the client side's next hop, our own address towards it, and the interface it arrives on.
    peer_mac: Word,
    own_mac: Word,
    interface: Word,
}

const KEY_USED: u64 = 1 << 63;

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
pub struct FlowView {
    pub seen: Ticks,
    pub state: u32,
    pub rewrite: Tuple,
    pub peer_mac: u64,
    pub own_mac: u64,
    pub interface: u32,
    pub server: u32,
}

impl Flow {
    #[inline(always)]
    pub fn is(&self, key: &FlowKey) -> bool {
        let [low, high] = key.words();
        self.key[0].get() == low && self.key[1].get() == high
    }

    /// None: the place is free, or its record is being written.
    #[inline(always)]
    pub fn key(&self) -> Option<FlowKey> {
        FlowKey::from_words([self.key[0].get(), self.key[1].get()])
    }

    /// Fills a place that is the caller's and publishes it.
    #[inline(always)]
    pub(crate) fn write(&self, key: &FlowKey, view: &FlowView) {
        let [low, high] = key.words();
        self.clock.set(view.seen.0 as u64 | (view.state as u64) << 32);
        self.addresses.set(view.rewrite.addresses());
        self.ports_server.set(view.rewrite.ports() as u64 | (view.server as u64) << 32);
        self.peer_mac.set(view.peer_mac);
        self.own_mac.set(view.own_mac);
        self.interface.set(view.interface as u64);
        self.key[0].set(low);
        // A full barrier: whoever looks for others with this key afterwards has shown its own.
        self.key[1].swap(high);
    }

    /// Whether the record stood under this key and no longer does: true for one caller, who then owns the place.
    #[inline(always)]
    pub(crate) fn withdraw(&self, key: &FlowKey) -> bool {
        self.is(key) && self.key[1].compare_exchange(key.words()[1], 0)
    }

    #[inline(always)]
    pub fn view(&self) -> FlowView {
        let (clock, addresses, ports) = (self.clock.get(), self.addresses.get(), self.ports_server.get());
        FlowView {
            server: (ports >> 32) as u32,
            seen: Ticks(clock as u32),
            state: (clock >> 32) as u32,
            interface: self.interface.get() as u32,
            rewrite: Tuple::from_words(addresses, ports as u32),
            peer_mac: self.peer_mac.get(),
            own_mac: self.own_mac.get(),
        }
    }

    /// Stamps the record and changes its bits, writing only a change. Two CPUs that see packets of one
    /// direction at once may lose a bit; the record then only lives longer.
    #[inline(always)]
    pub fn touch(&self, now: Ticks, set: u32, clear: u32) {
        let old = self.clock.get();
        let state = (old >> 32) as u32 & !clear | set;
        let new = now.0 as u64 | (state as u64) << 32;
        if new != old {
            self.clock.set(new);
        }
    }

    /// Changes bits without stamping the record.
    #[inline(always)]
    pub fn clear_state(&self, clear: u32) {
        self.clock.set(self.clock.get() & !((clear as u64) << 32));
    }

    /// The key of a record that a SYN made at least `ticks` ago and nobody confirmed since.
    #[inline(always)]
    pub(crate) fn half_open_since(&self, now: Ticks, ticks: u32) -> Option<FlowKey> {
        let key = self.key()?;
        let clock = self.clock.get();
        let half_open = (clock >> 32) as u32 & OPENING != 0 && now.since(Ticks(clock as u32)) >= ticks;
        half_open.then_some(key)
    }

    /// Where replies of a NAT flow go.
    #[inline(always)]
    pub fn set_peer(&self, interface: u32, peer_mac: u64, own_mac: u64) {
        self.interface.set(interface as u64);
        self.peer_mac.set(peer_mac);
        self.own_mac.set(own_mac);
    }

    /// Ticks of silence after which this half is void by itself, given the service's idle time.
    #[inline(always)]
    pub fn idle_ticks(state: u32, idle_ticks: u32) -> u32 {
        if state & OPENING != 0 && OPENING_TICKS < idle_ticks { OPENING_TICKS } else { idle_ticks }
    }
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

const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_twin_name_each_other() {
        let request =
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

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
#[repr(C)]
pub struct Tuple {
    pub source: Be32,
    pub destination: Be32,
    pub source_port: Be16,
    pub destination_port: Be16,
}

impl Tuple {
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

/// Key of the IPv4 flow table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    pub tuple: Tuple,
    /// IP protocol number; the rest of the word is zero, since the kernel compares it too.
    protocol: u32,
}

impl FlowKey {
    #[inline(always)]
    pub const fn new(tuple: Tuple, protocol: u8) -> Self {
        FlowKey { tuple, protocol: protocol as u32 }
    }

    /// From the key as the map holds it.
    pub const fn from_words(w: [u64; 2]) -> Self {
        let tuple = Tuple {
            source: Be32(w[0] as u32),
            destination: Be32((w[0] >> 32) as u32),
            source_port: Be16(w[1] as u16),
            destination_port: Be16((w[1] >> 16) as u16),
        };
        FlowKey { tuple, protocol: (w[1] >> 32) as u32 }
    }

    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.protocol as u8
    }

    /// The key of the other half of a NAT flow whose packets are rewritten to `rewrite`.
    #[inline(always)]
    pub const fn twin(&self, rewrite: Tuple) -> FlowKey {
        FlowKey { tuple: rewrite.reversed(), protocol: self.protocol }
    }
}

/// A flow record. What several CPUs change is a `Word`. The rest is fixed when it is inserted.
#[derive(Debug)]
#[repr(C)]
pub struct Flow {
    /// `Ticks` of the last packet in this direction.
    pub seen: Word,
    /// Bits below.
    pub state: Word,
    /// Interface the client's packets arrive on; replies leave there.
    pub interface: Word,
    /// NAT only: the client side's next hop, and our own address towards it.
    pub peer_mac: Word,
    pub own_mac: Word,
    /// NAT only: what packets of this half become.
    pub rewrite: Tuple,
    pub server: u32,
    zero: u64,
}

/// Made by a SYN, and no later packet of the client seen yet.
pub const OPENING: u64 = 1;
/// A FIN passed in this direction.
pub const FIN: u64 = 1 << 1;
/// A RST passed in this direction.
pub const RST: u64 = 1 << 2;
/// The client's half of a NAT flow.
pub const NAT_REQUEST: u64 = 1 << 3;
/// The server's half of a NAT flow.
pub const NAT_REPLY: u64 = 1 << 4;

/// How long a record counts that a SYN made and no later packet confirmed (LVS: syn_recv).
pub const OPENING_TICKS: u32 = Ticks::in_ms(60_000);
/// One side closed: RFC 5382, section 5, allows transitory connections four minutes.
pub const CLOSING_TICKS: u32 = Ticks::in_ms(240_000);
/// Both sides closed: two times the 30 s most systems use for the maximum segment lifetime.
pub const CLOSED_TICKS: u32 = Ticks::in_ms(60_000);
/// After a RST: time for its retransmissions.
pub const RESET_TICKS: u32 = Ticks::in_ms(10_000);

/// The values of a record, read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowView {
    pub server: u32,
    pub seen: Ticks,
    pub state: u64,
    pub interface: u32,
    pub rewrite: Tuple,
    pub peer_mac: u64,
    pub own_mac: u64,
}

impl FlowView {
    /// From the value as the map holds it.
    pub const fn from_words(w: &[u64; 8]) -> Self {
        FlowView {
            seen: Ticks(w[0] as u32),
            state: w[1],
            interface: w[2] as u32,
            peer_mac: w[3],
            own_mac: w[4],
            rewrite: Tuple {
                source: Be32(w[5] as u32),
                destination: Be32((w[5] >> 32) as u32),
                source_port: Be16(w[6] as u16),
                destination_port: Be16((w[6] >> 16) as u16),
            },
            server: (w[6] >> 32) as u32,
        }
    }
}

impl Flow {
    #[inline(always)]
    pub fn new(view: FlowView) -> Self {
        Flow {
            seen: Word::new(view.seen.0 as u64),
            state: Word::new(view.state),
            interface: Word::new(view.interface as u64),
            peer_mac: Word::new(view.peer_mac),
            own_mac: Word::new(view.own_mac),
            rewrite: view.rewrite,
            server: view.server,
            zero: 0,
        }
    }

    #[inline(always)]
    pub fn view(&self) -> FlowView {
        FlowView {
            server: self.server,
            seen: self.last_seen(),
            state: self.state.get(),
            interface: self.interface.get() as u32,
            rewrite: self.rewrite,
            peer_mac: self.peer_mac.get(),
            own_mac: self.own_mac.get(),
        }
    }

    #[inline(always)]
    pub fn last_seen(&self) -> Ticks {
        Ticks(self.seen.get() as u32)
    }

    /// Stamps the record, writing only when the tick has changed.
    #[inline(always)]
    pub fn touch(&self, now: Ticks) {
        if self.last_seen() != now {
            self.seen.set(now.0 as u64);
        }
    }

    /// Sets and clears bits, writing only a change. Two CPUs that see packets of one direction at once
    /// may lose a bit; the record then only lives longer.
    #[inline(always)]
    pub fn mark(&self, set: u64, clear: u64) {
        let old = self.state.get();
        let new = old & !clear | set;
        if new != old {
            self.state.set(new);
        }
    }

    /// Ticks of silence after which this half is void by itself, given the service's idle time.
    #[inline(always)]
    pub fn idle_ticks(state: u64, idle_ticks: u32) -> u32 {
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
pub const fn nat_idle_ticks(request: u64, reply: u64, idle_ticks: u32) -> u32 {
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

const _: () = assert!(size_of::<FlowKey>() == 16 && align_of::<FlowKey>() == 4);
const _: () = assert!(size_of::<Flow>() == 64 && align_of::<Flow>() == 8);

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
        assert_eq!(twin.tuple, rewritten.reversed());
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

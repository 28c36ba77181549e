//! One slot of a ring: who takes new connections, who owns the unrecorded ones, and whether records matter.
//!
//! ```text
//!  63      62..48   47..24   23..0
//!  lookup  zero     base     current
//! ```

/// Index of a server entry; 0 is "no server".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct ServerId(pub u32);

impl ServerId {
    pub const NONE: ServerId = ServerId(0);

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Written with one aligned store, so that a reader never sees half a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Slot(pub u64);

const ID_BITS: u32 = 24;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const LOOKUP: u64 = 1 << 63;

impl Slot {
    #[inline(always)]
    pub const fn new(current: ServerId, base: ServerId, lookup: bool) -> Self {
        let ids = (current.0 as u64 & ID_MASK) | (base.0 as u64 & ID_MASK) << ID_BITS;
        Slot(if lookup { ids | LOOKUP } else { ids })
    }

    /// A slot without history: every connection belongs to `server`.
    pub const fn settled(server: ServerId) -> Self {
        Slot::new(server, server, false)
    }

    #[inline(always)]
    pub const fn current(self) -> ServerId {
        ServerId((self.0 & ID_MASK) as u32)
    }

    #[inline(always)]
    pub const fn base(self) -> ServerId {
        ServerId((self.0 >> ID_BITS & ID_MASK) as u32)
    }

    /// Clear: `current == base` and no record can name another server, so none is looked up or made.
    #[inline(always)]
    pub const fn lookup(self) -> bool {
        self.0 & LOOKUP != 0
    }

    /// The server of a packet that no live record decides. `opening`: it begins a connection (a TCP SYN).
    #[inline(always)]
    pub const fn owner(self, opening: bool, base_lives: bool) -> ServerId {
        if opening || !self.lookup() || !base_lives { self.current() } else { self.base() }
    }

    /// The slot once everybody its base served is recorded or gone. Records still count.
    pub const fn rebased(self) -> Self {
        Slot::new(self.current(), self.current(), self.lookup())
    }

    /// The slot after the ring gave it to `wanted`. `base_lives`: the server in `base` is not down.
    ///
    /// Source: the change rules of "Choosing a server" in ARCHITECTURE.md, after JET (CoNEXT 2021).
    pub const fn given_to(self, wanted: ServerId, base_lives: bool) -> Self {
        if !self.lookup() {
            if self.current().0 == wanted.0 {
                return self;
            }
            if !base_lives {
                return Slot::settled(wanted);
            }
            return Slot::new(wanted, self.base(), true);
        }
        let base = if base_lives { self.base() } else { wanted };
        Slot::new(wanted, base, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(0xff_ffff);
    const NONE: ServerId = ServerId::NONE;

    #[test]
    fn a_word_keeps_its_parts() {
        for lookup in [false, true] {
            let slot = Slot::new(A, B, lookup);
            assert_eq!((slot.current(), slot.base(), slot.lookup()), (A, B, lookup));
        }
        assert_eq!(Slot::default(), Slot::settled(NONE));
    }

    #[test]
    fn owner_of_an_unrecorded_packet() {
        let moved = Slot::new(A, B, true);
        for (name, slot, opening, base_lives, expected) in [
            ("settled, first packet", Slot::settled(A), true, true, A),
            ("settled, later packet", Slot::settled(A), false, true, A),
            ("settled, dead", Slot::settled(A), false, false, A),
            ("moved, first packet", moved, true, true, A),
            ("moved, later packet", moved, false, true, B),
            ("moved, later packet, base dead", moved, false, false, A),
            ("moved, first packet, base dead", moved, true, false, A),
        ] {
            assert_eq!(slot.owner(opening, base_lives), expected, "{name}");
        }
    }

    #[test]
    fn a_base_follows() {
        assert_eq!(Slot::new(A, B, true).rebased(), Slot::new(A, A, true));
        assert_eq!(Slot::settled(A).rebased(), Slot::settled(A));
    }

    #[test]
    fn every_change_of_a_slot() {
        for (name, slot, wanted, base_lives, expected) in [
            ("settled, same", Slot::settled(A), A, true, Slot::settled(A)),
            ("settled, same though dead", Slot::settled(A), A, false, Slot::settled(A)),
            ("settled, moves", Slot::settled(A), B, true, Slot::new(B, A, true)),
            ("settled, its server died", Slot::settled(A), B, false, Slot::settled(B)),
            ("settled, nobody left", Slot::settled(A), NONE, false, Slot::settled(NONE)),
            ("settled, drained to nobody", Slot::settled(A), NONE, true, Slot::new(NONE, A, true)),
            ("first server of an empty slot", Slot::settled(NONE), A, false, Slot::settled(A)),
            ("moved, moves on", Slot::new(B, A, true), ServerId(3), true, Slot::new(ServerId(3), A, true)),
            ("moved back: records still name B", Slot::new(B, A, true), A, true, Slot::new(A, A, true)),
            ("moved, base died", Slot::new(B, A, true), B, false, Slot::new(B, B, true)),
            ("moved, base died, current too", Slot::new(B, A, true), ServerId(3), false, {
                Slot::new(ServerId(3), ServerId(3), true)
            }),
        ] {
            assert_eq!(slot.given_to(wanted, base_lives), expected, "{name}");
        }
    }
}

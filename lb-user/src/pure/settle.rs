//! When a slot forgets whose it was: the rules of settling, over flow records and the ages of slots.
//!
//! ```text
//!   settled          owes                       follows                     settled
//!  (a, a) ─change─► (b, a, lookup) ─ T and ──► (b, b, lookup) ─ a round ─► (b, b)
//!                     ▲                a round      │ change      without
//!                     └─────────────────────────────┘             others
//! ```
//!
//! Owns the decisions, of one record and of one slot. Must not know where records stand, nor who carries a decision out.
//!
//! Why nothing is lost. A *round* looks at every record once; what it decides about a slot counts only if it began
//! after the slot's last change.
//!
//! * A base follows after a round that began T after the slot moved, while no flow of the service went without a
//!   record for T. Whoever lives was heard of since, and has a record that counts. A record that no second packet
//!   confirmed could give way in a full bucket, and nobody would know its flow any more: such a record stamps the
//!   service when it goes, and this round confirms those that stay.
//! * Lookup is cleared after a round that began `GRACE_TICKS` after the base followed and found no record that names
//!   another server. Since the base followed, only a CPU that still held the slot's old word can have made one, and no
//!   packet is under way for as long as that.
//! * Records in a slot without lookup are deleted, whoever they name: they would count again once lookup is set. Until
//!   a round that began `GRACE_TICKS` after has deleted them, a slot whose server dies keeps lookup: what is left names
//!   that server, and is a miss while it is dead.

use std::collections::BTreeMap;

use lb_common::{
    flow::{Owner, Ticks, UNCONFIRMED},
    slot::Slot,
};

/// No CPU holds a slot's word for so long.
pub const GRACE_TICKS: u32 = Ticks::in_ms(1_000);

/// Who looks a service's records up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Every packet does, of pairs and of schedulers: a slot only says whose a packet without a record is.
    Always,
    /// The packets of a slot with lookup.
    Unsettled,
}

/// Where a record stands among the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// First slot of the ring in the ring map.
    pub ring: u32,
    pub position: u32,
    pub slot: Slot,
    pub records: Records,
    /// The slot stands as it does for T.
    pub is_due: bool,
}

/// What a record is to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nobody looks it up: to be deleted.
    Stale,
    /// It says no more than the slot does.
    Own,
    /// Another server's: lookup stays. `confirm`: it must not give way any more.
    Other { confirm: bool },
}

pub fn judge(site: &Site, owner: &Owner) -> Finding {
    if site.records == Records::Unsettled && !site.slot.lookup() {
        return Finding::Stale;
    }
    if owner.server == site.slot.current().0 {
        return Finding::Own;
    }
    Finding::Other { confirm: site.slot.lookup() && site.is_due && owner.state & UNCONFIRMED != 0 }
}

/// What a round over the flow tables saw of slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    pub began: Ticks,
    /// Records in the fuller of the two tables.
    pub fullest: u64,
    /// Slots with records of other servers, by the first slot of their ring.
    others: BTreeMap<u32, Bits>,
}

impl Survey {
    pub fn beginning(began: Ticks) -> Self {
        Survey { began, ..Survey::default() }
    }

    pub fn note(&mut self, site: &Site) {
        self.others.entry(site.ring).or_default().set(site.position);
    }

    pub fn others(&self, ring: u32) -> Option<&Bits> {
        self.others.get(&ring)
    }
}

/// A set of slots: a bit for each up to the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, position: u32) {
        let word = position as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (position % 64);
    }

    fn has(&self, position: u32) -> bool {
        self.0.get(position as usize / 64).is_some_and(|word| word >> (position % 64) & 1 != 0)
    }
}

/// What all slots of a ring are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// When the last round that ended had begun.
    pub began: Ticks,
    /// T: silence after which a connection counts as gone.
    pub idle_ticks: u32,
    /// A flow of the service went without a record within the last T.
    pub refused: bool,
    pub records: Records,
    pub others: Option<&'a Bits>,
}

/// What a slot is to become: one step towards settled, or as it is. `since`: when it last changed hands, or when its base
/// followed.
pub fn next(slot: Slot, since: Ticks, position: u32, terms: &Terms<'_>) -> Slot {
    let age = terms.began.since(since);
    let is_due = age >= terms.idle_ticks && !terms.refused;
    let others = terms.others.is_some_and(|others| others.has(position));
    match (slot.lookup(), terms.records) {
        (false, _) => slot,
        (true, Records::Always) if is_due => Slot::settled(slot.current()),
        (true, Records::Unsettled) if slot.base() != slot.current() && is_due => slot.rebased(),
        (true, Records::Unsettled) if slot.base() == slot.current() && age >= GRACE_TICKS && !others => {
            Slot::settled(slot.current())
        }
        (true, _) => slot,
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{flow::OPENING, slot::ServerId};

    use super::*;

    const A: ServerId = ServerId(1);
    const B: ServerId = ServerId(2);
    const T: u32 = 100;
    const BEGAN: Ticks = Ticks(1_000);

    fn ago(ticks: u32) -> Ticks {
        Ticks(BEGAN.0 - ticks)
    }

    #[test]
    fn every_step_of_a_slot() {
        let owes = Slot::new(B, A, true);
        let follows = Slot::new(B, B, true);
        let site = Site { ring: 0, position: 7, slot: owes, records: Records::Unsettled, is_due: false };
        let mut seen = Survey::default();
        seen.note(&site);
        let terms = |records, refused, others: bool| Terms {
            began: BEGAN,
            idle_ticks: T,
            refused,
            records,
            others: if others { seen.others(0) } else { None },
        };
        let hash = |refused, others| terms(Records::Unsettled, refused, others);
        let always = |refused| terms(Records::Always, refused, false);
        for (name, slot, since, terms, expected) in [
            ("settled", Slot::settled(A), ago(T), hash(false, false), Slot::settled(A)),
            ("moved T before the round", owes, ago(T), hash(false, false), follows),
            ("moved T before, records of others", owes, ago(T), hash(false, true), follows),
            ("moved less than T before", owes, ago(T - 1), hash(false, false), owes),
            ("moved after the round began", owes, Ticks(BEGAN.0 + 1), hash(false, false), owes),
            ("a flow went without a record", owes, ago(T * 2), hash(true, false), owes),
            ("followed, nobody else", follows, ago(GRACE_TICKS), hash(false, false), Slot::settled(B)),
            ("followed, refusals matter no more", follows, ago(T), hash(true, false), Slot::settled(B)),
            ("followed, records of others", follows, ago(T * 5), hash(false, true), follows),
            (
                "followed a moment before the round",
                follows,
                ago(GRACE_TICKS - 1),
                hash(false, false),
                follows,
            ),
            ("followed after the round began", follows, Ticks(BEGAN.0 + 9), hash(false, false), follows),
            ("pairs, moved T before", owes, ago(T), always(false), Slot::settled(B)),
            ("pairs, moved less than T before", owes, ago(T - 1), always(false), owes),
            ("pairs, a flow was refused", owes, ago(T), always(true), owes),
            ("a scheduler's, back at its base", follows, ago(T - 1), always(false), follows),
        ] {
            assert_eq!(next(slot, since, 7, &terms), expected, "{name}");
        }
        assert_eq!(next(follows, ago(T), 8, &hash(false, true)), Slot::settled(B), "another slot's records");
    }

    #[test]
    fn what_a_record_is_to_its_slot() {
        let site = |slot, records, is_due| Site { ring: 0, position: 0, slot, records, is_due };
        let record = |server: ServerId, state| Owner { server: server.0, seen: BEGAN, state };
        let owes = Slot::new(B, A, true);
        let other = |confirm| Finding::Other { confirm };
        for (name, site, owner, expected) in [
            ("settled", site(Slot::settled(A), Records::Unsettled, true), record(A, 0), Finding::Stale),
            (
                "settled, another",
                site(Slot::settled(A), Records::Unsettled, false),
                record(B, 0),
                Finding::Stale,
            ),
            ("settled, a pair", site(Slot::settled(A), Records::Always, false), record(B, 0), other(false)),
            ("current's", site(owes, Records::Unsettled, true), record(B, UNCONFIRMED), Finding::Own),
            ("base's", site(owes, Records::Unsettled, true), record(A, 0), other(false)),
            ("base's, seen once", site(owes, Records::Unsettled, true), record(A, UNCONFIRMED), other(true)),
            ("not due yet", site(owes, Records::Unsettled, false), record(A, UNCONFIRMED), other(false)),
            ("half-open", site(owes, Records::Unsettled, true), record(A, OPENING), other(false)),
            ("a pair seen once", site(owes, Records::Always, true), record(A, UNCONFIRMED), other(true)),
        ] {
            assert_eq!(judge(&site, &owner), expected, "{name}");
        }
    }

    #[test]
    fn bits_hold_what_was_set() {
        let mut bits = Bits::default();
        for position in [0, 63, 64, 65_535] {
            assert!(!bits.has(position));
            bits.set(position);
        }
        let held: Vec<u32> = (0..70_000).filter(|&position| bits.has(position)).collect();
        assert_eq!(held, [0, 63, 64, 65_535]);
    }
}

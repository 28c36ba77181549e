//! The weighted Maglev ring: which server each slot of a service gives new connections to.
//!
//! Owns the assignment of slots, and nothing else. Must not know map layouts, slot words, or why a member takes
//! less than its share.
//!
//! Every member walks the slots in an order of its own (Eisenbud et al., "Maglev", NSDI 2016, section 3.4)
//! and takes the next free one whenever its turn comes. Differences to the paper: the size is a power of two
//! and the skip odd, so that a walk still visits every slot; positions are shuffled; and the fill has three
//! stages.
//!
//! ```text
//! all members, usable or not ─► 1. fill the whole ring, to exact quotas by weight
//!                                     │ slots of members without a whole share are free again
//! members with a whole share ─► 2. fill those slots, to the quotas that are left
//! members with a part of it  ─► 3. take the first of their own slots back, as many as their share says
//! ```
//!
//! Stage 1 does not know who is usable, so a member that fails, and one that returns, moves its own slots and
//! nobody else's. With all members usable each holds its share by weight, rounded up or down. Where some are
//! not, a member holds less than one slot more than its share and lacks less than two; each further unusable
//! member can cost one more, because what stage 1 rounded up is not taken away again. When the set of members
//! itself changes, at 16 384 slots and up to 100 members, less than 3 % of the ring moves besides what must.
//!
//! A member with a part of its share counts as unusable in stage 2, so a share that grows moves slots to its
//! member and nothing else. It gets no slot of others; those it does not take yet are shared by weight among the
//! whole ones. Only the last step, which makes it a whole one, also hands it its part of what members
//! that are down have left, as their recovery would. Shares count in proportion to the largest: when all members
//! have the same one, all are whole.
//!
//! The result is the same on every node and in every version: it depends on the seed, the size and the set of
//! (address, weight, share) alone. Changing the hash or the order of turns remaps live connections.
//!
//! `rotation` fills a ring for schedulers that take slots in turn, not by hash.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::Hasher,
    net::{IpAddr, SocketAddr},
};

use lb_common::limits::{SERVERS_MAX, SLOTS_MAX};
use siphasher::sip::SipHasher24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// What a slot of this member holds; never 0.
    pub id: u32,
    /// Unique among the members.
    pub address: SocketAddr,
    /// 0 is no member at all. To drain with the least disruption, keep the weight and take the share.
    pub weight: u16,
    /// Percent of its own slots that it takes, at most 100. 0: it is unusable.
    pub share: u8,
}

impl Member {
    pub fn is_usable(&self) -> bool {
        self.share > 0 && self.weight > 0
    }
}

/// The id per slot; all 0 when no usable member has a weight. With more members than slots the heaviest have
/// one.
///
/// # Panics
/// When `slots` is not a power of two up to `SLOTS_MAX`, which the configuration guarantees.
pub fn build(seed: u64, slots: u32, members: &[Member]) -> Vec<u32> {
    assert!(slots.is_power_of_two() && slots <= SLOTS_MAX, "{slots} slots are no ring size");
    let mut members: Vec<&Member> = members.iter().filter(|member| member.weight > 0).collect();
    let Some(whole) = members.iter().map(|member| member.share).max().filter(|&share| share > 0) else {
        return vec![0; slots as usize];
    };
    members.sort_unstable_by_key(|member| member.address);

    let mut owners = vec![FREE; slots as usize];
    let claim = |owner: usize| Claim {
        owner: owner as u32,
        share: Share { weight: members[owner].weight.into(), held: 0 },
        walk: Walk::new(seed, slots, members[owner].address),
    };
    fill(&mut owners, (0..members.len()).map(claim).collect());

    if members.iter().any(|member| member.share < whole) {
        let kept = kept(&owners, &members, whole, |owner| Walk::new(seed, slots, members[owner].address));
        let held = release(&mut owners, &members, whole);
        let takers = (0..members.len()).filter(|&owner| members[owner].share == whole);
        fill(&mut owners, takers.map(|owner| claim(owner).holding(held[owner])).collect());
        for (owner, slot) in kept {
            owners[slot as usize] = owner;
        }
    }
    owners.into_iter().map(|owner| members[owner as usize].id).collect()
}

/// The id per slot, in the order in which a smooth weighted round robin picks members: read from one slot to
/// the next, each member comes around evenly, as often as its weight times its share says. All 0 when no usable member has a
/// weight. Counts are as exact as those of `build`; the order of the members does not matter.
///
/// A member of weight w out of W has its n-th pick between the times (n-1)W/w and nW/w, the windows of Baruah
/// et al., "Proportionate progress", Algorithmica 15 (1996). Among those whose window is open the one that closes
/// first is picked, so nobody is ever a whole pick ahead of its share or behind.
///
/// # Panics
/// When `slots` is more than `SLOTS_MAX`, which the configuration guarantees.
pub fn rotation(slots: u32, members: &[Member]) -> Vec<u32> {
    assert!(slots <= SLOTS_MAX, "{slots} slots are more than a ring has");
    let mut members: Vec<&Member> = members.iter().filter(|member| member.is_usable()).collect();
    if members.is_empty() {
        return vec![0; slots as usize];
    }
    members.sort_unstable_by_key(|member| member.address);
    let weight = |member: &Member| u64::from(member.weight) * u64::from(member.share);
    let shares: Vec<Share> = members.iter().map(|member| Share { weight: weight(member), held: 0 }).collect();
    let mut picks = Picks::new(&shares, apportion(slots, slots, &shares));
    (0..slots.into()).map(|time| members[picks.next(time)].id).collect()
}

/// Slots whose server differs; all of them when the sizes do, because then the flow hash maps elsewhere.
pub fn moved(old: &[u32], new: &[u32]) -> usize {
    if old.len() != new.len() {
        return new.len();
    }
    old.iter().zip(new).filter(|(old, new)| old != new).count()
}

/// The slots that members with a part of their share keep: the first ones of their walks, so that a larger share
/// keeps the same and more.
fn kept(owners: &[u32], members: &[&Member], whole: u8, walk: impl Fn(usize) -> Walk) -> Vec<(u32, u32)> {
    let is_part = |member: &Member| (1..whole).contains(&member.share);
    let mut own: Vec<Vec<u32>> = vec![Vec::new(); members.len()];
    for (slot, &owner) in (0..).zip(owners) {
        if is_part(members[owner as usize]) {
            own[owner as usize].push(slot);
        }
    }
    let parts = (0..).zip(own).filter(|(_, slots)| !slots.is_empty());
    parts
        .flat_map(|(owner, mut slots)| {
            let walk = walk(owner as usize);
            slots.sort_by_cached_key(|&slot| walk.distance(slot));
            let share = usize::from(members[owner as usize].share);
            slots.truncate((slots.len() * share).div_ceil(whole.into()));
            slots.into_iter().map(move |slot| (owner, slot))
        })
        .collect()
}

/// Frees the slots of members without a whole share; returns how many each member holds afterwards.
fn release(owners: &mut [u32], members: &[&Member], whole: u8) -> Vec<u32> {
    let mut held = vec![0; members.len()];
    for owner in owners {
        let index = *owner as usize;
        if members[index].share == whole {
            held[index] += 1;
        } else {
            *owner = FREE;
        }
    }
    held
}

/// Gives every free slot to one of the claims, which are in the order of their addresses.
fn fill(owners: &mut [u32], mut claims: Vec<Claim>) {
    let mut free = Free::new(owners);
    let shares: Vec<Share> = claims.iter().map(|claim| claim.share).collect();
    let grants = apportion(owners.len() as u32, free.left, &shares);
    for claim in turns(&shares, &grants, free.left) {
        let claim = &mut claims[claim as usize];
        owners[free.take(&mut claim.walk) as usize] = claim.owner;
    }
}

/// How many of the free slots each member gets, in the order of their addresses: always the one that lacks most
/// of its share of the whole ring is next (largest remainder), among equals the lower address.
fn apportion(slots: u32, free: u32, shares: &[Share]) -> Vec<u32> {
    let total = total_weight(shares);
    // What a member lacks, in units of 1/total of a slot.
    let lacks = |share: &Share| {
        (share.weight * u64::from(slots)).cast_signed() - (u64::from(share.held) * total).cast_signed()
    };
    let total = total.cast_signed();

    let mut grants: Vec<u32> = shares.iter().map(|share| (lacks(share).max(0) / total) as u32).collect();
    if grants.iter().map(|&grant| u64::from(grant)).sum::<u64>() > u64::from(free) {
        // Others hold more than their shares, so whole slots are scarce too.
        grants.fill(0);
    }
    let mut left = free - grants.iter().sum::<u32>();
    let mut lacking: BinaryHeap<(i64, Reverse<usize>)> = shares
        .iter()
        .zip(&grants)
        .enumerate()
        .map(|(index, (share, &grant))| (lacks(share) - i64::from(grant) * total, Reverse(index)))
        .collect();
    while left > 0
        && let Some(mut most) = lacking.peek_mut()
    {
        most.0 -= total;
        grants[most.1.0] += 1;
        left -= 1;
    }
    grants
}

/// Whose turn it is, once per free slot.
///
/// A share of weight w has its turns at the times 1/2w, 3/2w, 5/2w, ...: the early turns, which still find
/// the slot they prefer, are shared by weight, and the order among some members hardly depends on the others.
/// Sorted by counting: one bucket of time per slot; within a bucket by address.
fn turns(shares: &[Share], grants: &[u32], free: u32) -> Vec<u32> {
    let total = total_weight(shares);
    let last = u64::from(free).saturating_sub(1);
    let buckets = |share: &Share, grant: u32| {
        let step = (total << 32) / share.weight;
        let times = std::iter::successors(Some(step / 2), move |time| Some(time.saturating_add(step)));
        times.take(grant as usize).map(move |time| (time >> 32).min(last) as usize)
    };

    let mut starts = vec![0_u32; free as usize + 1];
    for (share, &grant) in shares.iter().zip(grants) {
        buckets(share, grant).for_each(|bucket| starts[bucket + 1] += 1);
    }
    for bucket in 1..starts.len() {
        starts[bucket] += starts[bucket - 1];
    }
    let mut turns = vec![0; free as usize];
    for (index, (share, &grant)) in (0..).zip(shares.iter().zip(grants)) {
        for bucket in buckets(share, grant) {
            turns[starts[bucket] as usize] = index;
            starts[bucket] += 1;
        }
    }
    turns
}

fn total_weight(shares: &[Share]) -> u64 {
    shares.iter().map(|share| share.weight).sum()
}

struct Claim {
    /// Index of the member.
    owner: u32,
    share: Share,
    walk: Walk,
}

impl Claim {
    fn holding(self, held: u32) -> Claim {
        Claim { share: Share { held, ..self.share }, ..self }
    }
}

/// What a member should have of the ring.
#[derive(Clone, Copy)]
struct Share {
    weight: u64,
    /// Slots that the member has already.
    held: u32,
}

/// The picks of a round robin that are to come, in the order of the members.
struct Picks {
    weights: Vec<u64>,
    total: u64,
    /// Per member.
    left: Vec<u32>,
    done: Vec<u32>,
    /// When the next pick of a member may be at the earliest.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    /// And before when it must be, of those that may be now.
    ready: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Picks {
    fn new(shares: &[Share], left: Vec<u32>) -> Picks {
        let weights: Vec<u64> = shares.iter().map(|share| share.weight).collect();
        let with_picks = (0..left.len()).filter(|&index| left[index] > 0);
        Picks {
            total: weights.iter().sum(),
            done: vec![0; left.len()],
            waiting: with_picks.map(|index| Reverse((0, index))).collect(),
            ready: BinaryHeap::new(),
            weights,
            left,
        }
    }

    fn next(&mut self, time: u64) -> usize {
        while let Some(&Reverse((earliest, index))) = self.waiting.peek()
            && earliest <= time
        {
            self.waiting.pop();
            let deadline = (u64::from(self.done[index]) + 1) * self.total;
            self.ready.push(Reverse((deadline.div_ceil(self.weights[index]), index)));
        }
        // Near the end, when some members have had their share already, nobody's time may have come.
        let next = self.ready.pop().or_else(|| self.waiting.pop());
        let Reverse((_, index)) = next.expect("as many picks as there are slots");
        self.done[index] += 1;
        self.left[index] -= 1;
        if self.left[index] > 0 {
            let earliest = u64::from(self.done[index]) * self.total / self.weights[index];
            self.waiting.push(Reverse((earliest, index)));
        }
        index
    }
}

/// A member's own order of the slots: positions from a start by an odd skip, modulo the size, each shuffled
/// to a slot.
///
/// Without the shuffle the walks of two members whose skips are alike run in step, and about once in four
/// thousand changes a quarter of the ring moves.
struct Walk {
    /// The position looked at next, modulo the size.
    at: u32,
    skip: Odd,
    shuffle: Odd,
    /// Half the bits of a position, rounded up: with it, `x ^ (x >> half)` is its own inverse.
    half: u32,
    mask: u32,
}

impl Walk {
    /// Start, shuffle and skip are 21 bits each of SipHash-2-4 over the octets of address and port in network
    /// order, keyed by the seed.
    fn new(seed: u64, slots: u32, address: SocketAddr) -> Walk {
        let mut hasher = SipHasher24::new_with_keys(seed, 0);
        match address.ip() {
            IpAddr::V4(ip) => hasher.write(&ip.octets()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write(&address.port().to_be_bytes());
        let hash = hasher.finish();
        Walk {
            at: hash as u32,
            shuffle: Odd::new((hash >> 21) as u32),
            skip: Odd::new((hash >> 42) as u32),
            half: slots.ilog2().div_ceil(2),
            mask: slots - 1,
        }
    }

    fn next(&mut self) -> u32 {
        let mixed = self.fold(self.at & self.mask).wrapping_mul(self.shuffle.number);
        self.at = self.at.wrapping_add(self.skip.number);
        self.fold(mixed & self.mask)
    }

    fn skip_past(&mut self, slot: u32) {
        self.at = self.position(slot).wrapping_add(self.skip.number);
    }

    fn position(&self, slot: u32) -> u32 {
        let mixed = self.fold(slot).wrapping_mul(self.shuffle.inverse);
        self.fold(mixed & self.mask)
    }

    /// Steps from here to the slot.
    fn distance(&self, slot: u32) -> u32 {
        self.position(slot).wrapping_sub(self.at).wrapping_mul(self.skip.inverse) & self.mask
    }

    fn fold(&self, bits: u32) -> u32 {
        bits ^ (bits >> self.half)
    }
}

/// An odd number, and its inverse modulo 2^32.
struct Odd {
    number: u32,
    inverse: u32,
}

impl Odd {
    fn new(bits: u32) -> Odd {
        let number = bits | 1;
        // Newton's iteration: an odd number inverts itself in 3 bits, and each round doubles them.
        let inverse = (0..4).fold(number, |inverse, _| {
            inverse.wrapping_mul(2_u32.wrapping_sub(number.wrapping_mul(inverse)))
        });
        Odd { number, inverse }
    }
}

/// The slots nobody owns.
struct Free {
    open: Vec<bool>,
    left: u32,
    /// With f slots free a walk takes size/f steps, a search of their list f: at most this many, the list is
    /// used.
    few_max: u32,
    /// The same slots as a list, made once they are few.
    few: Vec<u32>,
}

impl Free {
    fn new(owners: &[u32]) -> Free {
        let open: Vec<bool> = owners.iter().map(|&owner| owner == FREE).collect();
        let left = open.iter().filter(|&&open| open).count() as u32;
        let few_max = owners.len().isqrt() as u32;
        Free { open, left, few_max, few: Vec::new() }
    }

    /// The next free slot of the walk, which goes on behind it. There must be one.
    fn take(&mut self, walk: &mut Walk) -> u32 {
        let slot = if self.left > self.few_max { self.walk_to_free(walk) } else { self.nearest_of_few(walk) };
        self.open[slot as usize] = false;
        self.left -= 1;
        slot
    }

    fn walk_to_free(&self, walk: &mut Walk) -> u32 {
        loop {
            let slot = walk.next();
            if self.open[slot as usize] {
                return slot;
            }
        }
    }

    fn nearest_of_few(&mut self, walk: &mut Walk) -> u32 {
        if self.few.is_empty() {
            self.few = (0..=walk.mask).filter(|&slot| self.open[slot as usize]).collect();
        }
        let nearest = (0..self.few.len()).min_by_key(|&index| walk.distance(self.few[index]));
        let slot = self.few.swap_remove(nearest.expect("as many turns as free slots"));
        walk.skip_past(slot);
        slot
    }
}

const FREE: u32 = u32::MAX;

const _: () = assert!(SLOTS_MAX <= 1 << 21, "start, shuffle and skip have 21 bits of their own");
const _: () = assert!(SERVERS_MAX < FREE, "an owner is an index of members");
const _: () = assert!((SERVERS_MAX as u64 * u16::MAX as u64) < 1 << 31, "a step of time fits 64 bits");
const _: () = assert!(SLOTS_MAX as u64 * (1 << 31) < i64::MAX as u64, "what a claim lacks fits 64 bits");
const _: () = assert!(SLOTS_MAX as u64 * 100 * (1 << 31) < i64::MAX as u64, "and so with weights by percent");

#[cfg(test)]
mod tests;

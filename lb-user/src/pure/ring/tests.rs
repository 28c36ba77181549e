use std::collections::BTreeMap;

use proptest::{
    collection::{btree_set, vec},
    prelude::*,
};

use super::*;

const SEED: u64 = 0x5eed;

#[test]
fn a_ring_stays_the_same_in_every_version() {
    let mut members = [member(1, 3), member(2, 2), member(3, 1)];
    assert_eq!(build(SEED, 16, &members), GOLDEN_ALL_UP);
    members[0].share = 0;
    assert_eq!(build(SEED, 16, &members), GOLDEN_FIRST_DOWN);
}

#[test]
fn without_a_usable_member_every_slot_is_empty() {
    let cases = [
        ("no member", vec![]),
        ("all down", vec![down(member(1, 1)), down(member(2, 5))]),
        ("no weight", vec![member(1, 0), member(2, 0)]),
        ("down or no weight", vec![down(member(1, 1)), member(2, 0)]),
    ];
    for (name, members) in cases {
        assert_eq!(build(SEED, 256, &members), vec![0; 256], "{name}");
    }
}

#[test]
fn a_single_usable_member_has_every_slot() {
    let cases = [
        ("alone", vec![member(7, 1)]),
        ("the other down", vec![member(7, 1), down(member(8, u16::MAX))]),
        ("the other without weight", vec![member(8, 0), member(7, u16::MAX)]),
    ];
    for (name, members) in cases {
        assert_eq!(build(SEED, 256, &members), vec![7; 256], "{name}");
    }
}

#[test]
fn with_more_members_than_slots_the_heaviest_have_one() {
    let members: Vec<Member> = (1..=1_000).map(|id| member(id, if id > 900 { 2 } else { 1 })).collect();
    let counts = count(&build(SEED, 256, &members));
    assert_eq!(counts.len(), 256);
    assert!((901..=1_000).all(|id| counts[&id] == 1));
    assert!((1..=156).all(|id| counts[&id] == 1), "among equals the lower address first");
}

#[test]
fn the_largest_ring_holds_the_most_members() {
    let members: Vec<Member> = (1..=SERVERS_MAX).map(|id| member(id, u16::MAX)).collect();
    let counts = count(&build(SEED, SLOTS_MAX, &members));
    assert_eq!(counts.len(), SERVERS_MAX as usize);
    assert!(counts.values().all(|&slots| slots == SLOTS_MAX / SERVERS_MAX));
}

#[test]
fn an_ipv6_member_is_a_member() {
    let address = "[2001:db8::1]:80".parse().expect("a literal");
    let members = [member(1, 1), Member { id: 2, address, weight: 1, share: 100 }];
    assert_eq!(count(&build(SEED, 256, &members)), BTreeMap::from([(1, 128), (2, 128)]));
}

#[test]
fn a_rotation_is_smooth() {
    let cases: [(&str, &[Member], [u32; 12]); 4] = [
        ("equal", &[member(1, 1), member(2, 1), member(3, 1)], [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]),
        ("by weight", &[member(1, 3), member(2, 1)], [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 2]),
        ("one down", &[member(1, 1), down(member(2, 5)), member(3, 1)], [1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3]),
        ("nobody", &[down(member(1, 1)), member(2, 0)], [0; 12]),
    ];
    for (name, members, expected) in cases {
        assert_eq!(rotation(12, members), expected, "{name}");
    }
}

#[test]
fn the_largest_rotation_holds_the_most_members() {
    let members: Vec<Member> = (1..=SERVERS_MAX).map(|id| member(id, u16::MAX)).collect();
    let counts = count(&rotation(SLOTS_MAX, &members));
    assert!(counts.values().all(|&slots| slots == SLOTS_MAX / SERVERS_MAX));
    assert_eq!(counts.len(), SERVERS_MAX as usize);
}

#[test]
fn a_part_of_a_share_is_a_part_of_its_own_slots() {
    let of_first = |share: u8, others: &[Member]| {
        let members = [&[Member { share, ..member(1, 1) }], others].concat();
        count(&build(SEED, 256, &members)).get(&1).copied().unwrap_or(0)
    };
    let two = [member(2, 1), member(3, 2)];
    for (share, expected) in [(0, 0), (1, 1), (10, 7), (50, 32), (99, 64), (100, 64)] {
        assert_eq!(of_first(share, &two), expected, "{share} %");
    }
    let starting = two.map(|member| Member { share: 10, ..member });
    assert_eq!(of_first(10, &starting), 64, "all at the same share: all are whole");
    assert_eq!(of_first(0, &starting), 0);
    assert_eq!(of_first(5, &starting), 32, "in proportion to the largest");
    assert_eq!(of_first(10, &two.map(down)), 256, "nobody else");
}

#[test]
fn a_rotation_weighs_by_share() {
    let members = [Member { share: 50, ..member(1, 2) }, member(2, 1), Member { share: 0, ..member(3, 9) }];
    assert_eq!(rotation(8, &members), [1, 2, 1, 2, 1, 2, 1, 2]);
}

#[test]
fn moved_counts_slots() {
    assert_eq!(moved(&[1, 2, 3, 4], &[1, 3, 2, 4]), 2);
    assert_eq!(moved(&[1, 2], &[1, 2]), 0);
    assert_eq!(moved(&[1, 2], &[1, 2, 1, 2]), 4, "another size remaps every connection");
    assert_eq!(moved(&[], &[1, 2]), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn shares_follow_weights_within_a_slot(
        seed: u64,
        slots in sizes(),
        members in members(1..400, 1..=1_000),
    ) {
        let counts = count(&build(seed, slots, &members));
        for member in &members {
            let off = f64::from(held(&counts, member)) - share(member, slots, &members);
            prop_assert!(off.abs() < 1.0, "{member:?} is {off} slots off its share");
        }
    }

    #[test]
    fn neither_order_nor_ids_matter(
        seed: u64,
        (members, shuffled) in members(1..60, 0..=50)
            .prop_map(some_down)
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
    ) {
        let ring = build(seed, 1_024, &members);
        prop_assert_eq!(&build(seed, 1_024, &shuffled), &ring);

        let renamed: Vec<Member> = shuffled.iter().map(|m| Member { id: 100_000 - m.id, ..*m }).collect();
        let expected: Vec<u32> = ring.iter().map(|&id| if id == 0 { 0 } else { 100_000 - id }).collect();
        prop_assert_eq!(build(seed, 1_024, &renamed), expected);
    }

    #[test]
    fn a_failure_moves_only_its_own_slots(
        seed: u64,
        slots in sizes(),
        members in members(2..100, 1..=100),
        pick: prop::sample::Index,
    ) {
        let (all_up, failed) = (build(seed, slots, &members), pick.get(&members));
        let ring = build(seed, slots, &with_down(&members, &[failed.id]));
        prop_assert!(!ring.contains(&failed.id) && !ring.contains(&0));
        prop_assert_eq!(bystanders(&all_up, &ring, &[failed.id]), 0);
        prop_assert_eq!(moved(&all_up, &ring), held(&count(&all_up), failed) as usize);
    }

    #[test]
    fn the_slots_of_a_failed_member_are_shared_by_weight(
        seed: u64,
        slots in sizes(),
        members in members(2..100, 1..=100),
        pick: prop::sample::Index,
    ) {
        let failed = pick.get(&members);
        let alive: Vec<Member> = members.iter().filter(|m| m.id != failed.id).copied().collect();
        let before = count(&build(seed, slots, &members));
        let after = count(&build(seed, slots, &with_down(&members, &[failed.id])));
        for member in &alive {
            let (held_before, held_after) = (held(&before, member), held(&after, member));
            let gained = f64::from(held_after - held_before);
            let fair = share(member, held(&before, failed), &alive);
            prop_assert!((gained - fair).abs() < 2.0, "{member:?} gained {gained} instead of {fair}");
            let lacks = share(member, slots, &alive) - f64::from(held_after);
            prop_assert!(-1.0 < lacks && lacks < 2.0, "{member:?} lacks {lacks} slots");
        }
    }

    #[test]
    fn many_failures_cost_at_most_a_slot_each(
        seed: u64,
        slots in sizes(),
        members in members(2..300, 1..=100),
    ) {
        let members = some_down(members);
        let alive: Vec<Member> = members.iter().filter(|m| m.is_usable()).copied().collect();
        let unusable = members.len() - alive.len();
        let counts = count(&build(seed, slots, &members));
        for member in &alive {
            let lacks = share(member, slots, &alive) - f64::from(held(&counts, member));
            let bound = 1.0 + unusable.max(1) as f64;
            prop_assert!(-1.0 < lacks && lacks < bound, "{member:?} lacks {lacks} slots");
        }
    }

    #[test]
    fn a_second_failure_moves_its_slots_and_little_else(seed: u64, members in members(3..100, 1..=100)) {
        let (first, second) = (members[0].id, members[1].id);
        let one_down = build(seed, SLOTS, &with_down(&members, &[first]));
        let two_down = build(seed, SLOTS, &with_down(&members, &[first, second]));
        let others = bystanders(&one_down, &two_down, &[second]);
        prop_assert!(others * 100 <= SLOTS as usize * 2, "{others} slots of others moved");

        let all_up = build(seed, SLOTS, &members);
        prop_assert_eq!(bystanders(&all_up, &two_down, &[first, second]), 0);
    }

    #[test]
    fn a_share_that_grows_moves_slots_to_its_member_alone(
        seed: u64,
        slots in sizes(),
        members in members(2..100, 1..=100).prop_map(some_down).prop_flat_map(some_starting),
        shares in (0..=99_u8, 0..=99_u8),
    ) {
        let (small, large) = (shares.0.min(shares.1), shares.0.max(shares.1));
        let with = |share: u8| {
            let first = Member { share, ..members[0] };
            // Somebody is whole, as after one server's recovery.
            let whole = Member { share: 100, ..members[1] };
            build(seed, slots, &[&[first, whole], &members[2..]].concat())
        };
        for (old, new) in with(small).into_iter().zip(with(large)) {
            prop_assert!(old == new || new == members[0].id, "from {} to {}", old, new);
        }
    }

    #[test]
    fn the_last_step_moves_slots_to_its_member_alone(
        seed: u64,
        slots in sizes(),
        members in members(2..100, 1..=100),
        share in 0..=99_u8,
    ) {
        let part = [&[Member { share, ..members[0] }], &members[1..]].concat();
        for (old, new) in build(seed, slots, &part).into_iter().zip(build(seed, slots, &members)) {
            prop_assert!(old == new || new == members[0].id, "from {} to {}", old, new);
        }
    }

    #[test]
    fn adding_removing_and_reweighting_move_little_else(
        seed: u64,
        members in members(2..100, 1..=100),
        weight in 1..=100_u16,
    ) {
        let (changed, rest) = members.split_first().expect("two or more");
        let before = build(seed, SLOTS, &members);
        let reweighted = [&[Member { weight, ..*changed }], rest].concat();
        for (name, after) in [("removed or added", rest), ("reweighted", &reweighted)] {
            let others = bystanders(&before, &build(seed, SLOTS, after), &[changed.id]);
            prop_assert!(others * 100 <= SLOTS as usize * 3, "{name}: {others} slots of others moved");
        }
    }

    #[test]
    fn a_rotation_holds_the_largest_remainders(
        slots in sizes(),
        members in members(1..400, 1..=1_000).prop_map(some_down),
    ) {
        let alive: Vec<Member> = members.iter().filter(|m| m.is_usable()).copied().collect();
        let counts = count(&rotation(slots, &members));
        prop_assert_eq!(&counts, &count(&build(0, slots, &alive)));
    }

    /// Small weights, so that a round is shorter than the ring.
    #[test]
    fn a_round_of_a_rotation_holds_each_weight(slots in sizes(), members in members(1..40, 1..=12)) {
        let ring = rotation(slots, &members);
        let round: usize = members.iter().map(|m| usize::from(m.weight)).sum();
        for (start, window) in ring.windows(round).enumerate() {
            let counts = count(window);
            for member in &members {
                let off = held(&counts, member).abs_diff(member.weight.into());
                prop_assert!(off <= 1, "{member:?} is {off} off in {round} slots from {start}");
            }
        }
    }

    #[test]
    fn neither_order_nor_ids_matter_to_a_rotation(
        (members, shuffled) in members(1..60, 0..=50)
            .prop_map(some_down)
            .prop_flat_map(|members| (Just(members.clone()), Just(members).prop_shuffle())),
    ) {
        let ring = rotation(1_024, &members);
        prop_assert_eq!(&rotation(1_024, &shuffled), &ring);
        let renamed: Vec<Member> = shuffled.iter().map(|m| Member { id: 100_000 - m.id, ..*m }).collect();
        let expected: Vec<u32> = ring.iter().map(|&id| if id == 0 { 0 } else { 100_000 - id }).collect();
        prop_assert_eq!(rotation(1_024, &renamed), expected);
    }

    #[test]
    fn a_walk_visits_every_slot_once(seed: u64, size in 1..10_u32, port: u16) {
        let slots = 1 << size;
        let mut walk = Walk::new(seed, slots, SocketAddr::from(([10, 0, 0, 1], port)));
        let mut visited: Vec<u32> = (0..slots).map(|_| walk.next()).collect();
        visited.sort_unstable();
        prop_assert_eq!(visited, (0..slots).collect::<Vec<_>>());
    }

    #[test]
    fn list_and_walk_find_the_same_slot(
        seed: u64,
        size in 1..10_u32,
        picks in vec(any::<prop::sample::Index>(), 1..40),
        port: u16,
    ) {
        let slots = 1_usize << size;
        let mut owners = vec![0; slots];
        picks.iter().for_each(|pick| owners[pick.index(slots)] = FREE);
        let walk = || Walk::new(seed, slots as u32, SocketAddr::from(([10, 0, 0, 1], port)));
        let (mut walk, mut search, mut free) = (walk(), walk(), Free::new(&owners));
        prop_assert_eq!(free.walk_to_free(&mut walk), free.nearest_of_few(&mut search));
        prop_assert_eq!(walk.next(), search.next());
    }
}

/// Slots that moved although none of the given members has or had them.
fn bystanders(old: &[u32], new: &[u32], concerned: &[u32]) -> usize {
    old.iter()
        .zip(new)
        .filter(|(old, new)| old != new && !concerned.contains(old) && !concerned.contains(new))
        .count()
}

fn count(ring: &[u32]) -> BTreeMap<u32, u32> {
    let mut counts = BTreeMap::new();
    for &id in ring {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

fn held(counts: &BTreeMap<u32, u32>, member: &Member) -> u32 {
    counts.get(&member.id).copied().unwrap_or(0)
}

fn share(member: &Member, slots: u32, among: &[Member]) -> f64 {
    let total: f64 = among.iter().map(|m| f64::from(m.weight)).sum();
    f64::from(slots) * f64::from(member.weight) / total
}

fn member(id: u32, weight: u16) -> Member {
    let [_, a, b, c] = id.to_be_bytes();
    Member { id, address: SocketAddr::from(([10, a, b, c], 80)), weight, share: 100 }
}

fn down(member: Member) -> Member {
    Member { share: 0, ..member }
}

fn with_down(members: &[Member], ids: &[u32]) -> Vec<Member> {
    members.iter().map(|m| if ids.contains(&m.id) { down(*m) } else { *m }).collect()
}

/// About a third, and never the first.
fn some_down(members: Vec<Member>) -> Vec<Member> {
    let unlucky = |m: &Member| m.id > 1 && m.id.is_multiple_of(3);
    members.into_iter().map(|m| if unlucky(&m) { down(m) } else { m }).collect()
}

/// Some of the usable ones, and never the first two.
fn some_starting(members: Vec<Member>) -> impl Strategy<Value = Vec<Member>> {
    vec(1..=100_u8, members.len()).prop_map(move |shares| {
        let starting = |m: &Member| m.id > 2 && m.share > 0 && m.id.is_multiple_of(5);
        let part = |(m, share): (&Member, u8)| if starting(m) { Member { share, ..*m } } else { *m };
        members.iter().zip(shares).map(part).collect()
    })
}

/// Members with any addresses, ids from 1.
fn members(
    number: std::ops::Range<usize>,
    weight: std::ops::RangeInclusive<u16>,
) -> impl Strategy<Value = Vec<Member>> {
    btree_set(any::<(u32, u16)>(), number)
        .prop_flat_map(move |addresses| {
            let weights = vec(weight.clone(), addresses.len());
            (Just(addresses.into_iter().collect::<Vec<_>>()).prop_shuffle(), weights)
        })
        .prop_map(|(addresses, weights)| {
            let member = |((ip, port), weight), id| {
                let address = SocketAddr::from((std::net::Ipv4Addr::from_bits(ip), port));
                Member { id, address, weight, share: 100 }
            };
            addresses.into_iter().zip(weights).zip(1..).map(|(from, id)| member(from, id)).collect()
        })
}

fn sizes() -> impl Strategy<Value = u32> {
    (8..=13_u32).prop_map(|power| 1 << power)
}

/// The default size, at which the bounds on disruption are stated.
const SLOTS: u32 = lb_common::limits::SLOTS_DEFAULT;

const GOLDEN_ALL_UP: [u32; 16] = [1, 2, 1, 1, 3, 3, 1, 2, 1, 1, 2, 3, 2, 1, 1, 2];
const GOLDEN_FIRST_DOWN: [u32; 16] = [2, 2, 2, 2, 3, 3, 2, 2, 3, 3, 2, 3, 2, 2, 2, 2];

//! Elections on a link that loses, delays and reorders.

use proptest::prelude::*;

use super::*;
use crate::pure::vrrp::{
    testing::{Lan, Told, an_address, routers, vip},
    timer::Timer,
};

#[derive(Debug, Clone)]
struct Case {
    version: Version,
    nodes: Vec<Config>,
    lost_of_256: u64,
    /// Of an interval, in percent.
    delay: u32,
    /// What happens to whom while the link is bad.
    events: Vec<(usize, Trouble)>,
    random: u64,
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Crash,
    Restart,
    Weight(Verdict),
    Stop,
}

fn a_case() -> impl Strategy<Value = Case> {
    let wire = prop_oneof![
        Just((Version::V2, Family::V4)),
        Just((Version::V3, Family::V4)),
        Just((Version::V3, Family::V6))
    ];
    let unit = prop_oneof![Just(10), Just(100), Just(1_000)];
    (wire, unit, 2..=5_usize).prop_flat_map(|((version, family), unit, count)| {
        let trouble = prop_oneof![
            Just(Trouble::Crash),
            Just(Trouble::Restart),
            Just(Trouble::Stop),
            Just(Trouble::Weight(Verdict::Up)),
            Just(Trouble::Weight(Verdict::Down)),
        ];
        let nodes = proptest::collection::vec(a_node(version, family, unit), count);
        let events = proptest::collection::vec((0..count, trouble), 0..8);
        (nodes, 0..200_u64, 0..150_u32, events, any::<u64>()).prop_map(
            move |(nodes, lost_of_256, delay, events, random)| Case {
                version,
                nodes,
                lost_of_256,
                delay,
                events,
                random,
            },
        )
    })
}

fn a_node(version: Version, family: Family, unit: u64) -> impl Strategy<Value = Config> {
    let preempt = prop_oneof![
        2 => Just(Preempt::After(Duration::ZERO)),
        1 => Just(Preempt::Never),
        1 => Just(Preempt::After(ms(3 * unit))),
    ];
    let priority = prop_oneof![4 => 1..=254_u8, 1 => Just(100)];
    (priority, preempt, 1..=2_u64, any::<bool>()).prop_map(move |(priority, preempt, times, hand_over)| {
        let interval = if version == Version::V2 { ms(1_000) } else { ms(unit * times) };
        let addresses = vec![an_address(vip(family))];
        let script = Tracked::Script("x".to_owned());
        let effect = Effect::Weight { weight: -60, reverse: false };
        let track = vec![Track { what: script, effect }];
        Config { version, family, priority, preempt, interval, addresses, hand_over, track, ..a_router("r") }
    })
}

impl Case {
    fn interval_max(&self) -> Duration {
        self.nodes.iter().map(|node| node.interval).max().unwrap_or_default()
    }

    /// In which every timer of every node ends, and the link has carried what follows.
    fn settle(&self) -> Duration {
        let skew = if self.version == Version::V2 { ms(1_000) } else { self.interval_max() };
        4 * (3 * self.interval_max() + skew) + ms(10)
    }
}

/// Everything that holds at any time.
fn holds_always(lan: &Lan) -> Result<(), TestCaseError> {
    for (n, station) in lan.nodes.iter().enumerate().filter(|(_, station)| station.is_alive) {
        let is_active = lan.state(n) == State::Active.name();
        let is_installed = station.installed.values().any(|&installed| installed);
        prop_assert_eq!(is_active, is_installed, "node {}", n);
    }
    Ok(())
}

/// Each change begins where the last one ended, and says why.
fn changes_follow_each_other(lan: &Lan) -> Result<(), TestCaseError> {
    let mut states = BTreeMap::new();
    for told in &lan.told {
        if let Happening::Became { from, to, why, .. } = &told.what {
            let state = states.entry(told.by).or_insert(State::Initialize);
            prop_assert!(from == state && from != to && !why.is_empty(), "{}", told.what);
            *state = *to;
        }
    }
    Ok(())
}

/// When the first of the survivors must be Active: its own timer, set by the last advert.
fn bound(case: &Case, lan: &Lan, dead: usize, survivors: &[usize]) -> Duration {
    let interval = case.nodes[dead].interval;
    let down = |&n: &usize| {
        let priority = lan.nodes[n].node.status(lan.now).routers[0].priority_effective;
        Timer { version: case.version, priority, interval, adverts: 3 }.master_down()
    };
    survivors.iter().map(down).min().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn one_is_active_once_the_link_is_quiet_and_another_when_it_dies(case in a_case()) {
        let settings = |n: usize| routers([case.nodes[n].clone()]);
        let mut lan = Lan::new((0..case.nodes.len()).map(settings).collect(), case.random);
        lan.lost_of_256 = case.lost_of_256;
        lan.delay_max = case.interval_max() * case.delay / 100;
        for &(n, trouble) in &case.events {
            let pause = case.interval_max() * (lan.random() % 500) as u32 / 100;
            lan.run(pause);
            holds_always(&lan)?;
            match trouble {
                Trouble::Crash => lan.crash(n),
                Trouble::Stop if lan.nodes[n].is_alive => {
                    lan.input(n, Input::Stop);
                    lan.crash(n);
                }
                Trouble::Restart => lan.boot(n, settings(n)),
                Trouble::Weight(verdict) if lan.nodes[n].is_alive => {
                    let what = Tracked::Script("x".to_owned());
                    lan.input(n, Input::Tracked { what, verdict });
                }
                Trouble::Stop | Trouble::Weight(_) => {}
            }
        }
        lan.lost_of_256 = 0;
        lan.delay_max = ms(1);
        if lan.nodes.iter().all(|station| !station.is_alive) {
            lan.boot(0, settings(0));
        }
        // What was delayed must arrive, too.
        lan.run(case.interval_max() * 2 + case.settle());
        holds_always(&lan)?;
        let active = lan.active();
        prop_assert_eq!(active.len(), 1, "active: {:?}", active);

        let quiet_since = lan.now - lan.start;
        lan.run(case.settle());
        let changes = |lan: &Lan, since: Duration| {
            let is_change = |told: &&Told| told.at > since && matches!(told.what, Happening::Became { .. });
            lan.told.iter().filter(is_change).count()
        };
        prop_assert_eq!(changes(&lan, quiet_since), 0, "without a cause");
        prop_assert_eq!(lan.active(), active.clone());

        let dead = active[0];
        lan.crash(dead);
        let crashed = lan.now - lan.start;
        let survivors: Vec<_> = (0..lan.nodes.len()).filter(|&n| lan.nodes[n].is_alive).collect();
        let bound = bound(&case, &lan, dead, &survivors);
        lan.run(bound + ms(3));
        let takes = |told: &Told| {
            told.at > crashed && matches!(told.what, Happening::Became { to: State::Active, .. })
        };
        let took = lan.told.iter().any(takes);
        prop_assert_eq!(took, !survivors.is_empty(), "{:?} after the crash", bound);
        lan.run(case.settle());
        prop_assert_eq!(lan.active().len(), usize::from(!survivors.is_empty()));
        changes_follow_each_other(&lan)?;
    }
}

//! One case: warmed up, driven in rounds, and shown to have done what it claims.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lb_common::counter::Counter;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;

use super::{
    case::Case,
    driver::{Call, Driver, Order, Ran},
    packet::Packet,
    rig::Rig,
};

/// How much is driven. A call stays far below a second, for the kernel lets others run only between calls.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub rounds: u32,
    pub packets_per_round: u32,
}

/// A round of each: what a packet costs with the floor program, and with the program under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Round {
    pub floor_ns: u32,
    pub program_ns: u32,
}

#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub net_ns: f64,
    pub floor_ns: f64,
    /// A tenth of the rounds lie below the first, a tenth above the second.
    pub net_ns_p10: f64,
    pub net_ns_p90: f64,
    pub rounds: Vec<Round>,
}

/// Measures a case. `go_on` is asked between calls; an error from it ends the measurement.
pub fn measure(case: &Case, plan: Plan, go_on: &dyn Fn() -> Result<()>) -> Result<Measured> {
    let rig = Rig::new(case.setting)?;
    let mut floor = Driver::load(Call::Floor)?;
    let mut driver = Driver::load(Call::Program(rig.program()))?;
    for &kind in case.before {
        driver.set(Packet { kind, ..case.packet }, case.flows, Order::Ascending)?;
        warm_up(&mut driver, case, go_on)?;
    }
    floor.check(case.packet, case.flows, Order::Scattered)?;
    driver.set(case.packet, case.flows, Order::Scattered)?;
    warm_up(&mut driver, case, go_on)?;

    let before = rig.counters()?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        go_on()?;
        let floor = floor.run(plan.packets_per_round)?;
        let program = driver.run(plan.packets_per_round)?;
        check_action(case, program)?;
        rounds.push(Round { floor_ns: floor.mean.subsec_nanos(), program_ns: program.mean.subsec_nanos() });
    }
    let driven = u64::from(plan.rounds) * u64::from(plan.packets_per_round);
    check_counters(case, &before, &rig.counters()?, driven)?;
    Ok(Measured::of(rounds))
}

/// Binds the process to the last of the CPUs it may use: interrupts gather on the first.
pub fn pin() -> Result<usize> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own)?;
    let cpu = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let cpu = cpu.context("the process may use no cpu")?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(own, &one)?;
    Ok(cpu)
}

/// Every flow once, in calls of bounded length.
fn warm_up(driver: &mut Driver, case: &Case, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut left = case.flows;
    while left > 0 {
        go_on()?;
        let now = left.min(PACKETS_PER_CALL);
        let ran = driver.run(now)?;
        check_action(case, ran)?;
        left -= now;
    }
    Ok(())
}

fn check_action(case: &Case, ran: Ran) -> Result<()> {
    ensure!(ran.action == case.action, "{case}: returned {} instead of {}", ran.action, case.action);
    Ok(())
}

/// Every packet was counted by the case's counter and by no other.
fn check_counters(
    case: &Case,
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
    driven: u64,
) -> Result<()> {
    let grown = |name: &str| {
        let count = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
        count(after) - count(before)
    };
    let names = Counter::ALL.iter().map(|counter| counter.name());
    let counted: BTreeMap<_, _> = names.map(|name| (name, grown(name))).filter(|(_, n)| *n > 0).collect();
    let expected = BTreeMap::from([(case.counter.name(), driven)]);
    ensure!(counted == expected, "{case}: counted {counted:?} instead of {expected:?}");
    Ok(())
}

impl Measured {
    fn of(rounds: Vec<Round>) -> Measured {
        let mut net: Vec<f64> =
            rounds.iter().map(|round| f64::from(round.program_ns) - f64::from(round.floor_ns)).collect();
        let mut floor: Vec<f64> = rounds.iter().map(|round| f64::from(round.floor_ns)).collect();
        net.sort_by(f64::total_cmp);
        floor.sort_by(f64::total_cmp);
        Measured {
            net_ns: middle(&net),
            floor_ns: middle(&floor),
            net_ns_p10: part(&net, 0.1),
            net_ns_p90: part(&net, 0.9),
            rounds,
        }
    }
}

/// Mean of the middle half: as deaf to outliers as a median, and finer than the whole nanoseconds the kernel
/// reports.
fn middle(sorted: &[f64]) -> f64 {
    let quarter = sorted.len() / 4;
    let half = &sorted[quarter..sorted.len() - quarter];
    half.iter().sum::<f64>() / half.len().max(1) as f64
}

fn part(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((part * last).round() as usize).copied().unwrap_or(0.0)
}

const PACKETS_PER_CALL: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_round_does_not_count() {
        let rounds =
            [12, 10, 11, 900, 10, 13, 11, 12].map(|net| Round { floor_ns: 14, program_ns: 14 + net });
        let measured = Measured::of(rounds.to_vec());
        assert_eq!((measured.net_ns, measured.floor_ns), (11.5, 14.0));
        assert_eq!((measured.net_ns_p10, measured.net_ns_p90), (10.0, 13.0));
    }

    #[test]
    fn a_single_round_is_its_own_middle() {
        let measured = Measured::of(vec![Round { floor_ns: 14, program_ns: 10 }]);
        assert_eq!((measured.net_ns, measured.net_ns_p10, measured.net_ns_p90), (-4.0, -4.0, -4.0));
    }
}

//! One case: warmed up, driven in rounds, and shown to have done what it claims.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use lb_common::counter::Counter;
use serde::Serialize;

use super::{
    case::{Case, Sender},
    driver::{Call, Driver, Order, Ran, Script},
    packet::{Ends, Packet},
    reference::Reference,
    rig::{Rig, hop_back},
    spread::{middle, part},
};

/// How much is driven. A call stays far below a second, for the kernel lets others run only between calls.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    pub rounds: u32,
    pub packets_per_round: u32,
}

/// A round of each: what a packet costs with the floor program, and with the program under test; the same for
/// the program that only encapsulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Round {
    pub floor_ns: u32,
    pub program_ns: u32,
    pub encap_floor_ns: u32,
    pub encap_ns: u32,
}

#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub net_ns: f64,
    pub floor_ns: f64,
    /// A tenth of the rounds lie below the first, a tenth above the second.
    pub net_ns_p10: f64,
    pub net_ns_p90: f64,
    /// Of the no-map encapsulation program, net of its own floor, in the same rounds.
    pub encap_net_ns: f64,
    /// `net_ns` in units of it.
    pub ratio_to_encap: f64,
    pub rounds: Vec<Round>,
}

/// Measures a case. `go_on` is asked between calls; an error from it ends the measurement.
pub fn measure(case: &Case, plan: Plan, go_on: &dyn Fn() -> Result<()>) -> Result<Measured> {
    let rig = Rig::new(case.setting, &hop_back())?;
    let mut reference = Reference::new()?;
    let mut driver = Driver::load(Call::Program(rig.program()), case.flows)?;
    for &kind in case.before {
        let packet = Packet { kind, ..case.packet };
        driver.set(&Script { packet, order: Order::Ascending, ..script(case, &[]) })?;
        warm_up(&mut driver, case, case.action_before, go_on)?;
    }
    let ends = match case.sender {
        Sender::Clients => Vec::new(),
        Sender::Servers => rig.replies(case.flows)?,
    };
    let script = script(case, &ends);
    let mut floor = Driver::load(Call::Floor, case.flows)?;
    floor.check(&script, Ok)?;
    driver.set(&script)?;
    warm_up(&mut driver, case, case.action, go_on)?;

    let before = rig.counters()?;
    let mut rounds = Vec::new();
    for _ in 0..plan.rounds {
        go_on()?;
        let floor = floor.run(plan.packets_per_round)?;
        let program = driver.run(plan.packets_per_round)?;
        check_action(case, case.action, program)?;
        let encap = reference.run(plan.packets_per_round)?;
        rounds.push(Round {
            floor_ns: floor.mean.subsec_nanos(),
            program_ns: program.mean.subsec_nanos(),
            encap_floor_ns: encap.floor.mean.subsec_nanos(),
            encap_ns: encap.program.mean.subsec_nanos(),
        });
    }
    let driven = u64::from(plan.rounds) * u64::from(plan.packets_per_round);
    check_counters(case, &before, &rig.counters()?, driven)?;
    Ok(Measured::of(rounds))
}

/// What is driven while it is measured.
fn script<'a>(case: &Case, ends: &'a [Ends]) -> Script<'a> {
    let Case { packet, flows, moves_head, .. } = *case;
    Script { packet, flows, order: Order::Scattered, moves_head, ends }
}

/// Every flow once, in calls of bounded length.
fn warm_up(driver: &mut Driver, case: &Case, action: u32, go_on: &dyn Fn() -> Result<()>) -> Result<()> {
    let mut left = case.flows;
    while left > 0 {
        go_on()?;
        let now = left.min(PACKETS_PER_CALL);
        let ran = driver.run(now)?;
        check_action(case, action, ran)?;
        left -= now;
    }
    Ok(())
}

fn check_action(case: &Case, action: u32, ran: Ran) -> Result<()> {
    ensure!(ran.action == action, "{case}: returned {} instead of {action}", ran.action);
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
        let sorted = |value: fn(&Round) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let net = sorted(|round| f64::from(round.program_ns) - f64::from(round.floor_ns));
        let encap = sorted(|round| f64::from(round.encap_ns) - f64::from(round.encap_floor_ns));
        let floor = sorted(|round| f64::from(round.floor_ns));
        Measured {
            net_ns: middle(&net),
            floor_ns: middle(&floor),
            net_ns_p10: part(&net, 0.1),
            net_ns_p90: part(&net, 0.9),
            encap_net_ns: middle(&encap),
            ratio_to_encap: middle(&net) / middle(&encap),
            rounds,
        }
    }
}

const PACKETS_PER_CALL: u32 = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn round(program_ns: u32) -> Round {
        Round { floor_ns: 14, program_ns, encap_floor_ns: 17, encap_ns: 40 }
    }

    #[test]
    fn a_disturbed_round_does_not_count() {
        let rounds = [12, 10, 11, 900, 10, 13, 11, 12].map(|net| round(14 + net));
        let measured = Measured::of(rounds.to_vec());
        assert_eq!((measured.encap_net_ns, measured.ratio_to_encap), (23.0, 0.5));
        assert_eq!((measured.net_ns, measured.floor_ns), (11.5, 14.0));
        assert_eq!((measured.net_ns_p10, measured.net_ns_p90), (10.0, 13.0));
    }

    #[test]
    fn a_single_round_is_its_own_middle() {
        let measured = Measured::of(vec![round(10)]);
        assert_eq!((measured.net_ns, measured.net_ns_p10, measured.net_ns_p90), (-4.0, -4.0, -4.0));
    }
}

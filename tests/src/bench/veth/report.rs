//! The table for people, in Markdown, and the file for programs.

use std::fmt::{self, Display};

use anyhow::Result;
use serde::Serialize;

use super::{Cpus, Plan, Round, way::Way};
use crate::bench::{machine::Machine, spread::part};

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub cpus: Cpus,
    pub plan: Plan,
    pub ways: Vec<Line>,
}

#[derive(Serialize)]
pub struct Line {
    pub name: &'static str,
    /// CPU time of a packet: the median of the rounds, and what a tenth of them lies below and above.
    pub ns: f64,
    pub ns_p10: f64,
    pub ns_p90: f64,
    pub packets_per_second_per_core: f64,
    /// Packets of this way in the time of one of the others.
    pub ratio_to_bounce: f64,
    pub ratio_to_dnat: f64,
    pub forwarded: u64,
    pub rounds: Vec<Round>,
}

impl Report {
    pub(super) fn new(plan: Plan, cpus: Cpus, ways: Vec<(Way, Vec<Round>)>) -> Result<Report> {
        let median = |wanted: Way| {
            let rounds = ways.iter().find(|(way, _)| *way == wanted).map(|(_, rounds)| costs(rounds));
            part(&rounds.unwrap_or_default(), 0.5)
        };
        let (bounce, dnat) = (median(Way::Bounce), median(Way::Dnat));
        let line = |way: Way, rounds: Vec<Round>| {
            let costs = costs(&rounds);
            let ns = part(&costs, 0.5);
            Line {
                name: way.name(),
                ns,
                ns_p10: part(&costs, 0.1),
                ns_p90: part(&costs, 0.9),
                packets_per_second_per_core: NS_PER_SECOND / ns,
                ratio_to_bounce: bounce / ns,
                ratio_to_dnat: dnat / ns,
                forwarded: rounds.iter().map(|round| round.forwarded).sum(),
                rounds,
            }
        };
        let ways = ways.iter().map(|(way, rounds)| line(*way, rounds.clone())).collect();
        Ok(Report { machine: Machine::here()?, cpus, plan, ways })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, kernel {}, {}.", self.machine.cpu, self.machine.kernel, self.machine.date)?;
        writeln!(
            f,
            "{} rounds of {} frames of {} flows to each way; cpu {} sends, cpu {} forwards and receives.",
            self.plan.rounds,
            self.plan.frames_per_round,
            self.plan.flows,
            self.cpus.generator,
            self.cpus.forwarder
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "| way                     | Mpps per core | ns/packet |     p10-p90 | to bounce | to dnat | forwarded |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|")?;
        self.ways.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = format!("{:.0} to {:.0}", self.ns_p10, self.ns_p90);
        write!(
            f,
            "| {:<23} | {:>13.2} | {:>9.0} | {spread:>11} | {:>9.2} | {:>7.2} | {:>9} |",
            self.name,
            self.packets_per_second_per_core / 1e6,
            self.ns,
            self.ratio_to_bounce,
            self.ratio_to_dnat,
            self.forwarded,
        )
    }
}

/// Nanoseconds of a packet in each round, in ascending order.
fn costs(rounds: &[Round]) -> Vec<f64> {
    let mut costs: Vec<f64> =
        rounds.iter().map(|round| round.cpu_ns as f64 / round.forwarded as f64).collect();
    costs.sort_by(f64::total_cmp);
    costs
}

const NS_PER_SECOND: f64 = 1e9;

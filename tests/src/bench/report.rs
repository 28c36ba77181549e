//! The table for people, in Markdown, and the file for programs.

use std::fmt::{self, Display};

use anyhow::Result;
use serde::Serialize;

use super::{
    case::{Bars, Case},
    machine::Machine,
    measure::{Measured, Plan},
};

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub cpu: usize,
    pub plan: Plan,
    pub cases: Vec<Line>,
}

#[derive(Serialize)]
pub struct Line {
    pub name: &'static str,
    pub flows: u32,
    pub must_ns: Option<f64>,
    pub aim_ns: Option<f64>,
    pub verdict: &'static str,
    #[serde(flatten)]
    pub measured: Measured,
}

impl Report {
    pub fn new(plan: Plan, cpu: usize) -> Result<Report> {
        Ok(Report { machine: Machine::here()?, cpu, plan, cases: Vec::new() })
    }

    pub fn add(&mut self, case: &Case, measured: Measured) {
        self.cases.push(Line {
            name: case.name,
            flows: case.flows,
            must_ns: case.bars.map(|bars| bars.must_ns),
            aim_ns: case.bars.map(|bars| bars.aim_ns),
            verdict: case.bars.map_or("", |bars| verdict(bars, measured.net_ns)),
            measured,
        });
    }

    /// Names of the cases that missed what they must reach.
    pub fn missed(&self) -> impl Iterator<Item = &Line> {
        self.cases.iter().filter(|line| line.verdict == MISSED)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, kernel {}, {}.", self.machine.cpu, self.machine.kernel, self.machine.date)?;
        writeln!(f)?;
        writeln!(f, "{HEAD}")?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|")?;
        self.cases.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = &self.measured;
        let spread = format!("{:.0} to {:.0}", measured.net_ns_p10, measured.net_ns_p90);
        write!(
            f,
            "| {:<29} | {:>9} | {:>6.1} | {:>10} | {:>5.0} | {:>4} | {:>4} | {:<7} | {:>5.1} | {:>5.2} |",
            self.name,
            self.flows,
            measured.net_ns,
            spread,
            measured.floor_ns,
            whole(self.must_ns),
            whole(self.aim_ns),
            self.verdict,
            measured.encap_net_ns,
            measured.ratio_to_encap,
        )
    }
}

fn whole(ns: Option<f64>) -> String {
    ns.map_or_else(String::new, |ns| format!("{ns:.0}"))
}

fn verdict(bars: Bars, net_ns: f64) -> &'static str {
    if net_ns <= bars.aim_ns {
        "aim"
    } else if net_ns <= bars.must_ns {
        "must"
    } else {
        MISSED
    }
}

const MISSED: &str = "MISSED";
const HEAD: &str = "| case                          |     flows | net ns |    p10-p90 | floor | must |  aim | \
                    reached | encap | ratio |";

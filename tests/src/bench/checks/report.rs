//! The table for people, in Markdown, and the file for programs.

use std::fmt::{self, Display};

use anyhow::Result;
use serde::Serialize;

use super::{Plan, Seen};
use crate::bench::machine::Machine;

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub plan: Plan,
    pub seen: Vec<Seen>,
}

impl Report {
    pub(super) fn new(plan: Plan, seen: Vec<Seen>) -> Result<Report> {
        Ok(Report { machine: Machine::here()?, plan, seen })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { servers, interval_ms, seconds } = self.plan;
        writeln!(f, "{}, kernel {}, {}.", self.machine.cpu, self.machine.kernel, self.machine.date)?;
        writeln!(f, "{servers} servers, a TCP check each every {interval_ms} ms, watched for {seconds} s.")?;
        writeln!(f)?;
        writeln!(
            f,
            "| silent | % of a cpu | MiB | sockets | checks/s | per 100 ms | late ms, median | p99 | max |"
        )?;
        writeln!(f, "|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for seen in &self.seen {
            let even = format!("{} to {}", seen.checks_min, seen.checks_max);
            writeln!(
                f,
                "| {} % | {:.1} | {:.0} | {} | {:.0} | {even} | {:.1} | {:.1} | {:.1} |",
                seen.silent,
                seen.cpu_percent,
                seen.memory_mib,
                seen.sockets_max,
                seen.checks as f64 / seconds as f64,
                seen.late_ms.p50,
                seen.late_ms.p99,
                seen.late_ms.max,
            )?;
        }
        Ok(())
    }
}

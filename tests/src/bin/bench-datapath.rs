//! `cargo xtask bench datapath`: prints the table, writes the rounds as JSON.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use lb_tests::bench::{Case, Plan, Report, cases, end_when_asked, ended, go_on, measure, pin, save, show};

/// Nanoseconds of CPU per packet through the XDP program, net of one that only passes.
#[derive(Parser)]
struct Arguments {
    /// Where the rounds of every case are written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/datapath.json")]
    json: PathBuf,
    /// Rounds of each case; half of them decide, so more give a steadier number.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(4..=100_000))]
    rounds: u32,
    /// Packets of each half of a round.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    packets: u32,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only cases with this number of flows.
    #[arg(long)]
    flows: Option<u32>,
}

fn main() -> ExitCode {
    ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    end_when_asked()?;
    let plan = Plan { rounds: arguments.rounds, packets_per_round: arguments.packets };
    let mut report = Report::new(plan, pin()?)?;
    for case in cases().iter().filter(|case| wanted(arguments, case)) {
        report.add(case, measure(case, plan, &go_on)?);
    }
    save(&report, &arguments.json)?;
    let missed = report.missed().map(|line| {
        let (must, net) = (line.must_ns.unwrap_or_default(), line.measured.net_ns);
        format!("MISSED by {:.0} ns: {}, {} flows\n", net - must, line.name, line.flows)
    });
    show(&(report.to_string() + &missed.collect::<String>()))
}

fn wanted(arguments: &Arguments, case: &Case) -> bool {
    case.name.contains(&arguments.only) && arguments.flows.is_none_or(|flows| case.flows == flows)
}

//! `cargo xtask bench veth`: prints the table, writes the rounds as JSON.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use clap::Parser;
use lb_tests::bench::{
    end_when_asked, ended, go_on, tell,
    veth::{Plan, measure},
};

/// Packets per second that one core forwards over links, by each way of doing it.
#[derive(Parser)]
struct Arguments {
    /// Where the rounds of every way are written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/veth.json")]
    json: PathBuf,
    /// Rounds of each way, which take turns.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Frames sent to each way in a round.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(10_000..=100_000_000))]
    frames: u32,
    /// Flows among the frames, a power of two.
    #[arg(long, default_value_t = 1 << 16, value_parser = clap::value_parser!(u32).range(1..=1 << 17))]
    flows: u32,
}

fn main() -> ExitCode {
    ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.flows.is_power_of_two(), "--flows {}: use a power of two", arguments.flows);
    end_when_asked()?;
    let plan = Plan { rounds: arguments.rounds, frames_per_round: arguments.frames, flows: arguments.flows };
    let report = measure(plan, &go_on)?;
    tell(&report, &arguments.json)
}

//! `cargo xtask bench rings`: prints the table, writes the times as JSON.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use lb_tests::bench::{
    end_when_asked, ended, go_on,
    rings::{Plan, measure},
    tell,
};

/// The time to build rings, and to load a large configuration.
#[derive(Parser)]
struct Arguments {
    /// Where the result is written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/rings.json")]
    json: PathBuf,
    /// Of each ring.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
}

fn main() -> ExitCode {
    ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    end_when_asked()?;
    let report = measure(Plan { rounds: arguments.rounds }, &go_on)?;
    tell(&report, &arguments.json)
}

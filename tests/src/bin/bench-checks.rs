//! `cargo xtask bench checks`: prints the table, writes what was seen as JSON.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use lb_tests::bench::{
    checks::{Plan, measure},
    end_when_asked, ended, go_on, tell,
};

/// What it takes to check thousands of servers, and how punctual their checks are.
#[derive(Parser)]
struct Arguments {
    /// Where the result is written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/checks.json")]
    json: PathBuf,
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=30_000))]
    servers: u32,
    /// From check to check of a server.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
    /// How long each case is watched.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    seconds: u64,
}

fn main() -> ExitCode {
    ended(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    end_when_asked()?;
    let Arguments { servers, interval_ms, seconds, .. } = *arguments;
    let report = measure(Plan { servers, interval_ms, seconds }, &go_on)?;
    tell(&report, &arguments.json)
}

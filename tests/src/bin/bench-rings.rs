//! `cargo xtask bench rings`: prints the table, writes the times as JSON.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser;
use lb_tests::bench::{
    end_when_asked, go_on,
    rings::{Plan, measure},
    save,
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
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    end_when_asked()?;
    let report = measure(Plan { rounds: arguments.rounds }, &go_on)?;
    save(&report, &arguments.json)?;
    match write!(io::stdout().lock(), "{report}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

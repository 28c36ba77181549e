//! `cargo xtask bench failover`: prints the table, writes every run as JSON.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use lb_tests::{
    bed::interrupt,
    bench::{
        ended,
        failover::{Event, Plan, Product, measure},
        tell,
    },
};

/// For how long clients go without an answer when something happens to the node that has the address.
#[derive(Parser)]
struct Arguments {
    /// Where every run is written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/failover.json")]
    json: PathBuf,
    /// Of each event with each product.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Only these events, separated by commas; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    events: Vec<Event>,
    /// Only these products; both by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    products: Vec<Product>,
    /// Kept open during the first run of each event; 0: none.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    connections: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ended(interrupt::watch().and_then(|watch| {
        let done = run(&arguments);
        watch.finish();
        done
    }))
}

fn run(arguments: &Arguments) -> Result<()> {
    let report = measure(Plan {
        runs: arguments.runs,
        events: some_or_all(&arguments.events),
        products: some_or_all(&arguments.products),
        connections: arguments.connections as usize,
    })?;
    tell(&report, &arguments.json)
}

fn some_or_all<T: ValueEnum>(some: &[T]) -> Vec<T> {
    let chosen = if some.is_empty() { T::value_variants() } else { some };
    chosen.to_vec()
}

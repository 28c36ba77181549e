//! `cargo xtask soak vrrp`: prints what was done and seen, writes it as JSON; fails at the first violation.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use lb_tests::{
    bed::interrupt,
    bench::{ended, tell},
    soak::vrrp::{Plan, run},
};

/// Nodes that share addresses while links are cut and daemons stopped, killed and reloaded.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_800, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    seconds: u64,
    /// Of an earlier run, to have the same acts again; another one each time unless given.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Nodes with Steelyard.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    nodes: u8,
    /// No node with Keepalived beside them.
    #[arg(long)]
    alone: bool,
    /// No heartbeats: adverts alone decide.
    #[arg(long)]
    no_heartbeats: bool,
    #[arg(long, value_name = "FILE", default_value = "target/bench/soak-vrrp.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    ended(interrupt::watch().and_then(|watch| {
        let done = soak(&arguments);
        watch.finish();
        done
    }))
}

fn soak(arguments: &Arguments) -> Result<()> {
    let now = || jiff::Timestamp::now().as_microsecond().unsigned_abs() % 1_000_000_000;
    let seed = arguments.seed.unwrap_or_else(now);
    eprintln!("--seed {seed}");
    let report = run(Plan {
        seconds: arguments.seconds,
        seed,
        nodes: arguments.nodes.into(),
        foreign: !arguments.alone,
        heartbeats: !arguments.no_heartbeats,
    })?;
    tell(&report, &arguments.json)
}

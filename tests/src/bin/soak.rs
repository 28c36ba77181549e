//! `cargo xtask soak`: prints what each change cost, writes it as JSON; fails when a connection broke.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use clap::Parser;
use lb_tests::{
    bed::{Forward, interrupt},
    bench::{ended, tell},
    soak::{self, Deaths, Plan},
};

/// Many connections that stay open while servers, weights, configurations, daemons and programs change.
#[derive(Parser)]
struct Arguments {
    #[arg(long, value_parser = forward, default_value = "dsr")]
    forward: Forward,
    /// TCP connections, kept from the first step to the last.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=25_000))]
    connections: u32,
    /// Connections that speak after every step; all of them unless given.
    #[arg(long, value_name = "N")]
    active: Option<u32>,
    /// Flows of datagrams beside them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=2_000))]
    datagrams: u32,
    /// Capacity of the flow table, such as one that is too small.
    #[arg(long, value_name = "N")]
    flows: Option<u32>,
    /// Measure instead how long a dead server still gets new connections.
    #[arg(long)]
    death: bool,
    #[arg(long, value_name = "FILE", default_value = "target/bench/soak.json")]
    json: PathBuf,
}

fn forward(name: &str) -> Result<Forward, String> {
    let known = Forward::ALL.into_iter().find(|forward| forward.name() == name);
    known.ok_or_else(|| format!("known are {}", Forward::ALL.map(Forward::name).join(", ")))
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
    if arguments.death {
        let deaths = Deaths::of(arguments.forward)?;
        tell(&deaths, &arguments.json)?;
        ensure!(deaths.in_time(), "a dead server got new connections for longer than its checks take");
        return Ok(());
    }
    let report = soak::run(Plan {
        forward: arguments.forward,
        connections: arguments.connections as usize,
        active: arguments.active.unwrap_or(arguments.connections) as usize,
        datagram_flows: arguments.datagrams as usize,
        flows: arguments.flows,
    })?;
    tell(&report, &arguments.json)?;
    ensure!(report.broken() == 0, "{} connections broke", report.broken());
    Ok(())
}

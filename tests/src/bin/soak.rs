//! `cargo xtask soak`: prints what each change cost, writes it as JSON; fails when a connection broke.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use lb_tests::{
    bed::Forward,
    soak::{self, Plan},
};

/// Many connections that stay open while servers, weights, configurations, daemons and programs change.
#[derive(Parser)]
struct Arguments {
    #[arg(long, value_enum, default_value = "dsr")]
    forward: Mode,
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

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Nat,
    Gateway,
    Dsr,
    Ipip,
    Gue,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything held.
fn run(arguments: &Arguments) -> Result<bool> {
    let forward = match arguments.forward {
        Mode::Nat => Forward::Nat,
        Mode::Gateway => Forward::Gateway,
        Mode::Dsr => Forward::Dsr,
        Mode::Ipip => Forward::Ipip,
        Mode::Gue => Forward::Gue,
    };
    if arguments.death {
        return deaths(forward, arguments);
    }
    let report = soak::run(Plan {
        forward,
        connections: arguments.connections as usize,
        active: arguments.active.unwrap_or(arguments.connections) as usize,
        datagram_flows: arguments.datagrams as usize,
        flows: arguments.flows,
    })?;
    print!("{report}");
    save(&report, arguments)?;
    Ok(report.broken() == 0)
}

fn deaths(forward: Forward, arguments: &Arguments) -> Result<bool> {
    let deaths = [false, true]
        .map(|silent| soak::time_to_the_last(forward, silent))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    for death in &deaths {
        println!(
            "{} {}: the last connection to a dead server began {:.0} ms after its death (limit {:.0} ms); {} of {} went there",
            death.forward, death.kind, death.last_ms, death.limit_ms, death.lost, death.tried
        );
    }
    save(&deaths, arguments)?;
    Ok(deaths.iter().all(|death| death.last_ms <= death.limit_ms))
}

fn save(report: &impl serde::Serialize, arguments: &Arguments) -> Result<()> {
    if let Some(directory) = arguments.json.parent() {
        fs::create_dir_all(directory)?;
    }
    let text = serde_json::to_string_pretty(report)?;
    fs::write(&arguments.json, text).with_context(|| format!("writing {}", arguments.json.display()))
}

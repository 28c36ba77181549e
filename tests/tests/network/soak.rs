//! The soak on a small scale; `cargo xtask soak` has the large one.

use anyhow::{Context, Result, ensure};
use lb_tests::{
    bed::Forward,
    soak::{Plan, run, time_to_the_last, vrrp},
};

fn nothing_breaks(plan: Plan) -> Result<()> {
    let report = run(plan)?;
    ensure!(report.broken() == 0, "{report}");
    let excused: u32 = report.rows.iter().map(|row| row.excused).sum();
    ensure!(excused > 0, "two servers died, and nobody noticed: {report}");
    Ok(())
}

#[test]
fn nothing_breaks_connections_of_dsr() -> Result<()> {
    nothing_breaks(Plan {
        forward: Forward::Dsr,
        connections: 1_000,
        active: 1_000,
        datagram_flows: 50,
        flows: None,
    })
}

#[test]
fn nothing_breaks_connections_of_nat() -> Result<()> {
    nothing_breaks(Plan {
        forward: Forward::Nat,
        connections: 1_000,
        active: 1_000,
        datagram_flows: 50,
        flows: None,
    })
}

#[test]
fn nothing_breaks_idle_connections() -> Result<()> {
    nothing_breaks(Plan {
        forward: Forward::Dsr,
        connections: 1_000,
        active: 50,
        datagram_flows: 0,
        flows: None,
    })
}

/// More connections move than the table can record.
#[test]
fn nothing_breaks_while_the_table_is_full() -> Result<()> {
    nothing_breaks(Plan {
        forward: Forward::Dsr,
        connections: 3_000,
        active: 3_000,
        datagram_flows: 0,
        flows: Some(1_024),
    })
}

#[test]
fn a_dead_server_gets_no_connection_for_longer_than_its_checks_take() -> Result<()> {
    for (forward, silent) in [(Forward::Dsr, false), (Forward::Nat, true)] {
        let death = time_to_the_last(forward, silent)?;
        // The figure is the soak's; here other scenarios share the machine.
        ensure!(death.last_ms <= death.limit_ms + CROWDED_MS, "{death:?}");
    }
    Ok(())
}

/// Three nodes of ours and Keepalived; another seed each time, which a failure tells.
#[test]
fn addresses_are_never_on_two_nodes_nor_on_none() -> Result<()> {
    let seed = u64::from(std::process::id());
    let plan = vrrp::Plan { seconds: 60, seed, nodes: 3, foreign: true, heartbeats: true };
    let report = vrrp::run(plan).with_context(|| format!("--seed {seed}"))?;
    eprintln!("{report}");
    Ok(())
}

const CROWDED_MS: f64 = 2_000.0;

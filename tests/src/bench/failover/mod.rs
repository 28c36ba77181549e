//! `cargo xtask bench failover`: for how long clients go without an answer when something happens to the node that
//! has the address, with Keepalived and with Steelyard.
//!
//! Owns the events, the probes and the clocks. Must not know how a node decides: it sees answers, and addresses.
//!
//! ```text
//!              ┌─ a: product, responder ─┐
//! probes ──────┤                         ├── event, at a random phase ─► the longest gap between two answers
//! crowd ───────┴─ b: product, responder ─┘   web1, web2: the servers of the crowd's connections
//! ```
//!
//! Everything runs with the same real-time priority, so that what else the machine does counts for neither product.

mod crowd;
mod event;
mod probe;
mod product;
mod report;
mod stage;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

pub use self::{event::Event, product::Product, report::Report};
use self::{report::Row, stage::Stage};
use crate::bed::Pair;

#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Of each event with each product.
    pub runs: u32,
    pub events: Vec<Event>,
    pub products: Vec<Product>,
    /// Kept open through each event; 0: none.
    pub connections: usize,
}

/// One event with one product, once.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Run {
    /// The worse of the next two.
    pub outage_ms: f64,
    pub udp_ms: f64,
    pub tcp_ms: f64,
    /// Probes that got no answer.
    pub failed: usize,
    /// The longest time that no probe was sent: what is shorter than this cannot be seen.
    pub pause_ms: f64,
    /// Until the address was on one node alone, where that is part of the event.
    pub one_holder_ms: Option<f64>,
}

/// Measures event by event, the products in turn.
pub fn measure(plan: Plan) -> Result<Report> {
    run_before_others()?;
    let mut rows = Vec::new();
    for &event in &plan.events {
        for &product in &plan.products {
            eprintln!("{}: {}", product.name(), event.title());
            rows.push(
                row(&plan, event, product)
                    .with_context(|| format!("{} with {}", event.title(), product.name()))?,
            );
        }
    }
    Report::new(plan, rows)
}

fn row(plan: &Plan, event: Event, product: Product) -> Result<Row> {
    let pair = Pair::new(2, 2)?;
    let mut stage = Stage::new(&pair, product, event.timing())?;
    let (mut runs, mut lost) = (Vec::new(), None);
    for number in 0..plan.runs {
        let crowd = (number == 0 && plan.connections > 0).then_some(plan.connections);
        let (run, broken) = stage.run(event, crowd)?;
        lost = lost.or(broken);
        runs.push(run);
    }
    Ok(Row { event, product, runs, lost })
}

/// This process, and what it starts.
fn run_before_others() -> Result<()> {
    let own = std::process::id().to_string();
    let status = Command::new("chrt").args(["--rr", "--pid", PRIORITY, &own]).status();
    let done = status.context("starting chrt")?.success();
    ensure!(done, "chrt did not raise the priority: run as root");
    Ok(())
}

const PRIORITY: &str = "20";

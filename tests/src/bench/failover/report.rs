//! The table for people, in Markdown, and the file for programs.

use std::fmt::{self, Display};

use anyhow::Result;
use serde::Serialize;

use super::{Event, Plan, Product, Run};
use crate::bench::{machine::Machine, spread::part};

#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub plan: Plan,
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Row {
    pub event: Event,
    pub product: Product,
    pub runs: Vec<Run>,
    /// Of the crowd's connections, where there was one.
    pub lost: Option<usize>,
}

/// Of the outages of a row, in milliseconds.
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Report {
    pub(super) fn new(plan: Plan, rows: Vec<Row>) -> Result<Report> {
        Ok(Report { machine: Machine::here()?, plan, rows })
    }

    fn row(&self, event: Event, product: Product) -> Option<&Row> {
        self.rows.iter().find(|row| row.event == event && row.product == product)
    }
}

impl Row {
    fn spread(&self) -> Spread {
        let mut outages: Vec<f64> = self.runs.iter().map(|run| run.outage_ms).collect();
        outages.sort_by(f64::total_cmp);
        Spread { min: part(&outages, 0.0), median: part(&outages, 0.5), max: part(&outages, 1.0) }
    }

    /// By the median, as the bars are.
    fn reached(&self) -> &'static str {
        let ((must, aim), Spread { median, .. }) = (self.event.bars(), self.spread());
        match median {
            median if median <= aim => "aim",
            median if median <= must => "must",
            _ => "missed",
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { runs, connections, .. } = self.plan;
        writeln!(f, "{}, kernel {}, {}.", self.machine.cpu, self.machine.kernel, self.machine.date)?;
        writeln!(f, "{runs} runs of each; the client's outage in ms (min / median / max); of {connections}")?;
        writeln!(f, "connections that were open during the first run, those that did not survive.")?;
        writeln!(f)?;
        writeln!(
            f,
            "| event | Keepalived + HAProxy | lost | Steelyard | lost | ratio | must | aim | reached |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|---|")?;
        for &event in &self.plan.events {
            let [theirs, ours] =
                [Product::Keepalived, Product::Steelyard].map(|product| self.row(event, product));
            let (must, aim) = event.bars();
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} | {must:.0} | {aim:.0} | {} |",
                event.title(),
                spread(theirs),
                lost(theirs),
                spread(ours),
                lost(ours),
                ratio(theirs, ours),
                ours.map_or("", Row::reached),
            )?;
        }
        Ok(())
    }
}

fn spread(row: Option<&Row>) -> String {
    let Some(Spread { min, median, max }) = row.map(Row::spread) else { return String::new() };
    format!("{min:.0} / {median:.0} / {max:.0}")
}

fn lost(row: Option<&Row>) -> String {
    row.and_then(|row| row.lost).map(|lost| lost.to_string()).unwrap_or_default()
}

/// How many times longer theirs is; an outage below a millisecond counts as one, since nothing shorter is seen.
fn ratio(theirs: Option<&Row>, ours: Option<&Row>) -> String {
    let (Some(theirs), Some(ours)) = (theirs, ours) else { return String::new() };
    format!("{:.1}", theirs.spread().median.max(1.0) / ours.spread().median.max(1.0))
}

//! What each step of the soak cost, as a table and as JSON.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub forward: String,
    pub connections: usize,
    /// That speak after every step; the others are silent from the first to the last.
    pub active: usize,
    pub datagram_flows: usize,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub step: String,
    /// Open after it.
    pub connections: usize,
    /// Though their server lived all along.
    pub broken: u32,
    /// Of a server that was down.
    pub excused: u32,
    pub datagrams_moved: u32,
    pub slots_unsettled: u32,
    /// Records in the flow table.
    pub flows: u64,
    pub seconds: f64,
}

impl Report {
    pub fn broken(&self) -> u32 {
        self.rows.iter().map(|row| row.broken + row.datagrams_moved).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} connections, {} of them speak after every step, and {} flows of datagrams",
            self.forward, self.connections, self.active, self.datagram_flows
        )?;
        writeln!(
            f,
            "{:<38} {:>6} {:>7} {:>8} {:>6} {:>10} {:>8} {:>7}",
            "step", "open", "broken", "excused", "moved", "unsettled", "flows", "s"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<38} {:>6} {:>7} {:>8} {:>6} {:>10} {:>8} {:>7.1}",
                row.step,
                row.connections,
                row.broken,
                row.excused,
                row.datagrams_moved,
                row.slots_unsettled,
                row.flows,
                row.seconds
            )?;
        }
        writeln!(f, "broken in all: {}", self.broken())
    }
}

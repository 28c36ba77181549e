//! What was done, and the longest that anything was wrong; as a table and as JSON.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    Plan,
    act::Act,
    watch::{Watch, Wrong},
};

#[derive(Debug, Serialize)]
pub struct Report {
    pub plan: Plan,
    /// How often each was done.
    pub done: BTreeMap<String, u32>,
    /// In milliseconds, with no act in between.
    pub longest_ms: BTreeMap<&'static str, f64>,
    /// Heard by the switch.
    pub adverts: usize,
    #[serde(skip)]
    last: Vec<Act>,
}

impl Report {
    pub(super) fn new(plan: Plan) -> Report {
        Report { plan, done: BTreeMap::new(), longest_ms: BTreeMap::new(), adverts: 0, last: Vec::new() }
    }

    pub(super) fn count(&mut self, act: Act) {
        let name = match act {
            Act::Stop(_) => "stopped",
            Act::Kill(_) => "killed (-9)",
            Act::Start(_) => "started",
            Act::Reload(_) => "reloaded",
            Act::Change(_) => "reloaded with other priorities",
            Act::Cut(_) => "cut off",
            Act::Unplug(_) => "unplugged",
            Act::Mend(_) => "mended",
        };
        *self.done.entry(name.to_owned()).or_default() += 1;
        if self.last.len() == LAST {
            self.last.remove(0);
        }
        self.last.push(act);
    }

    pub(super) fn acts(&self) -> u32 {
        self.done.values().sum()
    }

    pub(super) fn last(&self) -> &[Act] {
        &self.last
    }

    pub(super) fn longest(&mut self, watch: &Watch) {
        let ms = |wrong| watch.longest(wrong).as_secs_f64() * 1e3;
        self.longest_ms = Wrong::ALL.map(|wrong| (wrong.name(), ms(wrong))).into();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seconds, seed, nodes, foreign, .. } = self.plan;
        let foreign = if foreign { " and one with Keepalived" } else { "" };
        writeln!(f, "{nodes} nodes{foreign}, {seconds} s, --seed {seed}, {} adverts", self.adverts)?;
        writeln!(f)?;
        writeln!(f, "| done | times |\n|---|--:|")?;
        for (name, times) in &self.done {
            writeln!(f, "| {name} | {times} |")?;
        }
        writeln!(f)?;
        writeln!(f, "| for at most | ms |\n|---|--:|")?;
        for (name, ms) in &self.longest_ms {
            writeln!(f, "| {name} | {ms:.0} |")?;
        }
        Ok(())
    }
}

/// Acts that are told of with a violation.
const LAST: usize = 8;

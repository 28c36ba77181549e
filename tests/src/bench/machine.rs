//! Where a measurement was made: what makes two of them comparable.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub kernel: String,
    /// A guest shares caches with others and pays twice for a miss of its address translation.
    pub hypervisor: bool,
    /// RFC 3339.
    pub date: String,
}

impl Machine {
    pub(super) fn here() -> Result<Machine> {
        let cpus = read("/proc/cpuinfo")?;
        let field = |name: &str| {
            cpus.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        Ok(Machine {
            cpu: field("model name").unwrap_or_else(|| "unknown".to_owned()),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            hypervisor: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    }
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

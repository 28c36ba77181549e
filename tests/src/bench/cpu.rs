//! Which processors take part: interrupts gather on the first, so the measured work goes to the last.

use std::fs;

use anyhow::{Context, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Binds the process to the last of the CPUs it may use.
pub fn pin() -> Result<usize> {
    let cpu = *allowed()?.last().context("the process may use no cpu")?;
    bind(Pid::from_raw(0), cpu)?;
    Ok(cpu)
}

/// The CPUs the process may use, in ascending order.
pub(super) fn allowed() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect())
}

/// Every thread that a process has by now.
pub(super) fn bind_all(pid: Pid, cpu: usize) -> Result<()> {
    let tasks =
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    for task in tasks {
        let thread = task?.file_name().to_string_lossy().parse().context("a thread's id is a number")?;
        bind(Pid::from_raw(thread), cpu)?;
    }
    Ok(())
}

/// Pid 0: the calling thread, and those it starts.
pub(super) fn bind(pid: Pid, cpu: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(pid, &one).with_context(|| format!("cannot bind process {pid} to cpu {cpu}"))
}

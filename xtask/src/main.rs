//! The project's tasks: `cargo xtask --help`. One file per subcommand; this one parses, runs, and sets the exit code.

mod bench;
mod build_ebpf;
mod check;
mod demo;
mod ebpf;
mod exec;
mod fuzz;
mod setup;
mod soak;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, check, test, demonstrate and measure Steelyard.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what this machine lacks; silent when nothing is missing.
    Setup,
    /// Build the kernel half alone and say where it is.
    BuildEbpf,
    /// Formatting, lints for host and BPF, documentation, and the fences between the modules.
    Check(check::Arguments),
    /// Run the three rings of tests; the last line counts them.
    Test(test::Arguments),
    /// Balance real requests between network namespaces, and show what happened.
    Demo(demo::Arguments),
    /// Measure.
    Bench(bench::Arguments),
    /// Keep many connections open while everything that can change does, or `vrrp`; see docs/reliability.md.
    Soak(soak::Arguments),
    /// Run one fuzz target for a while.
    Fuzz(fuzz::Arguments),
}

fn main() -> ExitCode {
    run(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => setup::run()?,
        Task::BuildEbpf => build_ebpf::run()?,
        Task::Check(arguments) => check::run(&arguments)?,
        Task::Test(arguments) => return test::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments)?,
        Task::Bench(arguments) => bench::run(&arguments)?,
        Task::Soak(arguments) => soak::run(&arguments)?,
        Task::Fuzz(arguments) => fuzz::run(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

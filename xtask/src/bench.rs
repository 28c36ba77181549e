//! `cargo xtask bench`: builds a measuring program and starts it.

use anyhow::Result;

use crate::{demo, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// Nanoseconds of CPU per packet through the XDP program.
    Datapath {
        /// Passed on to the benchmark, such as `--json FILE`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Packets per second that one core forwards over veth links, beside an XDP bounce and nftables.
    Veth {
        /// Passed on to the benchmark, such as `--rounds 50`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// What it takes to check thousands of servers, and how punctual their checks are.
    Checks {
        /// Passed on to the benchmark, such as `--servers 1000`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// The time to build rings, and to load a large configuration.
    Rings {
        /// Passed on to the benchmark, such as `--rounds 50`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// For how long clients go without an answer when the node that has the address fails, beside Keepalived.
    Failover {
        /// Passed on to the benchmark, such as `--runs 3 --events stop,vanish`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.subject {
        Subject::Datapath { rest } => demo::start("bench-datapath", rest),
        Subject::Checks { rest } => demo::start("bench-checks", rest),
        Subject::Rings { rest } => demo::start("bench-rings", rest),
        Subject::Failover { rest } => {
            setup::ensure(setup::RIVALS)?;
            demo::start("bench-failover", rest)
        }
        Subject::Veth { rest } => {
            setup::ensure(setup::COMPARE)?;
            demo::start("bench-veth", rest)
        }
    }
}

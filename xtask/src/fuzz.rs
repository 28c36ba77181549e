//! `cargo xtask fuzz`: runs one target of `fuzz/` for a while.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::{exec::Exec, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A file of fuzz/fuzz_targets, without its ending.
    target: String,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace::root();
    let target = root.join("fuzz/fuzz_targets").join(format!("{}.rs", arguments.target));
    if !target.is_file() {
        bail!("there is no fuzz target {}: `ls fuzz/fuzz_targets` lists them", arguments.target);
    }
    setup::ensure(setup::FUZZ)?;
    Exec::cargo("fuzz")
        .args(["run", &arguments.target, "--", &format!("-max_total_time={}", arguments.seconds)])
        // The sanitizers are not stable.
        .env("RUSTC_BOOTSTRAP", "1")
        .dir(&root)
        .within(BUILD_LIMIT + Duration::from_secs(arguments.seconds.into()))
        .run()
}

const BUILD_LIMIT: Duration = Duration::from_secs(3_600);

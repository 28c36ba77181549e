//! `cargo xtask demo`: builds the daemon and the demonstration, and starts it.

use anyhow::Result;

use crate::{exec::Exec, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to the program; `-- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    start("demo", &arguments.rest)
}

/// Builds and starts a program of `lb-tests`. The daemon lies beside it, since both start it.
pub(crate) fn start(program: &str, arguments: &[String]) -> Result<()> {
    setup::ensure(setup::RUN)?;
    let root = workspace::root();
    Exec::cargo("build")
        .args(["--release", "--package", "lb-user", "--package", "lb-tests", "--bins"])
        .dir(&root)
        .run()?;
    // The working directory stays: `--json FILE` means a file where the user is.
    Exec::cargo("run")
        .args(["--quiet", "--release", "--manifest-path"])
        .args([root.join("tests/Cargo.toml")])
        .args(["--bin", program, "--"])
        .args(arguments)
        .run()
}

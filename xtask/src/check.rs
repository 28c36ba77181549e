//! `cargo xtask check`: everything that can be said about the code without running it.

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::{
    ebpf::{self, Compiler},
    exec::Exec,
    setup, tidy, workspace,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these; all of them by default.
    #[arg(value_enum)]
    stages: Vec<Stage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// rustfmt changes nothing.
    Format,
    /// No import crosses a fence, no file is too long, no link is broken.
    Tidy,
    /// clippy has nothing to say, for the host.
    Clippy,
    /// clippy has nothing to say about the kernel half.
    ClippyBpf,
    /// The documentation builds, and its links lead somewhere.
    Docs,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace::root();
    setup::ensure(setup::CHECK)?;
    let all = Stage::value_variants();
    let stages = if arguments.stages.is_empty() { all } else { &arguments.stages };
    let mut failed = Vec::new();
    for stage in stages {
        if let Err(error) = stage.run(&root) {
            eprintln!("error: {error:#}");
            failed.extend(stage.to_possible_value().map(|value| value.get_name().to_owned()));
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}: each said above what is wrong", failed.join(", "));
    }
    println!("check: nothing to complain about");
    Ok(())
}

impl Stage {
    fn run(self, root: &Path) -> Result<()> {
        match self {
            Self::Format => Exec::cargo("fmt").args(["--all", "--check"]).dir(root).run(),
            Self::Tidy => tidy::run(root),
            Self::Clippy => Exec::cargo("clippy")
                .args(["--workspace", "--all-targets", "--", "-D", "warnings"])
                .dir(root)
                .run(),
            Self::ClippyBpf => clippy_bpf(root),
            Self::Docs => Exec::cargo("doc")
                .args(["--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings")
                .dir(root)
                .run(),
        }
    }
}

fn clippy_bpf(root: &Path) -> Result<()> {
    let subcommand = match ebpf::compiler()? {
        Compiler::Active => "clippy",
        Compiler::Debian => {
            eprintln!(
                "warning: without rust-src clippy cannot read the kernel half: it is only compiled. \
                 `rustup component add rust-src` brings the lints"
            );
            "check"
        }
    };
    let mut command = ebpf::cargo(root, subcommand)?;
    command.args(["--package", "lb-ebpf", "--lib", "--bins"]);
    if subcommand == "clippy" {
        command.args(["--", "-D", "warnings"]);
    }
    Exec::from(command).run()
}

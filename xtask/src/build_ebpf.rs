//! `cargo xtask build-ebpf`

use std::fs;

use anyhow::{Context, Result};

use crate::{ebpf, exec::Exec, setup, workspace};

pub(crate) fn run() -> Result<()> {
    setup::ensure(setup::BUILD)?;
    let objects = ebpf::build(&workspace::root(), |command| Exec::from(command).status())?;
    for object in [objects.xdp, objects.decap, objects.through, objects.driver] {
        let size = fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
        println!("{} ({size} bytes)", object.display());
    }
    Ok(())
}

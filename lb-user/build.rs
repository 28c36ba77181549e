//! Builds the kernel half and tells the package where it is: `STEELYARD_XDP`, `STEELYARD_DECAP`,
//! `STEELYARD_THROUGH` and `STEELYARD_DRIVER`.
//!
//! The object is always the optimised one, whatever the profile of the package. `lb-tests` uses this script too.

#[path = "../xtask/src/ebpf.rs"]
mod ebpf;

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let Some(cause) = error.source() {
                eprintln!("{cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().ok_or("the package is not in a workspace")?;
    for input in INPUTS {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let objects = ebpf::build(workspace, |mut cargo| cargo.status())?;
    // Copies, because what `include_bytes!` reads must change only when this script runs.
    embed("STEELYARD_XDP", &objects.xdp)?;
    embed("STEELYARD_DECAP", &objects.decap)?;
    embed("STEELYARD_THROUGH", &objects.through)?;
    embed("STEELYARD_DRIVER", &objects.driver)
}

fn embed(name: &str, object: &Path) -> Result<(), Box<dyn Error>> {
    let copy = Path::new(&variable("OUT_DIR")?).join(name.to_lowercase());
    fs::copy(object, &copy).map_err(|error| format!("cannot write {}: {error}", copy.display()))?;
    println!("cargo::rustc-env={name}={}", copy.display());
    Ok(())
}

fn variable(name: &str) -> Result<String, Box<dyn Error>> {
    env::var(name).map_err(|_| format!("{name} is not set: this runs under cargo only").into())
}

const INPUTS: [&str; 8] = [
    "Cargo.lock",
    "Cargo.toml",
    "lb-common/Cargo.toml",
    "lb-common/src",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/src",
    "lb-user/build.rs",
    "xtask/src/ebpf.rs",
];

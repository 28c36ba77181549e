//! Builds the kernel half: which compiler, which flags, in which environment.
//!
//! Owns the nested cargo that compiles for the BPF target. Knows nothing of the rest of xtask and uses the
//! standard library alone, because `lb-user/build.rs` includes this file as its own module.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// The ELF objects, each with its BTF.
#[derive(Debug)]
pub(crate) struct Objects {
    /// The program that forwards.
    pub(crate) xdp: PathBuf,
    /// The program that opens what was encapsulated, on a server.
    pub(crate) decap: PathBuf,
    /// The programs that take checks through the data path.
    pub(crate) through: PathBuf,
    /// The program that feeds packets to the first in tests and benchmarks.
    pub(crate) driver: PathBuf,
}

/// Builds all objects into `target/bpf` of the workspace; a file that would not change is not written.
///
/// `run` starts the command and waits for it: a build script and xtask report differently.
pub(crate) fn build(
    workspace: &Path,
    run: impl FnOnce(Command) -> io::Result<ExitStatus>,
) -> Result<Objects, BuildError> {
    let mut command = cargo(workspace, "build")?;
    command.args(["--package", "lb-ebpf", "--bins"]);
    let status = run(command).map_err(BuildError::Start)?;
    if !status.success() {
        return Err(BuildError::Compile(status.code()));
    }
    let built = workspace.join("target/ebpf").join(TARGET).join("bpf");
    let kept = workspace.join("target/bpf");
    Ok(Objects {
        xdp: keep(&built, &kept, "steelyard-xdp")?,
        decap: keep(&built, &kept, "steelyard-decap")?,
        through: keep(&built, &kept, "steelyard-through")?,
        driver: keep(&built, &kept, "steelyard-driver")?,
    })
}

/// `cargo SUBCOMMAND` for the BPF target; the caller appends what it concerns.
///
/// The target directory is its own: inside a build script the outer cargo holds the lock of the usual one.
pub(crate) fn cargo(workspace: &Path, subcommand: &str) -> Result<Command, BuildError> {
    let compiler = compiler()?;
    let linker = linker()?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os().filter(|(name, _)| !passes(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    if let Compiler::Debian = compiler {
        command.env("RUSTC", DEBIAN_RUSTC);
    }
    if let Some(sysroot) = sysroot(&active_rustc()) {
        // bpf-linker carries no LLVM: it opens the one of the toolchain that built it.
        command.env("LD_LIBRARY_PATH", sysroot.join("lib"));
    }
    command
        .current_dir(workspace)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker))
        .env("CARGO_TARGET_DIR", workspace.join("target/ebpf"))
        .arg(subcommand)
        .args(["--features", features(), "--profile", "bpf", "--target", TARGET, "-Z", "build-std=core"]);
    Ok(command)
}

/// Who compiles the kernel half. It needs the sources of `core`, since nobody ships `core` for BPF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// The active toolchain, with its rust-src component.
    Active,
    /// Debian's rustc-web with rust-web-src, where the component cannot be had.
    Debian,
}

pub(crate) fn compiler() -> Result<Compiler, BuildError> {
    if has_sources(&active_rustc()) {
        Ok(Compiler::Active)
    } else if has_sources(DEBIAN_RUSTC.as_ref()) {
        Ok(Compiler::Debian)
    } else {
        Err(BuildError::NoSources)
    }
}

/// Where bpf-linker is: on PATH, or where `cargo install` puts it.
pub(crate) fn linker() -> Result<PathBuf, BuildError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    std::env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
        .ok_or(BuildError::NoLinker)
}

#[derive(Debug)]
pub(crate) enum BuildError {
    NoSources,
    NoLinker,
    Start(io::Error),
    Compile(Option<i32>),
    Keep { path: PathBuf, error: io::Error },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSources => {
                write!(f, "no compiler here has the sources of `core`: run `cargo xtask setup`")
            }
            Self::NoLinker => write!(f, "bpf-linker is not installed: run `cargo xtask setup`"),
            Self::Start(_) => write!(f, "cannot start cargo: is it on PATH?"),
            Self::Compile(Some(code)) => {
                write!(f, "the kernel half does not build (cargo exited with {code}): see above")
            }
            Self::Compile(None) => write!(f, "the build of the kernel half was killed: start it again"),
            Self::Keep { path, .. } => write!(f, "cannot write {}", path.display()),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Start(error) | Self::Keep { error, .. } => Some(error),
            Self::NoSources | Self::NoLinker | Self::Compile(_) => None,
        }
    }
}

/// The outer cargo tells its child much about itself, and its user may have set flags for the host: none of that
/// may reach the kernel half. What says where packages come from, and how cargo talks, passes.
fn passes(name: &str) -> bool {
    const PASS: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const OUTER: [&str; 5] = ["CARGO", "CLIPPY_", "DEP_", "RUSTC", "RUSTDOC"];
    const OUTER_EXACT: [&str; 10] = [
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTFLAGS",
        "TARGET",
    ];
    let outer = OUTER.iter().any(|prefix| name.starts_with(prefix)) || OUTER_EXACT.contains(&name);
    !outer || PASS.iter().any(|prefix| name.starts_with(prefix))
}

fn has_sources(rustc: &OsStr) -> bool {
    sysroot(rustc).is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}

fn sysroot(rustc: &OsStr) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| PathBuf::from(path.trim()))
}

fn active_rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

fn rustflags(linker: &Path) -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker);
    for flag in FLAGS {
        flags.push("\x1f");
        flags.push(flag);
    }
    flags
}

/// Renames into place, so that a reader never sees half an object.
fn keep(built: &Path, kept: &Path, name: &str) -> Result<PathBuf, BuildError> {
    let (from, to) = (built.join(name), kept.join(name));
    let keep = || -> io::Result<()> {
        let object = fs::read(&from)?;
        if fs::read(&to).is_ok_and(|old| old == object) {
            return Ok(());
        }
        fs::create_dir_all(kept)?;
        let unfinished = kept.join(format!("{name}.{}", std::process::id()));
        fs::write(&unfinished, object)?;
        fs::rename(unfinished, &to)
    };
    match keep() {
        Ok(()) => Ok(to),
        Err(error) => Err(BuildError::Keep { path: to, error }),
    }
}

const TARGET: &str = "bpfel-unknown-none";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

const FLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // 32-bit arithmetic and jumps; v4 would need kernel 6.6.
    "-Ctarget-cpu=v3",
    // One load for a field of an align-2 header instead of one per two bytes. Given to the linker, which generates
    // the code: as `-Ctarget-feature` it does the same, but rustc warns that it does not know the feature.
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];

/// Those of the package whose build script asks: `xdp-log` lets the program log what it drops.
fn features() -> &'static str {
    if std::env::var_os("CARGO_FEATURE_XDP_LOG").is_some() { "log" } else { "bpf" }
}

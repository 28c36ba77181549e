//! What this machine lacks, and how to get it. Says what and why before it installs anything; silent when nothing
//! is missing.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::{ebpf, exec::Exec};

/// What a subcommand cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Sources,
    Linker,
    Lints,
    BpfFs,
    Packages(&'static [Package]),
    Fuzzer,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    name: &'static str,
    /// Is there once the package is.
    proof: &'static str,
    why: &'static str,
}

/// To build the kernel half.
pub(crate) const BUILD: &[Need] = &[Need::Sources, Need::Linker];
pub(crate) const CHECK: &[Need] = &[Need::Sources, Need::Linker, Need::Lints];
/// To run programs in the kernel, and traffic between namespaces.
pub(crate) const RUN: &[Need] = &[Need::Sources, Need::Linker, Need::Packages(NETWORK_PACKAGES), Need::BpfFs];
/// Beside `RUN`, to forward by other means than ours.
pub(crate) const COMPARE: &[Need] = &[Need::Packages(COMPARED_PACKAGES)];
/// Beside `RUN`, to fail over by other means than ours.
pub(crate) const RIVALS: &[Need] = &[Need::Packages(RIVAL_PACKAGES)];
pub(crate) const FUZZ: &[Need] = &[Need::Packages(FUZZ_PACKAGES), Need::Fuzzer];
const ALL: &[Need] =
    &[Need::Sources, Need::Linker, Need::Lints, Need::Packages(NETWORK_PACKAGES), Need::BpfFs];

const NETWORK_PACKAGES: &[Package] = &[
    Package { name: "iproute2", proof: "/sbin/ip", why: "the test bed makes namespaces and links with `ip`" },
    Package {
        name: "keepalived",
        proof: "/usr/sbin/keepalived",
        why: "scenarios share addresses with it, by VRRP",
    },
    Package { name: "frr", proof: "/usr/lib/frr/vrrpd", why: "scenarios share addresses with its vrrpd" },
    Package {
        name: "tcpdump",
        proof: "/usr/bin/tcpdump",
        why: "scenarios have it read what our daemon advertises",
    },
];

const RIVAL_PACKAGES: &[Package] = &[Package {
    name: "haproxy",
    proof: "/usr/sbin/haproxy",
    why: "the benchmark of fail-overs has it proxy beside Keepalived",
}];

const COMPARED_PACKAGES: &[Package] = &[Package {
    name: "nftables",
    proof: "/usr/sbin/nft",
    why: "the benchmark over links compares with its dnat",
}];

const FUZZ_PACKAGES: &[Package] =
    &[Package { name: "g++", proof: "/usr/bin/c++", why: "the fuzzer's engine is C++" }];

const DEBIAN_COMPILER: &[Package] = &[
    Package { name: "rustc-web", proof: "/usr/bin/rustc", why: "a compiler that has its sources" },
    Package {
        name: "rust-web-src",
        proof: "/usr/lib/rustlib/src/rust/library/core/Cargo.toml",
        why: "the sources of `core`, which is compiled for BPF",
    },
];

/// `cargo xtask setup`
pub(crate) fn run() -> Result<()> {
    ensure(ALL)
}

/// Installs what is missing of `needs`.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    for need in needs.iter().filter(|need| !need.present()) {
        eprintln!("setup: {}", need.reason());
        need.install().with_context(|| format!("setup failed: {}", need.reason()))?;
        if !need.present() {
            bail!("setup did what it could, and still: {}", need.reason());
        }
    }
    Ok(())
}

impl Need {
    fn present(self) -> bool {
        match self {
            Self::Sources => ebpf::compiler().is_ok(),
            Self::Linker => linker_version().is_some_and(|version| version >= LINKER),
            Self::Lints => {
                ["clippy", "fmt"].iter().all(|tool| Exec::cargo(tool).args(["--version"]).succeeds())
            }
            Self::BpfFs => {
                fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| is_mounted(&mounts, BPFFS, "bpf"))
            }
            Self::Packages(packages) => missing(packages).is_empty(),
            Self::Fuzzer => Exec::cargo("fuzz").args(["--version"]).succeeds(),
        }
    }

    fn reason(self) -> String {
        match self {
            Self::Sources => "rust-src is missing: `core` is compiled from source for BPF".into(),
            Self::Linker => format!("bpf-linker {} is missing: it links the kernel half", dotted(LINKER)),
            Self::Lints => "rustfmt or clippy is missing: `cargo xtask check` runs both".into(),
            Self::BpfFs => format!("no bpffs on {BPFFS}: maps and the XDP link are pinned there"),
            Self::Packages(packages) => {
                let reason = |package: &Package| format!("{} ({})", package.name, package.why);
                let reasons: Vec<String> = missing(packages).into_iter().map(reason).collect();
                format!("Debian packages are missing: {}", reasons.join("; "))
            }
            Self::Fuzzer => format!("cargo-fuzz {FUZZER} is missing: it builds and runs the fuzz targets"),
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Self::Sources => install_sources(),
            Self::Linker => Exec::cargo("install")
                .args(["bpf-linker", "--version", &dotted(LINKER), "--locked", "--force"])
                .args(["--no-default-features", "--features", "rust-llvm-22"])
                .run(),
            Self::Lints => Exec::new("rustup").args(["component", "add", "rustfmt", "clippy"]).run(),
            Self::BpfFs => {
                root("mount a bpffs")?;
                Exec::new("mount").args(["-t", "bpf", "bpf", BPFFS]).run()
            }
            Self::Packages(packages) => install_packages(packages),
            Self::Fuzzer => {
                Exec::cargo("install").args(["cargo-fuzz", "--version", FUZZER, "--locked"]).run()
            }
        }
    }
}

fn install_sources() -> Result<()> {
    let Err(error) = Exec::new("rustup").args(["component", "add", "rust-src"]).run() else {
        return Ok(());
    };
    eprintln!("setup: {error:#}");
    eprintln!("setup: so Debian's compiler shall build the kernel half, and nothing else");
    install_packages(DEBIAN_COMPILER)
}

fn install_packages(packages: &[Package]) -> Result<()> {
    let names: Vec<&str> = missing(packages).iter().map(|package| package.name).collect();
    if !Path::new(APT).is_file() {
        bail!("this is no Debian: install {} with its own package manager", names.join(", "));
    }
    root("install Debian packages")?;
    let _quiet = Quiet::begin()?;
    let install = || {
        Exec::new(APT)
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&names)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .within(APT_LIMIT)
            .run()
    };
    if install().is_ok() {
        return Ok(());
    }
    eprintln!("setup: the package lists may be old");
    Exec::new(APT).args(["update"]).within(APT_LIMIT).run()?;
    install()
}

/// While it lives, packages do not start the services that they bring: tests start what they need in namespaces.
struct Quiet {
    /// Whether the policy is ours to remove: a machine may have one of its own.
    ours: bool,
}

impl Quiet {
    fn begin() -> Result<Quiet> {
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        let mut file = match made {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Quiet { ours: false }),
            Err(error) => return Err(error).with_context(|| format!("cannot make {POLICY}")),
        };
        let quiet = Quiet { ours: true };
        file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        Ok(quiet)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("setup: remove {POLICY}, which keeps services from being started: {error}");
        }
    }
}

fn missing(packages: &[Package]) -> Vec<&Package> {
    packages.iter().filter(|package| !Path::new(package.proof).exists()).collect()
}

fn root(to: &str) -> Result<()> {
    if !geteuid().is_root() {
        bail!("only root may {to}: run `cargo xtask setup` as root");
    }
    Ok(())
}

fn linker_version() -> Option<[u32; 3]> {
    let linker = ebpf::linker().ok()?;
    parse_version(&Exec::new(linker.to_str()?).args(["--version"]).text().ok()?)
}

/// The version in `NAME X.Y.Z`.
fn parse_version(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.split_whitespace().nth(1)?.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

fn dotted([major, minor, patch]: [u32; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

/// `mounts` as in /proc/self/mounts: device, mount point, type.
fn is_mounted(mounts: &str, point: &str, kind: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(point) && words.next() == Some(kind)
    })
}

/// The newest that builds on the project's compiler; an older one does not know the misaligned-access feature.
const LINKER: [u32; 3] = [0, 10, 3];
const FUZZER: &str = "0.13.2";
const BPFFS: &str = "/sys/fs/bpf";
const APT: &str = "/usr/bin/apt-get";
/// Asked by Debian's packages before they start a service; 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const APT_LIMIT: Duration = Duration::from_secs(900);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("bpf-linker 0.10.3\n"), Some([0, 10, 3]));
        assert!(parse_version("bpf-linker 0.9.15") < Some(LINKER));
        assert!(parse_version("bpf-linker 1.0.0") > Some(LINKER));
        assert_eq!(parse_version("bpf-linker"), None);
        assert_eq!(parse_version("bpf-linker 1.x.0"), None);
    }

    #[test]
    fn a_mount_is_its_point_and_its_type() {
        let mounts =
            "proc /proc proc rw 0 0\nnone /sys/fs/bpf bpf rw,mode=700 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert!(is_mounted(mounts, "/sys/fs/bpf", "bpf"));
        assert!(!is_mounted(mounts, "/sys/fs", "bpf"));
        assert!(!is_mounted(mounts, "/tmp", "bpf"));
    }

    #[test]
    fn what_is_there_is_not_installed() {
        const THERE: &[Package] = &[Package { name: "base-files", proof: "/", why: "always" }];
        assert!(ensure(&[Need::Packages(THERE)]).is_ok());
    }
}

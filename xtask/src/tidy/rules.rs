//! What a Rust file may name, hold and measure, depending on where it lies.

use std::collections::BTreeSet;

use super::Finding;
use super::source::{Fact, Kind, Source};

/// Modules whose imports are restricted.
struct Fence {
    /// A folder `F/` or file `F.rs`, without the ending.
    inside: &'static str,
    except: Option<&'static str>,
    tests_too: bool,
    forbidden: &'static [&'static str],
    rule: &'static str,
    remedy: &'static str,
}

const FENCES: &[Fence] = &[
    Fence {
        inside: "lb-user/src/pure",
        except: None,
        tests_too: true,
        forbidden: &["crate::io", "crate::daemon", "crate::cli"],
        rule: "pure knows neither io nor daemon nor cli",
        remedy: "pass the value in, or move the type to pure",
    },
    Fence {
        inside: "lb-user/src/pure",
        except: None,
        tests_too: true,
        forbidden: &[
            "aya",
            "axum",
            "futures_util",
            "hyper",
            "hyper_util",
            "libc",
            "netlink_packet_core",
            "netlink_packet_route",
            "nix",
            "rtnetlink",
            "socket2",
            "std::env",
            "std::fs",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::os",
            "std::process",
            "std::sync::mpsc",
            "std::thread",
            "tokio",
        ],
        rule: "pure owns no socket, clock, task, file or process",
        remedy: "let the caller in io or daemon do it and pass in what it found",
    },
    Fence {
        inside: "lb-user/src/io",
        except: None,
        tests_too: true,
        forbidden: &["crate::daemon", "crate::cli"],
        rule: "io knows pure and the outside world only",
        remedy: "return a value or take a channel; daemon does the wiring",
    },
    Fence {
        inside: "lb-user/src/daemon",
        except: None,
        tests_too: true,
        forbidden: &["crate::cli"],
        rule: "the daemon does not know the command line",
        remedy: "pass the parsed value in",
    },
    Fence {
        inside: "lb-ebpf/src",
        except: Some("lb-ebpf/src/bin"),
        tests_too: false,
        forbidden: &["alloc", "aya_ebpf", "aya_ebpf_bindings", "aya_log_ebpf", "std"],
        rule: "the pure half of lb-ebpf uses lb-common and network-types only",
        remedy: "move it to src/bin, behind the Packet or Tables trait",
    },
];

/// The files that may hold `unsafe`; they export safe functions.
const UNSAFE_ISLANDS: &[&str] = &[
    // Atomic words of memory that the kernel shares.
    "lb-common/src/word",
    // aya's marker for map records.
    "lb-common/src/user",
    // The only pointers of the packet path, and the layouts behind them.
    "lb-ebpf/src/frame",
    "lb-ebpf/src/header",
    // Helpers, map values and section names of the kernel half.
    "lb-ebpf/src/bin",
    // Raw BPF system calls and the mmap of map memory.
    "lb-user/src/io/kernel",
    // A thread's scheduling.
    "lb-user/src/io/vrrp/realtime",
    // A fork between the daemon and a program of the operator's.
    "lb-user/src/io/process/leash",
    // The address of a packet socket.
    "lb-user/src/io/vrrp/frames",
    // A program, a checksum offload, socket options and a namespace that no safe wrapper reaches.
    "tests/src/bed/xdp",
    "tests/src/bed/offload",
    "tests/src/bed/sockopt",
    "tests/src/bed/namespace",
    // A packet buffer as a frame, for the host ring; raw program runs, for the benchmark.
    "tests/src/cases/host/frame",
    "tests/src/bench/driver",
];

/// The one place where a test may pause: between two looks, until true or deadline.
const POLL_ISLANDS: &[&str] = &["tests/src/bed/wait"];

pub(super) fn judge(source: &Source, adapters: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.code_lines > LINES_MAX {
        findings.push(Finding {
            file: source.path.clone(),
            line: 1,
            what: format!("{} lines of code", source.code_lines),
            rule: "a file has one subject and at most 600 lines of code",
            remedy: "split it by subject",
        });
    }
    for fact in &source.facts {
        let broken = match &fact.kind {
            Kind::Path(path) => judge_path(source, fact, path, adapters),
            kind => judge_construct(source, kind),
        };
        findings.extend(broken.map(|(what, rule, remedy)| Finding {
            file: source.path.clone(),
            line: fact.line,
            what,
            rule,
            remedy,
        }));
    }
    findings
}

/// The top-level adapters: what lies directly in lb-user/src/io.
pub(super) fn adapters(paths: &BTreeSet<&str>) -> BTreeSet<String> {
    let names = paths.iter().filter_map(|path| path.strip_prefix("lb-user/src/io/")).filter_map(top);
    names.map(String::from).collect()
}

type Broken = (String, &'static str, &'static str);

fn judge_path(source: &Source, fact: &Fact, path: &str, adapters: &BTreeSet<String>) -> Option<Broken> {
    let crossed = FENCES.iter().find(|fence| {
        let applies = is_inside(&source.path, fence.inside)
            && !fence.except.is_some_and(|except| is_inside(&source.path, except))
            && (fence.tests_too || !fact.in_test);
        applies && fence.forbidden.iter().any(|name| names(path, name))
    });
    if let Some(fence) = crossed {
        return Some((format!("`{path}`"), fence.rule, fence.remedy));
    }
    let own = source.path.strip_prefix("lb-user/src/io/").and_then(top);
    let other = path.strip_prefix("crate::io::").and_then(|rest| rest.split("::").next());
    if let (Some(own), Some(other)) = (own, other)
        && own != other
        && adapters.contains(other)
    {
        let rule = "adapters never import each other";
        return Some((
            format!("`{path}`"),
            rule,
            "what both need belongs to pure, what connects them to daemon",
        ));
    }
    let sleeps =
        ["thread::sleep", "thread::park_timeout", "time::sleep"].iter().any(|name| path.ends_with(name));
    if sleeps && fact.in_test && !POLL_ISLANDS.iter().any(|island| is_inside(&source.path, island)) {
        return Some((format!("`{path}`"), "tests do not sleep", "poll until true or deadline"));
    }
    None
}

fn judge_construct(source: &Source, kind: &Kind) -> Option<Broken> {
    match kind {
        Kind::Macro(name) if ["todo", "unimplemented"].contains(&name.as_str()) => Some((
            format!("`{name}!`"),
            "nothing is left half done",
            "build it, or return an error that says so",
        )),
        Kind::Unsafe if !UNSAFE_ISLANDS.iter().any(|island| is_inside(&source.path, island)) => Some((
            "`unsafe`".into(),
            "unsafe code lives in named islands only",
            "use what an island exports, or add one to UNSAFE_ISLANDS with its reason",
        )),
        Kind::Ignore => Some(("`#[ignore]`".into(), "a skipped test is loud", "fix the test, or remove it")),
        Kind::ModuleAllow => Some((
            "`#![allow(..)]`".into(),
            "no lint is switched off for a whole module",
            "put `#[expect(.., reason = ..)]` on the item",
        )),
        Kind::Unsafe | Kind::Macro(_) | Kind::Path(_) => None,
    }
}

/// `place` is a folder or a file without its ending.
fn is_inside(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// `path` is `name` or something below it.
fn names(path: &str, name: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn top(below_io: &str) -> Option<&str> {
    let first = below_io.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["mod", TEST_BED, PROCESS].contains(&name)).then_some(name)
}

/// Compiled for tests only, and shared by those of all adapters.
const TEST_BED: &str = "testbed";
/// Runs programs for every adapter that has one to run.
const PROCESS: &str = "process";

const LINES_MAX: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file: &str, text: &str, expected: &[&str]) {
        let adapters = ["kernel", "net", "probe"].map(String::from).into();
        let source = Source::parse(file, text).unwrap();
        let found: Vec<String> = judge(&source, &adapters).into_iter().map(|finding| finding.what).collect();
        assert_eq!(found, expected, "{file}: {text}");
    }

    #[test]
    fn every_crossing_is_found() {
        let crossings = [
            ("lb-user/src/pure/ring.rs", "use crate::io::net;", "`crate::io::net`"),
            ("lb-user/src/pure/ring.rs", "use crate::{daemon};", "`crate::daemon`"),
            ("lb-user/src/pure/a/b.rs", "use super::super::super::cli::X;", "`crate::cli::X`"),
            ("lb-user/src/pure/mod.rs", "use lb_user::io;", "`crate::io`"),
            ("lb-user/src/pure/ring.rs", "fn f() { std::fs::read(p); }", "`std::fs::read`"),
            ("lb-user/src/pure/ring.rs", "use std::{fmt, thread};", "`std::thread`"),
            ("lb-user/src/pure/ring.rs", "use std::net::{Ipv4Addr, UdpSocket};", "`std::net::UdpSocket`"),
            ("lb-user/src/pure/ring.rs", "use std::process;", "`std::process`"),
            ("lb-user/src/pure/ring.rs", "fn f(x: tokio::time::Instant) {}", "`tokio::time::Instant`"),
            ("lb-user/src/pure/ring.rs", "#[cfg(test)] mod t { use nix::unistd; }", "`nix::unistd`"),
            ("lb-user/src/io/net/mod.rs", "use crate::daemon::control;", "`crate::daemon::control`"),
            ("lb-user/src/io/net/mod.rs", "use crate::cli;", "`crate::cli`"),
            ("lb-user/src/io/net/mod.rs", "use super::kernel::Maps;", "`crate::io::kernel::Maps`"),
            ("lb-user/src/io/probe.rs", "use crate::io::{net, File};", "`crate::io::net`"),
            ("lb-user/src/daemon/control.rs", "use crate::cli::Arguments;", "`crate::cli::Arguments`"),
            (
                "lb-ebpf/src/parse.rs",
                "use aya_ebpf::programs::XdpContext;",
                "`aya_ebpf::programs::XdpContext`",
            ),
            ("lb-ebpf/src/parse.rs", "use std::mem;", "`std::mem`"),
            ("lb-user/src/pure/ring.rs", "fn f() { unsafe {} }", "`unsafe`"),
            ("lb-user/src/io/file.rs", "fn f() { todo!() }", "`todo!`"),
            ("xtask/src/a.rs", "fn f() { unimplemented!(\"x\") }", "`unimplemented!`"),
            ("lb-user/src/io/file.rs", "#![allow(dead_code)]", "`#![allow(..)]`"),
            ("tests/tests/kernel.rs", "#[test] #[ignore] fn f() {}", "`#[ignore]`"),
            ("tests/tests/kernel.rs", "fn f() { std::thread::sleep(d) }", "`std::thread::sleep`"),
            ("tests/src/bed/peer.rs", "fn f() { thread::park_timeout(d) }", "`thread::park_timeout`"),
            ("lb-user/tests/net.rs", "use tokio::time::{self, sleep};", "`tokio::time::sleep`"),
            ("lb-user/src/io/a.rs", "#[cfg(test)] mod t { fn f() { thread::sleep(d) } }", "`thread::sleep`"),
        ];
        for (file, text, expected) in crossings {
            check(file, text, &[expected]);
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        let clean = [
            (
                "lb-user/src/pure/ring.rs",
                "use crate::pure::config; use std::{fmt, net::Ipv4Addr, time::Instant};",
            ),
            ("lb-user/src/pure/ring.rs", "use lb_common::slot; use super::ids; use std::io::Error;"),
            ("lb-user/src/pure/ring.rs", "fn aya(tokio: u8) { let io = tokio; io.daemon(); }"),
            ("lb-user/src/purely.rs", "use tokio::net;"),
            (
                "lb-user/src/io/net/mod.rs",
                "use crate::pure::hop; use tokio::net; use crate::io::net::monitor;",
            ),
            ("lb-user/src/io/net/monitor.rs", "use super::resolve; use crate::io::Error;"),
            ("lb-user/src/io/net/mod.rs", "#[cfg(test)] mod t { use crate::io::testbed::Bed; }"),
            ("lb-user/src/io/mod.rs", "pub mod net; pub mod kernel;"),
            ("lb-user/src/daemon/control.rs", "use crate::io::{net, kernel}; use crate::pure::plan;"),
            ("lb-user/src/main.rs", "use lb_user::{cli, daemon};"),
            ("lb-user/src/io/net/mod.rs", "async fn f() { tokio::time::sleep(d).await }"),
            ("lb-user/src/io/kernel/mmap.rs", "fn f() { unsafe {} }"),
            ("lb-ebpf/src/parse.rs", "use core::mem; use lb_common::x; #[cfg(test)] mod t { use std::fs; }"),
            ("lb-ebpf/src/bin/xdp/main.rs", "use aya_ebpf::maps; unsafe fn f() {}"),
            ("tests/src/bed/wait.rs", "fn f() { std::thread::sleep(d) }"),
            ("xtask/src/a.rs", "#[expect(dead_code, reason = \"x\")] fn f() { /* todo!() */ }"),
        ];
        for (file, text) in clean {
            check(file, text, &[]);
        }
    }

    #[test]
    fn a_file_above_the_limit_is_found() {
        let just_right = "const A: u8 = 1;\n".repeat(LINES_MAX);
        check("xtask/src/a.rs", &just_right, &[]);
        check("xtask/src/a.rs", &format!("{just_right}\n// a comment\n"), &[]);
        check("xtask/src/a.rs", &format!("{just_right}#[cfg(test)]\nmod t {{\n fn f() {{}}\n}}\n"), &[]);
        check("xtask/src/a.rs", &format!("{just_right}const B: u8 = 1;\n"), &["601 lines of code"]);
    }

    #[test]
    fn adapters_are_what_lies_in_io() {
        let paths = [
            "lb-user/src/io/mod.rs",
            "lb-user/src/io/net/x.rs",
            "lb-user/src/io/testbed.rs",
            "lb-user/src/io/process/mod.rs",
            "lb-user/src/io/file.rs",
        ];
        assert_eq!(adapters(&paths.into()), ["file", "net"].map(String::from).into());
    }
}

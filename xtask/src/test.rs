//! `cargo xtask test`: builds, runs the rings, counts, and looks whether anything was left behind.
//!
//! The last line is `N passed, N failed`. What went wrong without being a test (a build, a crash, an ignored test, an
//! empty ring, something left behind) counts as one failure each, so that nobody reads a broken run as a good one.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::{exec::Exec, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these rings; all by default.
    #[arg(value_enum)]
    rings: Vec<Ring>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ring {
    /// Pure code and adapters, in this process.
    Host,
    /// The packet cases through BPF_PROG_TEST_RUN.
    Kernel,
    /// Real sockets between network namespaces.
    Network,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = workspace::root();
    let all = <Ring as clap::ValueEnum>::value_variants();
    let rings = if arguments.rings.is_empty() { all } else { &arguments.rings };
    setup::ensure(if rings == [Ring::Host] { setup::BUILD } else { setup::RUN })?;
    // The scenarios start the daemon's binary.
    if let Err(error) = Exec::cargo("build").args(["--workspace", "--bins"]).dir(&root).run() {
        return Ok(report(&[], &[format!("{error:#}")]));
    }
    let outcomes: Vec<Outcome> = rings.iter().map(|ring| ring.run(&root)).collect();
    Ok(report(&outcomes, &leftovers()))
}

impl Ring {
    fn run(self, root: &Path) -> Outcome {
        let mut outcome = Outcome { ring: self, count: Count::default(), problems: Vec::new() };
        for arguments in self.commands(root) {
            let mut count = Count::default();
            let ended = Exec::cargo("test")
                .args(["--workspace", "--no-fail-fast"])
                .args(arguments)
                .dir(root)
                .lines(|line| count += Count::parse(line).unwrap_or_default());
            match ended {
                Err(error) => outcome.problems.push(format!("{error:#}")),
                Ok(status) if !status.success() && count.failed == 0 => {
                    outcome.problems.push(format!("cargo ended with {status} and no failed test: see above"));
                }
                Ok(_) => (),
            }
            outcome.count += count;
        }
        outcome.judge();
        outcome
    }

    /// What `cargo test` is given, once per run. Always the whole workspace with a choice of targets: a choice of
    /// packages would turn on other features and build the dependencies again.
    fn commands(self, root: &Path) -> Vec<&'static [&'static str]> {
        match self {
            Self::Host => vec![&["--lib", "--bins"], &["--doc"]],
            Self::Kernel => vec![&["--test", "kernel"]],
            Self::Network => {
                let mut commands: Vec<&[&str]> =
                    vec![&["--test", "bed", "--test", "network", "--", "--test-threads=2"]];
                if has_tests(&root.join("lb-user/tests")) {
                    commands.push(&["--exclude", "lb-tests", "--test", "*", "--", "--test-threads=1"]);
                }
                commands
            }
        }
    }
}

struct Outcome {
    ring: Ring,
    count: Count,
    /// What went wrong and is not counted by a test.
    problems: Vec<String>,
}

impl Outcome {
    fn judge(&mut self) {
        if self.count.ignored > 0 {
            self.problems.push(format!("{} ignored: remove #[ignore], or the test", self.count.ignored));
        }
        if self.count.passed + self.count.failed == 0 {
            self.problems.push("no test ran".into());
        }
    }
}

/// What a `test result:` line says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Count {
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
    fn parse(line: &str) -> Option<Self> {
        let (_verdict, numbers) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let number = |name: &str| -> Option<usize> {
            numbers.split("; ").find_map(|part| part.strip_suffix(name)?.strip_suffix(' ')?.parse().ok())
        };
        Some(Self { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Problems first, then a line per ring, then the total alone on the last line.
fn report(outcomes: &[Outcome], around: &[String]) -> ExitCode {
    let (text, total) = summary(outcomes, around);
    println!("{text}");
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `around`: what went wrong before or after the rings.
fn summary(outcomes: &[Outcome], around: &[String]) -> (String, Count) {
    let mut total = Count::default();
    let (mut problems, mut lines) = (Vec::new(), Vec::new());
    for Outcome { ring, count, problems: found } in outcomes {
        let name = format!("{ring:?}").to_lowercase();
        problems.extend(found.iter().map(|problem| format!("error: {name}: {problem}")));
        let with_problems = Count { failed: count.failed + found.len(), ..*count };
        lines.push(format!("{name:<8} {with_problems}"));
        total += with_problems;
    }
    problems.extend(around.iter().map(|problem| format!("error: {problem}")));
    total.failed += around.len();
    lines.push(total.to_string());
    problems.push(String::new());
    problems.extend(lines);
    (problems.join("\n"), total)
}

/// What the tests made outside their processes and did not take away.
fn leftovers() -> Vec<String> {
    let namespaces = with_our_prefix(Path::new("/run/netns"))
        .into_iter()
        .map(|name| format!("the namespace {name} was left behind: `ip netns delete {name}`"));
    let pins = with_our_prefix(Path::new("/sys/fs/bpf"))
        .into_iter()
        .map(|name| format!("pins were left behind: `rm -r /sys/fs/bpf/{name}`"));
    namespaces.chain(pins).collect()
}

fn with_our_prefix(directory: &Path) -> Vec<String> {
    // A folder that does not exist holds nothing of ours.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    names.sort();
    names
}

fn has_tests(directory: &Path) -> bool {
    fs::read_dir(directory)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().extension() == Some("rs".as_ref())))
}

/// Namespaces and pin folders of the test bed begin with it.
const PREFIX: &str = "sy-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_nothing_else() {
        let count = |passed, failed, ignored| Some(Count { passed, failed, ignored });
        let tail = "0 measured; 0 filtered out; finished in 0.00s";
        let cases = [
            (format!("test result: ok. 3 passed; 0 failed; 1 ignored; {tail}"), count(3, 0, 1)),
            (format!("test result: FAILED. 12 passed; 2 failed; 0 ignored; {tail}"), count(12, 2, 0)),
            (format!("test result: ok. 0 passed; 0 failed; 0 ignored; {tail}"), count(0, 0, 0)),
            ("test pure::ring::is_balanced ... ok".into(), None),
            ("running 3 tests".into(), None),
            ("test result: ok. x passed; 0 failed; 1 ignored".into(), None),
            ("3 passed; 0 failed".into(), None),
            (String::new(), None),
        ];
        for (line, expected) in cases {
            assert_eq!(Count::parse(&line), expected, "{line}");
        }
    }

    #[test]
    fn the_last_line_is_the_total_alone() {
        let outcomes = [outcome(Ring::Host, 40, 0, 0), outcome(Ring::Network, 7, 1, 0)];
        let (text, total) = summary(&outcomes, &[]);
        assert_eq!(text, "\nhost     40 passed, 0 failed\nnetwork  7 passed, 1 failed\n47 passed, 1 failed");
        assert_eq!(total, Count { passed: 47, failed: 1, ignored: 0 });
    }

    #[test]
    fn what_is_wrong_without_a_failed_test_is_a_failure_too() {
        let cases = [
            ("ignored", outcome(Ring::Host, 1, 0, 2), vec![]),
            ("empty ring", outcome(Ring::Kernel, 0, 0, 0), vec![]),
            ("left behind", outcome(Ring::Host, 1, 0, 0), vec!["the namespace sy-1 was left behind".into()]),
        ];
        for (name, outcome, leftovers) in cases {
            let (text, total) = summary(&[outcome], &leftovers);
            assert_eq!(total.failed, 1, "{name}");
            assert!(text.starts_with("error: "), "{name}: {text}");
        }
    }

    #[test]
    fn only_our_prefix_is_ours() {
        assert!(with_our_prefix(Path::new("/")).is_empty());
        assert!(with_our_prefix(Path::new("/no/such/folder")).is_empty());
    }

    fn outcome(ring: Ring, passed: usize, failed: usize, ignored: usize) -> Outcome {
        let mut outcome = Outcome { ring, count: Count { passed, failed, ignored }, problems: Vec::new() };
        outcome.judge();
        outcome
    }
}

//! What an operator types, against what is reported and what it means.

mod checks;
mod faults;
mod meaning;
mod notify;
mod precedence;
mod services;
mod unbuilt;
mod vrrp;

use super::{Parsed, error::Diagnostic, parse};

/// Correct, and short enough to see; cases change a part of it.
const BASE: &str = r#"[global]
node = "lb1"
[cluster]
secret = "hush"
[datapath]
interfaces = ["eth0"]
[log]
level = "info"
[[service]]
name = "web"
address = "10.0.5.96"
port = 80
forward = "nat"
server = [
  { name = "a", address = "10.0.5.91:8888" },
  { name = "b", address = "10.0.5.92" },
]
[service.check]
interval = "2s"
"#;

/// A second service, to append.
const DNS: &str = r#"[[service]]
name = "dns"
address = "10.0.5.97"
port = 53
protocol = "both"
forward = "dsr"
server = [{ name = "a", address = "10.0.5.95" }]
"#;

fn accepted(text: &str) -> Parsed {
    parse("steelyard.toml", text).unwrap_or_else(|errors| panic!("{}", shown(&errors)))
}

fn refused(text: &str) -> Vec<Diagnostic> {
    parse("steelyard.toml", text).expect_err("the text has a fault")
}

fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect()
}

/// `BASE` with one part of it replaced.
fn with(old: &str, new: &str) -> String {
    assert_eq!(BASE.matches(old).count(), 1, "{old:?} is in the base once");
    BASE.replace(old, new)
}

/// Name, a part of the base, what it becomes, `line:column: message`.
type Case<'a> = (&'a str, &'a str, &'a str, &'a str);

fn check(cases: &[Case<'_>]) {
    for (name, old, new, expected) in cases {
        only(name, &with(old, new), expected);
    }
}

/// The text has this fault and no other.
fn only(name: &str, text: &str, expected: &str) {
    let errors = refused(text);
    let found: Vec<String> =
        errors.iter().map(|error| format!("{}:{}: {}", error.line, error.column, error.message)).collect();
    assert_eq!(found, [expected], "{name}:\n{}", shown(&errors));
    assert!(!errors[0].remedy.is_empty(), "{name}: no next step");
}

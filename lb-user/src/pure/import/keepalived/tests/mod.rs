//! What Keepalived's users type, against what it means here and what is said of it.

mod fallbacks;
mod grammar;
mod seeds;
mod written;

use super::Foreign;
use crate::pure::config::{Parsed, Source, error::Diagnostic, model::vrrp::Router, parse_with};

/// A router that nothing is said of.
const BASE: &str = "vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    virtual_ipaddress {
        10.0.5.96/20
    }
}
";

fn foreign<'a>(name: &'a str, text: &'a str) -> Foreign<'a> {
    Foreign { source: Source { name, text }, config_id: "lb1", included: None }
}

fn read(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    parse_with(&[], &[foreign("k.conf", text)])
}

fn accepted(text: &str) -> Parsed {
    read(text).unwrap_or_else(|errors| panic!("{}\n{text}", shown(&errors).join("\n")))
}

fn shown(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(|found| format!("{}: {}", found.line, found.message)).collect()
}

/// `BASE` with lines before those of its block.
fn with(lines: &str) -> String {
    BASE.replacen("{\n", &format!("{{\n{lines}\n"), 1)
}

/// The only router, and what is said.
fn router(text: &str) -> (Router, Vec<String>) {
    let Parsed { mut config, warnings, .. } = accepted(text);
    assert_eq!(config.vrrp.routers.len(), 1, "{text}");
    (config.vrrp.routers.remove(0), shown(&warnings))
}

//! From text to meaning: `raw` is what was typed, `model` what it means, `error` what is wrong and where.
//!
//! ```text
//! text ─► raw (keys, types) ─► convert (values, defaults, one key against another) ─► model
//!           └───────────── findings ─────────────┘ ─► diagnostics, all at once
//! ```
//!
//! Must not know where the text comes from: the caller reads files, in the order that it wants them reported.

pub mod error;
pub mod model;
pub mod network;
pub mod raw;
pub mod secret;

pub(in crate::pure) mod address;
mod convert;
#[cfg(test)]
mod tests;
pub(in crate::pure) mod value;

pub(in crate::pure) use self::convert::{added_server, command};
use self::{
    error::{Diagnostic, Findings, Span},
    model::Config,
    secret::SecretFile,
};
use crate::pure::import::keepalived::{self, Foreign};

/// One configuration file.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// As diagnostics show it.
    pub name: &'a str,
    pub text: &'a str,
}

/// A configuration without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub config: Config,
    /// What works but is probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// What is still to be read before virtual routers can speak: see `Parsed::read_secrets`.
    pub secrets: Vec<SecretFile>,
}

/// One file. On failure every error in it, in its order.
pub fn parse(file: &str, text: &str) -> Result<Parsed, Vec<Diagnostic>> {
    parse_files(&[Source { name: file, text }])
}

/// Several files that are one configuration: `[[service]]` lists concatenate, any other table is in one of them.
pub fn parse_files(sources: &[Source<'_>]) -> Result<Parsed, Vec<Diagnostic>> {
    parse_with(sources, &[])
}

/// The same with files of Keepalived beside them, or alone.
pub fn parse_with(own: &[Source<'_>], foreign: &[Foreign<'_>]) -> Result<Parsed, Vec<Diagnostic>> {
    let sources: Vec<Source<'_>> =
        own.iter().copied().chain(foreign.iter().map(|foreign| foreign.source)).collect();
    let mut findings = Findings::new(&sources);
    if !fits(&sources, &mut findings) {
        return Err(findings.finish(&sources).err().unwrap_or_default());
    }
    let raw = raw::read(own, &mut findings);
    let config = convert::config(raw, &mut findings);
    let imported = keepalived::read(foreign, own.len(), &mut findings);
    let config = config.map(|(mut config, mut secrets)| {
        imported.merge(&mut config, &mut secrets, &mut findings);
        (config, secrets)
    });
    let warnings = findings.finish(&sources)?;
    match config {
        Some((config, secrets)) => Ok(Parsed { config, warnings, secrets }),
        None => Err(warnings),
    }
}

/// "2s", "1m30s", as a configuration has them; or what is wrong with it.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    value::duration(text).map_err(|fault| format!("{}: {}", fault.message, fault.remedy))
}

fn fits(sources: &[Source<'_>], findings: &mut Findings) -> bool {
    let mut total = 0;
    for (file, source) in sources.iter().enumerate() {
        total += source.text.len();
        if total > TEXT_MAX {
            let message = format!("the configuration is larger than {} MiB", TEXT_MAX >> 20);
            findings.error(Span::start_of(file), message, "remove what the daemon does not read");
            return false;
        }
    }
    true
}

/// Bytes of all files together: room for every service and server `lb_common::limits` allows, and bounds what
/// a wrong file can cost.
pub const TEXT_MAX: usize = 4 << 20;

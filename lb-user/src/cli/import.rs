//! `steelyard import`: files of other programs as a configuration of our own.

use std::{fs::File, io::Write, path::Path};

use super::{CliError, args::Foreign, print};
use crate::{io::file::Inputs, pure::import::toml};

pub(super) fn import(foreign: &Foreign, output: Option<&Path>) -> Result<(), CliError> {
    let inputs = Inputs { own: None, keepalived: foreign.keepalived.clone() };
    let parsed = inputs.read().map_err(CliError::File)?.parse().map_err(CliError::Config)?;
    let text = toml::written(&parsed);
    let Some(path) = output else { return print(&text) };
    let written = File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| CliError::Io { what: "cannot write the configuration", source })?;
    print(&format!("{} warnings; see {}\n", parsed.warnings.len(), path.display()))
}

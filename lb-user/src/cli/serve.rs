//! Commands that need no daemon: run one, check a configuration, detach.

use std::{io::Write, path::PathBuf};

use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

use super::{CliError, args::Common, color::Paint, print};
use crate::{
    daemon,
    io::{file, kernel},
    pure::config::{
        Parsed, Source,
        model::{Config, Secret},
        parse_files,
    },
};

pub(super) const CONFIG: &str = "/etc/steelyard/steelyard.toml";
const PIN: &str = "/sys/fs/bpf/steelyard";

pub(super) fn run(common: &Common, detach: bool) -> Result<(), CliError> {
    let config = load_whole(common)?;
    log(&config.log.level);
    let path = std::path::absolute(path(common))
        .map_err(|source| CliError::Io { what: "cannot name the configuration", source })?;
    daemon::run(daemon::Options { config, path, detach }).map_err(CliError::Run)
}

pub(super) fn check(common: &Common) -> Result<(), CliError> {
    let config = load_whole(common)?;
    if let Secret::File(path) = &config.cluster.secret {
        file::secret(path).map_err(CliError::File)?;
    }
    let servers: usize = config.services.iter().map(|service| service.servers.len()).sum();
    print(&format!("ok: {} services, {servers} servers\n", config.services.len()))
}

pub(super) fn detach(common: &Common, pin: Option<PathBuf>) -> Result<(), CliError> {
    let pin = match pin {
        Some(pin) => pin,
        None => configured(common)?.map_or_else(|| PIN.into(), |config| config.datapath.pin),
    };
    match kernel::remove_every(&pin).map_err(CliError::Pins)? {
        true => print(&format!("detached; {} is gone\n", pin.display())),
        false => print(&format!("nothing is attached or pinned below {}\n", pin.display())),
    }
}

/// The configuration, if one was named or stands where it usually does.
pub(super) fn configured(common: &Common) -> Result<Option<Config>, CliError> {
    let usual = common.config.is_none() && !PathBuf::from(CONFIG).exists();
    if usual { Ok(None) } else { load(common).map(|parsed| Some(parsed.config)) }
}

/// The configuration, its warnings told on stderr.
pub(super) fn load_aloud(common: &Common) -> Result<Config, CliError> {
    load(common).map(aloud)
}

/// The same with the secrets of virtual routers that stand in files.
fn load_whole(common: &Common) -> Result<Config, CliError> {
    let mut parsed = load(common)?;
    parsed.read_secrets(file::secret).map_err(CliError::Secret)?;
    Ok(aloud(parsed))
}

fn aloud(parsed: Parsed) -> Config {
    for warning in parsed.warnings {
        // A closed stderr wants no warnings.
        let _ = writeln!(std::io::stderr(), "{warning}\n");
    }
    parsed.config
}

fn load(common: &Common) -> Result<Parsed, CliError> {
    let texts = texts(common)?;
    let sources: Vec<_> = texts.iter().map(|text| Source { name: &text.name, text: &text.text }).collect();
    parse_files(&sources).map_err(CliError::Config)
}

/// The files of the configuration.
pub(super) fn texts(common: &Common) -> Result<Vec<file::ConfigText>, CliError> {
    file::config(&path(common)).map_err(CliError::File)
}

fn path(common: &Common) -> PathBuf {
    common.config.clone().unwrap_or_else(|| CONFIG.into())
}

/// The daemon's log: to stderr, where journald or a terminal reads it.
pub(super) fn log(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(Paint::stderr() == Paint::Ansi)
        .with_target(false)
        .with_timer(SystemTime);
    // Set once, here.
    let _ = subscriber.try_init();
}

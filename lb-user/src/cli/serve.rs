//! Commands that need no daemon: run one, check a configuration, detach.

use std::{io::Write, path::PathBuf, time::Duration};

use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

use super::{
    CliError,
    args::{Common, Foreign},
    ask,
    color::Paint,
    print,
};
use crate::{
    daemon,
    io::{
        file::{self, Inputs, Texts},
        host, kernel,
    },
    pure::{
        config::{
            Parsed,
            model::{Config, Secret},
        },
        lint,
        status::VrrpStatus,
    },
};

pub(super) const CONFIG: &str = "/etc/steelyard/steelyard.toml";
const PIN: &str = "/sys/fs/bpf/steelyard";

pub(super) fn run(common: &Common, foreign: &Foreign, detach: bool) -> Result<(), CliError> {
    let config = load_whole(common, foreign)?;
    log(&config.log.level);
    let inputs = inputs(common, foreign)
        .absolute()
        .map_err(|source| CliError::Io { what: "cannot name the configuration", source })?;
    daemon::run(daemon::Options { config, inputs, detach }).map_err(CliError::Run)
}

pub(super) fn check(common: &Common, foreign: &Foreign) -> Result<(), CliError> {
    let config = load_whole(common, foreign)?;
    if let Secret::File(path) = &config.cluster.secret {
        file::secret(path).map_err(CliError::File)?;
    }
    for warning in around(common, &config) {
        // A closed stderr wants no warnings.
        let _ = writeln!(std::io::stderr(), "warning: {warning}\n");
    }
    let servers: usize = config.services.iter().map(|service| service.servers.len()).sum();
    let routers = match config.vrrp.routers.len() {
        0 => String::new(),
        routers => format!(", {routers} virtual routers"),
    };
    print(&format!("ok: {} services, {servers} servers{routers}\n", config.services.len()))
}

/// What this host and a daemon that runs here make questionable. Neither has to be there.
fn around(common: &Common, config: &Config) -> Vec<String> {
    if config.vrrp.routers.is_empty() {
        return Vec::new();
    }
    let here = host::interfaces().unwrap_or_default();
    let mut warnings = lint::host(&config.vrrp, &config.cluster, &here);
    let socket = common.socket.as_ref().unwrap_or(&config.global.admin_socket);
    if let Some(status) = ask::within::<VrrpStatus>(socket, "/v1/vrrp", DAEMON_MAX) {
        warnings.extend(lint::live(&config.vrrp, &status));
    }
    warnings
}

/// A check is about files: a daemon that does not answer at once is left out.
const DAEMON_MAX: Duration = Duration::from_secs(1);

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
    if usual { Ok(None) } else { load(common, &Foreign::default()).map(|parsed| Some(parsed.config)) }
}

/// The configuration, its warnings told on stderr.
pub(super) fn load_aloud(common: &Common, foreign: &Foreign) -> Result<Config, CliError> {
    load(common, foreign).map(aloud)
}

/// The same with the secrets of virtual routers that stand in files.
fn load_whole(common: &Common, foreign: &Foreign) -> Result<Config, CliError> {
    let mut parsed = load(common, foreign)?;
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

fn load(common: &Common, foreign: &Foreign) -> Result<Parsed, CliError> {
    texts(common, foreign)?.parse().map_err(CliError::Config)
}

/// The files of the configuration.
pub(super) fn texts(common: &Common, foreign: &Foreign) -> Result<Texts, CliError> {
    inputs(common, foreign).read().map_err(CliError::File)
}

/// Beside files of other programs only a file that is named is read.
fn inputs(common: &Common, foreign: &Foreign) -> Inputs {
    let keepalived = foreign.keepalived.clone();
    let usual = || keepalived.is_empty().then(|| CONFIG.into());
    Inputs { own: common.config.clone().or_else(usual), keepalived }
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

//! The command line: what was asked, who answers it, how it is shown, and the exit code.

mod args;
mod ask;
mod change;
mod color;
mod decap;
mod events;
mod import;
mod render;
mod serve;
mod vrrp;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;

use self::args::{Args, Command};
use crate::{
    daemon::{RunError, decap::DecapError},
    io::{
        admin::{ReloadRequest, client::ClientError},
        file::FileError,
        kernel::PinsError,
    },
    pure::config::error::{Diagnostic, Severity},
};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{}", listing(.0))]
    Config(Vec<Diagnostic>),
    #[error("error: {0}")]
    File(FileError),
    /// Of a virtual router.
    #[error("error: {0}")]
    Secret(String),
    #[error("error: {0}")]
    Run(RunError),
    #[error("error: {0}")]
    Decap(DecapError),
    /// What is missing is the answer, and told already.
    #[error("error: this server lacks {0} of what decap needs: run the commands above, then check again")]
    Unprepared(usize),
    #[error("error: {0}")]
    Pins(PinsError),
    #[error("error: {0}")]
    Client(ClientError),
    #[error(
        "error: {name} still has {left} after {waited:?}: it drains on, wait again or `server disable` it"
    )]
    Undrained { name: String, left: String, waited: Duration },
    #[error("error: {what}: {source}")]
    Io { what: &'static str, source: io::Error },
}

/// Parses the arguments, runs the command, reports.
pub fn run() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Command::Run { ref foreign, detach } => serve::run(&args.common, foreign, detach),
        Command::Check(ref foreign) => serve::check(&args.common, foreign),
        Command::Import { ref foreign, ref output } => import::import(foreign, output.as_deref()),
        Command::Decap(ref asked) => decap::run(asked),
        Command::Detach { pin } => serve::detach(&args.common, pin),
        Command::Status(ref output) => ask::status(&args.common, output),
        Command::Service(ref command) => ask::service(&args.common, command),
        Command::Server(ref command) => ask::server(&args.common, command),
        Command::Vrrp(ref command) => vrrp::vrrp(&args.common, command),
        Command::Plan { ref foreign, ref output } => change::plan(&args.common, foreign, output),
        Command::Reload { max_moved, force, ref output } => {
            change::reload(&args.common, ReloadRequest { max_moved, force }, output)
        }
        Command::Counters(ref output) => ask::counters(&args.common, output),
        Command::Events(ref asked) => events::events(&args.common, asked),
        Command::Flows { ref service, ref output } => ask::flows(&args.common, service.as_deref(), output),
        Command::Explain { client, vip, ref output } => ask::explain(&args.common, client, vip, output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // When even stderr is closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(error.code())
        }
    }
}

impl CliError {
    fn code(&self) -> u8 {
        match self {
            CliError::Config(_)
            | CliError::File(_)
            | CliError::Secret(_)
            | CliError::Run(RunError::File(_))
            | CliError::Client(ClientError::Faulty(_))
            | CliError::Decap(DecapError::TooMany(_)) => USAGE,
            CliError::Client(ClientError::NoDaemon { .. }) => NO_DAEMON,
            CliError::Run(_)
            | CliError::Decap(_)
            | CliError::Unprepared(_)
            | CliError::Pins(_)
            | CliError::Client(_)
            | CliError::Undrained { .. }
            | CliError::Io { .. } => FAILED,
        }
    }
}

const FAILED: u8 = 1;
/// clap's own code for bad usage, too.
const USAGE: u8 = 2;
const NO_DAEMON: u8 = 3;

/// Writes to stdout; a reader that went away wanted no more.
fn print(text: &str) -> Result<(), CliError> {
    printed(text).map(|_| ())
}

/// The same; false: the reader has gone away.
fn printed(text: &str) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(CliError::Io { what: "cannot write the answer", source }),
    }
}

fn listing(diagnostics: &[Diagnostic]) -> String {
    let texts: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    format!("{}\n\nerror: {errors} in the configuration; nothing was changed", texts.join("\n\n"))
}

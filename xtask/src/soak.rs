//! `cargo xtask soak`: builds the soak that was asked for and starts it.

use anyhow::Result;

use crate::demo;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `vrrp`: nodes that share addresses instead of connections that stay open. The rest is passed on to the program,
    /// such as `--seconds 60`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.rest.split_first() {
        Some((subject, rest)) if subject == "vrrp" => demo::start("soak-vrrp", rest),
        _ => demo::start("soak", &arguments.rest),
    }
}

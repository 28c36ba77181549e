//! A server of the test bed: `peer NAME ADDRESS:PORT...`, run by the bed inside the server's namespace.

use std::net::SocketAddr;

use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// What it answers to `who`.
    name: String,
    /// Where it listens, TCP and UDP.
    #[arg(required = true)]
    addresses: Vec<SocketAddr>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    lb_tests::bed::peer::serve(&arguments.name, &arguments.addresses)
}

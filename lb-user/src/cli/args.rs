//! What can be asked.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::pure::{
    config::{self, model::XdpMode},
    explain::Endpoint,
};

/// A load balancer: layer 4 in the kernel by XDP, health checks and control in userspace.
#[derive(Debug, Parser)]
#[command(
    name = "steelyard",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 bad usage or bad configuration, 3 no daemon reached."
)]
pub(super) struct Args {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Common {
    /// Configuration file, or a directory of *.toml files [default: /etc/steelyard/steelyard.toml]
    #[arg(short, long, global = true, value_name = "FILE", env = "STEELYARD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Admin socket of the daemon to ask [default: the one in -c FILE, else /run/steelyard/admin.sock]
    #[arg(long, global = true, value_name = "PATH", env = "STEELYARD_SOCKET")]
    pub socket: Option<PathBuf>,
}

/// Configurations of other programs.
#[derive(Debug, Default, ClapArgs)]
pub(super) struct Foreign {
    /// Take the VRRP part of a keepalived.conf as it stands, beside -c FILE or alone; may be repeated
    #[arg(long, value_name = "FILE")]
    pub keepalived: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Attach to the interfaces, check the servers and balance, in the foreground
    ///
    /// SIGTERM and SIGINT stop the daemon; forwarding goes on by the pinned state, and the next start takes
    /// it over.
    Run {
        #[command(flatten)]
        foreign: Foreign,
        /// Take XDP and all pinned state away when the daemon stops
        #[arg(long)]
        detach: bool,
    },
    /// Read the configuration and report every fault, with its place and remedy
    Check(Foreign),
    /// Write a configuration that means the same as files of other programs; what differs stands in comments
    Import {
        #[command(flatten)]
        foreign: Foreign,
        /// Where to, a file that does not exist yet [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Show node, interfaces, services and servers on one screen
    Status(Output),
    /// List services, or show one
    #[command(subcommand)]
    Service(ServiceCommand),
    /// List servers, show one, or change one while the daemon runs
    ///
    /// What is changed here outlives a restart and a reload; `steelyard status` shows how it differs from the file.
    #[command(subcommand)]
    Server(ServerCommand),
    /// List virtual routers, show one, or hand one over to another node
    #[command(subcommand)]
    Vrrp(VrrpCommand),
    /// Tell what a reload with the configuration of -c would do: servers, share of the slots that move, recorded flows
    Plan {
        #[command(flatten)]
        foreign: Foreign,
        #[command(flatten)]
        output: Output,
    },
    /// Have the daemon read its configuration again; the same as SIGHUP and SIGUSR2
    ///
    /// A faulty configuration, or one that may not be, changes nothing. A service that is no longer in it ends, and its
    /// connections with it: `steelyard plan` tells beforehand.
    Reload {
        /// Refuse when more of all slots would move
        #[arg(long, value_name = "PERCENT", value_parser = percent)]
        max_moved: Option<f64>,
        /// Reload though connections of living servers end or move
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show every way a packet left the program, counted since the state was first pinned
    Counters(Output),
    /// Show what has changed of late, such as servers that went up or down, and with --follow what changes from now on
    Events(Events),
    /// List the recorded flows, at most 10 000 of them
    Flows {
        /// Only those of this service
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Tell which server a connection gets, and why: runs the program over the live tables, without a trace
    ///
    /// Shows the service and how it was found, whether the client may use it, the slot, the record, and for the first
    /// packet of a connection and a later one the server, the header that would be sent and the counter that names
    /// the way out.
    Explain {
        /// The client's end, such as 192.0.2.1:40000 or [2001:db8::1]:40000
        #[arg(value_name = "CLIENT:PORT")]
        client: SocketAddr,
        /// The service's end, such as 10.0.5.96:80/tcp
        #[arg(value_name = "VIP:PORT/PROTOCOL")]
        vip: Endpoint,
        #[command(flatten)]
        output: Output,
    },
    /// On a server: open ipip and gue packets for the listed addresses, in the foreground
    ///
    /// SIGTERM and SIGINT take the program away and print its counters; nothing is pinned, so nothing stays
    /// even when the process is killed.
    Decap(Decap),
    /// Take XDP and all pinned state away; ends forwarding
    Detach {
        /// Pin directory [default: the one in -c FILE, else /sys/fs/bpf/steelyard]
        #[arg(long, value_name = "DIR")]
        pin: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Output {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Events {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// How many of late to begin with; the daemon keeps 1 000
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub recent: usize,
    /// Begin with those later than this, the time of an event
    #[arg(long, value_name = "TIME", conflicts_with = "recent")]
    pub since: Option<Timestamp>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Decap {
    /// Where encapsulated packets arrive
    #[arg(long, required = true, num_args = 1.., value_name = "IF")]
    pub interface: Vec<String>,
    /// Addresses of the balancer's services, of either family
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR", value_parser = vip)]
    pub vip: Vec<IpAddr>,
    /// auto: native, else generic with a warning
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub mode: DecapMode,
    /// Attach nothing; say what this server lacks, and the command for each
    #[arg(long)]
    pub check: bool,
    /// For --check: the MSS that this server announces to clients, the `advmss` of its routes
    #[arg(long, value_name = "BYTES", requires = "check")]
    pub mss: Option<u16>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum DecapMode {
    Auto,
    Native,
    Generic,
}

impl From<DecapMode> for XdpMode {
    fn from(mode: DecapMode) -> Self {
        match mode {
            DecapMode::Auto => XdpMode::Auto,
            DecapMode::Native => XdpMode::Native,
            DecapMode::Generic => XdpMode::Generic,
        }
    }
}

fn vip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "expected an IPv4 or IPv6 address".to_owned())?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err("no service can have this address".to_owned());
    }
    Ok(address)
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// List all services
    List(Output),
    /// Show one service with its servers
    Show {
        /// As in the configuration
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ServerCommand {
    /// List all servers
    List(Output),
    /// Show one server
    Show {
        /// SERVICE/SERVER as in the configuration
        #[arg(value_parser = path)]
        name: ServerPath,
        #[command(flatten)]
        output: Output,
    },
    /// End drain and maintenance
    Enable(Which),
    /// Put it into maintenance: nothing is sent to it, and its connections are cut
    Disable(Which),
    /// Give it no new connections; those it has go on
    Drain {
        #[command(flatten)]
        which: Which,
        /// Return when its last connection has ended, at the latest when none was heard of for the idle timeout
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this, such as 90s or 20m, and fail
        #[arg(long, requires = "wait", value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Set its weight; 0 takes no new connections
    Weight {
        #[command(flatten)]
        which: Which,
        #[arg(value_name = "N")]
        weight: u16,
    },
    /// Add a server to a service
    Add {
        #[command(flatten)]
        which: Which,
        /// As in the configuration, such as 10.0.5.91:8888
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[arg(long, value_name = "N", default_value_t = 1)]
        weight: u16,
        /// Takes connections only while no other server can
        #[arg(long)]
        backup: bool,
    },
    /// Take a server out of its service; its connections go on
    Remove(Which),
}

#[derive(Debug, Subcommand)]
pub(super) enum VrrpCommand {
    /// List all virtual routers, their groups, and the other nodes
    List(Output),
    /// Show one: its state and why, timers, whose adverts are heard, what it tracks, counters
    Show {
        /// As in the configuration
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Have another node become active; a node that would not take over leaves things as they are
    Failover {
        /// As in the configuration
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, ClapArgs)]
pub(super) struct Which {
    /// SERVICE/SERVER
    #[arg(value_parser = path)]
    pub name: ServerPath,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone)]
pub(super) struct ServerPath {
    pub service: String,
    pub server: String,
}

fn path(text: &str) -> Result<ServerPath, String> {
    match text.split_once('/') {
        Some((service, server)) if !service.is_empty() && !server.is_empty() => {
            Ok(ServerPath { service: service.to_owned(), server: server.to_owned() })
        }
        _ => Err("expected SERVICE/SERVER, as `steelyard server list` shows them".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    number
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "expected a share such as 30%".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Args::command().debug_assert();
    }
}

//! The two products, set up alike: what balances, and what says which node has the address.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use lb_user::pure::status::{Status, VrrpStatus};
use serde::Serialize;

use super::event::Timing;
use crate::bed::{Family, Namespace, Pair, Steelyard, keepalived::Keepalived, layout::SERVICE_PORT};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// With HAProxy.
    Keepalived,
    Steelyard,
}

/// One of the two, on one node.
pub(super) enum Node<'a> {
    Keepalived { keepalived: Keepalived<'a>, _haproxy: [Haproxy; 2], runs: bool },
    Steelyard { steelyard: Box<Steelyard<'a>>, runs: bool },
}

impl Product {
    pub fn name(self) -> &'static str {
        match self {
            Product::Keepalived => "Keepalived + HAProxy",
            Product::Steelyard => "Steelyard",
        }
    }
}

impl<'a> Node<'a> {
    /// The first node has the higher priority. Nothing that decides runs yet.
    pub(super) fn new(pair: &'a Pair, node: usize, product: Product, timing: Timing) -> Result<Node<'a>> {
        match product {
            Product::Keepalived => {
                let keepalived = Keepalived::new(pair, node, "")?;
                let address = pair.nodes[node].address(Family::V4);
                // What an operator's script does, as cheap as a script can be.
                let script = keepalived.script(
                    "service.sh",
                    &format!("exec ss -Hltn src {address}:{RESPONDER_PORT} | grep -q ."),
                )?;
                keepalived.configure(&keepalived_config(node, timing, &script))?;
                // Two descriptors a connection: one process may not have as many as the crowd takes.
                let haproxy = [Haproxy::start(pair, node)?, Haproxy::start(pair, node)?];
                Ok(Node::Keepalived { keepalived, _haproxy: haproxy, runs: false })
            }
            Product::Steelyard => {
                let mut steelyard = Box::new(pair.steelyard(node)?);
                steelyard.show_log = false;
                steelyard.write_config(&steelyard_config(pair, node, timing, &steelyard))?;
                Ok(Node::Steelyard { steelyard, runs: false })
            }
        }
    }

    pub(super) fn runs(&self) -> bool {
        let (Node::Keepalived { runs, .. } | Node::Steelyard { runs, .. }) = self;
        *runs
    }

    pub(super) fn start(&mut self) -> Result<()> {
        match self {
            Node::Keepalived { keepalived, runs, .. } => {
                *runs = true;
                keepalived.start()
            }
            Node::Steelyard { steelyard, runs } => {
                *runs = true;
                steelyard.start()
            }
        }
    }

    /// Returns once it takes part in elections, and hears the other node where it listens for it.
    pub(super) fn settle(&self) -> Result<()> {
        let Node::Steelyard { steelyard, runs: true } = self else { return Ok(()) };
        let settled = |status: &Status| {
            let VrrpStatus { routers, peers, .. } = &status.vrrp;
            routers.iter().all(|router| ["backup", "active"].contains(&router.state.as_str()))
                && peers.iter().all(|peer| peer.state == "alive")
        };
        steelyard.wait("every node to take part", settled).map(drop)
    }

    /// SIGTERM.
    pub(super) fn stop(&mut self) -> Result<()> {
        match self {
            Node::Keepalived { keepalived, runs, .. } => {
                *runs = false;
                keepalived.stop()
            }
            Node::Steelyard { steelyard, runs } => {
                *runs = false;
                steelyard.terminate().map(drop)
            }
        }
    }

    pub(super) fn kill9(&mut self) -> Result<()> {
        match self {
            Node::Keepalived { keepalived, runs, .. } => {
                *runs = false;
                keepalived.kill9()
            }
            Node::Steelyard { steelyard, runs } => {
                *runs = false;
                steelyard.kill9()
            }
        }
    }
}

/// Killed when dropped.
pub(super) struct Haproxy(Child);

impl Haproxy {
    /// The crowd's service, on both nodes all along.
    fn start(pair: &Pair, node: usize) -> Result<Haproxy> {
        let host = &pair.nodes[node].namespace;
        host.set(&[("ipv4/ip_nonlocal_bind", "1")])?;
        let folder = pair.folder(node);
        let config = folder.join("haproxy.cfg");
        fs::write(&config, haproxy_config(pair))?;
        let log = File::options().create(true).append(true).open(folder.join("haproxy.log"))?;
        Ok(Haproxy(spawn_haproxy(host, &config, log)?))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended on its own; waiting for it is what matters.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn_haproxy(host: &Namespace, config: &Path, log: File) -> Result<Child> {
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    host.spawn(&mut command).context("haproxy carries the crowd of Keepalived")
}

fn haproxy_config(pair: &Pair) -> String {
    let mut text = format!(
        "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1h\n  timeout server 1h\n\
         listen web\n  bind {}:{SERVICE_PORT}\n",
        Pair::vip(Family::V4, 0)
    );
    for server in &pair.servers {
        text += &format!("  server {} {}\n", server.name, server.at(Family::V4));
    }
    text
}

fn keepalived_config(node: usize, timing: Timing, script: &Path) -> String {
    let (version, interval) = match timing {
        Timing::Second => (2, "1"),
        Timing::Fast => (3, "0.01"),
    };
    format!(
        "global_defs {{\n  router_id {name}\n  script_user root\n}}\n\
         vrrp_script service {{\n  script {script:?}\n  interval 1\n  fall 2\n  weight -80\n}}\n\
         vrrp_instance bench {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {VRID}\n\
         \x20 priority {priority}\n  version {version}\n  advert_int {interval}\n\
         \x20 virtual_ipaddress {{\n    {vip}/24\n  }}\n  track_script {{\n    service\n  }}\n}}\n",
        name = Pair::name(node),
        priority = PRIORITIES[node],
        vip = Pair::vip(Family::V4, 0),
    )
}

/// The service of the crowd is forwarded in the kernel. The responder is asked by checks as a server is, on a port that
/// no client uses.
fn steelyard_config(pair: &Pair, node: usize, timing: Timing, steelyard: &Steelyard) -> String {
    let (version, interval) = match timing {
        Timing::Second => (2, "1s"),
        Timing::Fast => (3, "10ms"),
    };
    let vip = Pair::vip(Family::V4, 0);
    let own = pair.nodes[node].address(Family::V4);
    let peer = pair.nodes[1 - node].address(Family::V4);
    let servers: Vec<String> = pair
        .servers
        .iter()
        .map(|server| format!("{{ name = {:?}, address = \"{}\" }}", server.name, server.at(Family::V4)))
        .collect();
    format!(
        "[global]\nnode = \"{name}\"\nadmin_socket = {socket:?}\nstate = {state:?}\n\n\
         [cluster]\nsecret = \"of the bench\"\npeers = [\"{peer}\"]\n\n\
         [datapath]\ninterfaces = [\"eth0\"]\nmode = \"native\"\npin = {pin:?}\n\n\
         [[service]]\nname = \"web\"\naddress = [\"{vip}\"]\nport = {SERVICE_PORT}\nprotocol = \"tcp\"\n\
         forward = \"dsr\"\nserver = [{servers}]\n[service.check]\ntype = \"tcp\"\ninterval = \"1s\"\n\n\
         [[service]]\nname = \"responder\"\naddress = [\"{vip}\"]\nport = 9\nprotocol = \"tcp\"\n\
         forward = \"nat\"\nserver = [{{ name = \"own\", address = \"{own}:{RESPONDER_PORT}\" }}]\n[service.check]\n\
         type = \"tcp\"\ninterval = \"20ms\"\ntimeout = \"20ms\"\nrise = 2\nfall = 2\n\n\
         [[vrrp]]\nname = \"bench\"\ninterface = \"eth0\"\nvrid = {VRID}\nversion = {version}\n\
         priority = {priority}\nadvert_interval = \"{interval}\"\naddresses = [\"{vip}/24\"]\n\
         track = [{{ service = \"responder\", weight = -80 }}]\n",
        name = Pair::name(node),
        socket = steelyard.socket(),
        state = steelyard.state(),
        pin = steelyard.pin(),
        servers = servers.join(", "),
        priority = PRIORITIES[node],
    )
}

pub(super) const RESPONDER_PORT: u16 = 8_080;
const PRIORITIES: [u8; 2] = [100, 80];
const VRID: u8 = 51;

//! FRR on a node: zebra and vrrpd, with sockets and files of their own.

use std::{
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Family, Host, Pair, exec, exec::Finished, pair::INTERFACE, poll, topology::nodad};

/// Killed when dropped.
pub struct Frr<'a> {
    host: &'a Host,
    folder: PathBuf,
    vrrpd: Child,
    zebra: Child,
}

/// A virtual router of version 3, with an address of each family.
#[derive(Debug, Clone, Copy)]
pub struct FrrRouter {
    pub vrid: u8,
    pub priority: u8,
    /// A multiple of 10.
    pub interval_ms: u16,
    pub addresses: [IpAddr; 2],
}

impl<'a> Frr<'a> {
    /// FRR wants its macvlans made by others: they are. Returns once vrrpd can be asked.
    pub fn running(pair: &'a Pair, node: usize, routers: &[FrrRouter]) -> Result<Frr<'a>> {
        let host = &pair.nodes[node];
        let folder = pair.folder(node);
        for router in routers {
            add_macvlans(host, router)?;
        }
        fs::write(folder.join("zebra.conf"), "")?;
        fs::write(folder.join("vrrpd.conf"), config(routers))?;
        let zebra = start(host, &folder, "zebra")?;
        let socket = folder.join(ZEBRA_SOCKET);
        poll("the socket of zebra", LIMIT, || socket.exists().then_some(()))?;
        let vrrpd = start(host, &folder, "vrrpd")?;
        let frr = Frr { host, folder, vrrpd, zebra };
        poll("an answer of vrrpd", LIMIT, || frr.show("show vrrp").ok()).with_context(|| frr.log())?;
        Ok(frr)
    }

    /// What vrrpd says to a command of its shell.
    pub fn show(&self, command: &str) -> Result<String> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(&self.folder).args(["-d", "vrrpd", "-c", command]);
        let Finished { code, stdout, stderr } =
            self.host.namespace.enter(|| exec::finish(&mut vtysh, "", LIMIT))??;
        anyhow::ensure!(code == Some(0), "vtysh ended with {code:?}: {stdout}{stderr}");
        Ok(stdout)
    }

    pub fn log(&self) -> String {
        let read = |daemon: &str| fs::read_to_string(self.folder.join(format!("{daemon}.log")));
        ["zebra", "vrrpd"].map(|daemon| read(daemon).unwrap_or_default()).concat()
    }
}

impl Drop for Frr<'_> {
    fn drop(&mut self) {
        for process in [&mut self.vrrpd, &mut self.zebra] {
            // It may have ended on its own; waiting for it is what matters.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Bridge mode, the virtual router's MAC, and the addresses, of both families.
fn add_macvlans(host: &Host, router: &FrrRouter) -> Result<()> {
    for address in router.addresses {
        let family = Family::of(address);
        let number = if family == Family::V4 { 4 } else { 6 };
        let (name, vrid) = (format!("vrrp{number}-{}", router.vrid), router.vrid);
        let mac = format!("00:00:5e:00:{:02x}:{vrid:02x}", if family == Family::V4 { 1 } else { 2 });
        host.namespace.ip(&format!(
            "link add {name} link {INTERFACE} type macvlan mode bridge\n\
             link set {name} address {mac}\n\
             link set {name} addrgenmode {}\n\
             addr add {address}/{} dev {name}{}\n\
             link set {name} up\n",
            if family == Family::V4 { "none" } else { "eui64" },
            Pair::prefix(family),
            nodad(address),
        ))?;
    }
    Ok(())
}

fn config(routers: &[FrrRouter]) -> String {
    let mut text = format!("interface {INTERFACE}\n");
    for FrrRouter { vrid, priority, interval_ms, addresses } in routers {
        text += &format!(
            " vrrp {vrid} version 3\n vrrp {vrid} priority {priority}\n\
             \x20vrrp {vrid} advertisement-interval {interval_ms}\n"
        );
        for address in addresses {
            let kind = if address.is_ipv4() { "ip" } else { "ipv6" };
            text += &format!(" vrrp {vrid} {kind} {address}\n");
        }
    }
    text
}

fn start(host: &Host, folder: &Path, daemon: &str) -> Result<Child> {
    let log = File::create(folder.join(format!("{daemon}.log")))?;
    let mut command = Command::new(Path::new(DAEMONS).join(daemon));
    // The group is the one that its shell must be of.
    command.args(["--user", "root", "--group", "frrvty", "--vty_port", "0", "--log", "stdout"]);
    for (option, file) in [
        ("--config_file", format!("{daemon}.conf")),
        ("--pid_file", format!("{daemon}.pid")),
        ("--socket", ZEBRA_SOCKET.to_owned()),
        ("--vty_socket", String::new()),
    ] {
        command.arg(option).arg(folder.join(file));
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    host.namespace.spawn(&mut command)
}

const DAEMONS: &str = "/usr/lib/frr";
const ZEBRA_SOCKET: &str = "zserv.api";
const LIMIT: Duration = Duration::from_secs(10);

//! A server that takes encapsulated packets, and what sends them: two namespaces and a cable.
//!
//! ```text
//! balancer, and client 10.77.9.1 ── veth ── eth0 10.77.9.2, server
//! ```

use std::{
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    os::{fd::AsRawFd, unix::process::CommandExt},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
    },
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    Namespace,
    exec::{self, Finished},
    janitor, poll,
    steelyard::program,
};
use crate::decap::tunnel::{BALANCER_MAC, BALANCER4, SERVER_MAC, SERVER4};

pub struct DecapBed {
    pub balancer: Namespace,
    pub server: Namespace,
    files: TempDir,
}

impl DecapBed {
    pub fn new() -> Result<DecapBed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("{}-d{}", janitor::fresh_tag()?, NEXT.fetch_add(1, Ordering::Relaxed));
        let [balancer, server] =
            ["balancer", "server"].map(|role| Namespace::create(&format!("{tag}-{role}")));
        let (balancer, server) = (balancer?, server?);
        for namespace in [&balancer, &server] {
            // An address is usable at once.
            namespace.set(&[("ipv6/conf/default/accept_dad", "0")])?;
        }
        balancer.set(&[("ipv6/conf/all/disable_ipv6", "0"), ("ipv6/conf/default/disable_ipv6", "0")])?;
        balancer.ip(&format!(
            "link add eth0 address {} type veth peer name eth0 address {} netns {}\n\
             addr add {BALANCER4}/24 dev eth0\nlink set eth0 up\n",
            mac(BALANCER_MAC),
            mac(SERVER_MAC),
            server.name(),
        ))?;
        server.ip(&format!(
            "addr add {SERVER4}/24 dev eth0\nlink set eth0 up\nroute add default via {BALANCER4}\n"
        ))?;
        Ok(DecapBed { balancer, server, files: janitor::files(&tag)? })
    }

    /// `steelyard decap`, to its end.
    pub fn cli(&self, args: &[&str]) -> Result<Finished> {
        self.finish(self.command(args)?)
    }

    /// As above, as the user nobody, from a copy that this user can reach.
    pub fn cli_as_nobody(&self, args: &[&str]) -> Result<Finished> {
        let copy = self.files.path().join("steelyard");
        fs::copy(program()?, &copy).context("copying the program")?;
        let mut command = Command::new(copy);
        command.arg("decap").args(args).uid(NOBODY).gid(NOBODY).current_dir("/");
        self.finish(command)
    }

    /// One command line on the server.
    pub fn shell(&self, line: &str) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        let done = self.finish(command)?;
        ensure!(done.code == Some(0), "`{line}` failed: {}", done.stderr);
        Ok(())
    }

    /// `steelyard decap`, until it is ready.
    pub fn start(&self, args: &[&str]) -> Result<Decap> {
        let (log, out) = (self.files.path().join("decap.log"), self.files.path().join("decap.out"));
        let mut command = self.command(args)?;
        command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&log)?);
        let mut decap = Decap { process: self.server.spawn(&mut command)? };
        let ready = poll("the word of decap that it is ready", LIMIT, || {
            let ended = decap.process.try_wait().ok().flatten();
            let text = fs::read_to_string(&log).unwrap_or_default();
            (ended.is_some() || text.contains("ready")).then_some((ended, text))
        });
        match ready? {
            (Some(code), text) => bail!("decap ended at once with {code}: {text}"),
            (None, _) => Ok(decap),
        }
    }

    /// What it wrote to standard error and to standard output.
    pub fn said(&self) -> Result<(String, String)> {
        let read = |name| fs::read_to_string(self.files.path().join(name));
        Ok((read("decap.log")?, read("decap.out")?))
    }

    /// A frame out of the balancer, as it is.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.balancer.enter(|| {
            let link = link("eth0")?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            let sent = sendto(socket.as_raw_fd(), frame, &link, MsgFlags::empty())?;
            ensure!(sent == frame.len(), "{sent} bytes of {} were sent", frame.len());
            Ok(())
        })?
    }

    /// Whether any program is attached to an interface of the server.
    pub fn attached(&self, interface: &str) -> Result<bool> {
        let links = self.server.ip_json(&["link", "show", "dev", interface])?;
        Ok(links.get(0).context("ip shows no link")?.get("xdp").is_some())
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(program()?);
        command.arg("decap").args(args).env("NO_COLOR", "1");
        Ok(command)
    }

    fn finish(&self, mut command: Command) -> Result<Finished> {
        self.server.enter(|| exec::finish(&mut command, "", LIMIT))?
    }
}

/// A running `steelyard decap`.
pub struct Decap {
    process: Child,
}

impl Decap {
    pub fn end(mut self, signal: Signal) -> Result<process::ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.process.id())?), signal)?;
        self.ended()
    }

    /// How it ended, by itself or by a signal.
    pub fn ended(&mut self) -> Result<process::ExitStatus> {
        poll("the end of decap", LIMIT, || self.process.try_wait().ok().flatten())
    }
}

impl Drop for Decap {
    fn drop(&mut self) {
        // It may have ended on its own; waiting for it is what matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A socket inside `namespace` that gives up after a while.
pub fn bind(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let socket = namespace.enter(|| UdpSocket::bind(address))?;
    let socket = socket.with_context(|| format!("listening on {address}"))?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

/// Where frames are sent to: the interface is all that counts.
fn link(interface: &str) -> Result<LinkAddr> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let link = entries.find_map(|entry| entry.address?.as_link_addr().copied());
    link.with_context(|| format!("no interface {interface}"))
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

const LIMIT: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(5);
const NOBODY: u32 = 65_534;

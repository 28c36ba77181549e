//! Peer processes: started, killed and started again in a namespace.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddrV4},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use super::{Host, Namespace, exec, peer};

/// One server behind the balancer.
pub struct Server {
    pub name: String,
    pub host: Host,
    /// Where it answers, its own address first.
    pub listens: Vec<SocketAddrV4>,
    process: Mutex<Option<Peer>>,
}

impl Server {
    pub(super) fn start_on(host: Host, name: &str, listens: Vec<SocketAddrV4>) -> Result<Server> {
        let server = Server { name: name.to_owned(), host, listens, process: Mutex::new(None) };
        server.start()?;
        Ok(server)
    }

    pub fn address(&self) -> Ipv4Addr {
        self.host.address
    }

    /// Returns once it listens.
    pub fn start(&self) -> Result<()> {
        let peer = Peer::start(&self.host.namespace, &self.name, &self.listens)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer);
        Ok(())
    }

    /// SIGKILL: its kernel resets what was open and refuses what comes.
    pub fn kill(&self) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A running peer; killed when dropped.
pub struct Peer {
    process: Child,
}

impl Peer {
    pub fn start(namespace: &Namespace, name: &str, listens: &[SocketAddrV4]) -> Result<Peer> {
        let program = exec::workspace_program("peer", "cargo build -p lb-tests --bins")?;
        let mut command = Command::new(program);
        command.arg(name).args(listens.iter().map(SocketAddrV4::to_string));
        let process = namespace.spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut peer = Peer { process };
        let stdout = peer.process.stdout.take().context("the peer has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim_end() == peer::READY, "peer {name} on {listens:?} did not start");
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended on its own; waiting for it is what matters.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

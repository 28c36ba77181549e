//! Peer processes: started, killed and started again in a namespace.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};

use super::{Family, Host, Namespace, exec, opener::Opener, peer};

/// One server behind the balancer.
pub struct Server {
    pub name: String,
    pub host: Host,
    /// Where it answers, first at its own address in the layout's `server_family`.
    pub listens: Vec<SocketAddr>,
    /// Opens `ipip` and `gue` packets; stays when the peer is killed.
    opener: Mutex<Option<Opener>>,
    process: Mutex<Option<Peer>>,
}

impl Server {
    pub(super) fn start_on(
        host: Host,
        name: &str,
        listens: Vec<SocketAddr>,
        opener: Option<Opener>,
    ) -> Result<Server> {
        let (opener, process) = (Mutex::new(opener), Mutex::new(None));
        let server = Server { name: name.to_owned(), host, listens, opener, process };
        server.start()?;
        Ok(server)
    }

    /// Where the balancer finds it.
    pub fn own(&self) -> SocketAddr {
        self.listens[0]
    }

    /// As `own`, in either family.
    pub fn at(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.host.address(family), self.own().port())
    }

    /// `ipip` and `gue` packets are opened no more.
    pub fn stop_opening(&self) {
        *self.opener.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
    pub fn start(namespace: &Namespace, name: &str, listens: &[SocketAddr]) -> Result<Peer> {
        let program = exec::workspace_program("peer", "cargo build -p lb-tests --bins")?;
        let mut command = Command::new(program);
        command.arg(name).args(listens.iter().map(SocketAddr::to_string));
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

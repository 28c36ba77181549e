//! Three namespaces in a row, with one way to forward in the middle.

use std::process;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{
    napi::Napi,
    way::{Arrival, Forwarder, Way},
};
use crate::{
    bed::{Namespace, janitor, topology::interface_index},
    bench::{
        driver::{Live, Script},
        packet::{CLIENT_MAC, OWN_MAC},
    },
};

pub(super) struct Lane {
    forwarder: Forwarder,
    live: Live,
    napi: Napi,
    generator: u32,
    links: Links,
}

/// The row of namespaces; files go with it.
pub(super) struct Links {
    pub(super) clients: Namespace,
    pub(super) balancer: Namespace,
    pub(super) servers: Namespace,
    /// The balancer's interface towards the clients.
    pub(super) front: String,
    pub(super) files: TempDir,
}

impl Lane {
    pub(super) fn new(number: usize, way: Way, script: &Script<'_>) -> Result<Lane> {
        let links = Links::new(number)?;
        let mut live = Live::load(script)?;
        links.clients.enter(|| live.attach_sink(EDGE))??;
        links.servers.enter(|| live.attach_sink(EDGE))??;
        let forwarder = Forwarder::set_up(way, &links, &mut live)?;
        let napi = Napi::threaded(&links.balancer, &links.front)?;
        let generator = interface_index(&links.clients, EDGE)?;
        Ok(Lane { forwarder, live, napi, generator, links })
    }

    /// Has everything behind the generator done by one processor.
    pub(super) fn bind(&self, cpu: usize) -> Result<()> {
        self.napi.bind(cpu)
    }

    pub(super) fn send(&mut self, frames: u32) -> Result<()> {
        self.links.clients.enter(|| self.live.send(self.generator, frames))?
    }

    /// Frames forwarded so far, by the account of the way itself.
    pub(super) fn forwarded(&self) -> Result<u64> {
        self.forwarder.forwarded(&self.links.balancer, &self.live)
    }

    pub(super) fn cpu_ns(&self) -> Result<u64> {
        self.napi.cpu_ns()
    }

    /// All of the `forwarded` frames have arrived, with the address they should have, and no others.
    pub(super) fn check_delivery(&self, forwarded: u64) -> Result<()> {
        let seen = self.live.seen()?;
        let expected = match self.forwarder.arrival() {
            Arrival::AtVip => (forwarded, 0),
            Arrival::AtServer => (0, forwarded),
        };
        let found = (seen.at_vip, seen.elsewhere);
        ensure!(
            found == expected,
            "{forwarded} frames were forwarded; {} arrived for the service, {} for its servers",
            found.0,
            found.1
        );
        Ok(())
    }
}

impl Links {
    fn new(number: usize) -> Result<Links> {
        let tag = janitor::fresh_tag()?;
        let namespace = |role: &str| -> Result<Namespace> {
            let namespace = Namespace::create(&format!("{tag}-{role}"))?;
            // No frame but the generator's: every one is counted.
            namespace.set(&[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")])?;
            Ok(namespace)
        };
        let links = Links {
            clients: namespace("clients")?,
            balancer: namespace("balancer")?,
            servers: namespace("servers")?,
            front: format!("b{number}x{}", process::id()),
            files: janitor::files(&tag)?,
        };
        links.connect(&links.clients, CLIENT_MAC, &links.front, OWN_MAC)?;
        links.connect(&links.servers, SINK_MAC, BACK, BACK_MAC)?;
        Ok(links)
    }

    fn connect(&self, end: &Namespace, mac: [u8; 6], interface: &str, own_mac: [u8; 6]) -> Result<()> {
        self.balancer.ip(&format!(
            "link add {interface} address {} type veth peer name {EDGE} address {} netns {}\n\
             link set {interface} up\n",
            shown(own_mac),
            shown(mac),
            end.name(),
        ))?;
        end.ip(&format!("link set {EDGE} up\n"))
    }
}

pub(super) fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The one interface of clients and of servers.
const EDGE: &str = "eth0";
/// The balancer's interface towards the servers.
pub(super) const BACK: &str = "back";
pub(super) const SINK_MAC: [u8; 6] = [2, 0, 0, 1, 0, 1];
pub(super) const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

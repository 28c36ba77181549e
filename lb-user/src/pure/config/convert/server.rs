//! One entry of `server`: its values and defaults.

use std::net::{IpAddr, SocketAddr};

use super::{checked, name, number, required};
use crate::pure::config::{
    address,
    error::{Findings, Spanned},
    model::{Admin, Server},
    network::Ports,
    raw,
};

pub(super) struct DraftServer {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<Target>>,
    pub(super) backup: bool,
    weight: Option<u16>,
}

/// Where a server listens, as typed.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) address: IpAddr,
    /// None: the packet's, which is the service's where that has only one.
    pub(super) port: Option<u16>,
}

impl DraftServer {
    pub(super) fn new(raw: Spanned<raw::Server>, findings: &mut Findings) -> DraftServer {
        let Spanned { at, value: raw } = raw;
        let address = required(raw.address, "address", "\"10.0.5.91:8888\"", at, findings);
        DraftServer {
            name: name(raw.name, at, findings),
            address: address.and_then(|typed| {
                let (address, port) = checked(&typed, findings, address::server_address)?;
                Some(Spanned::new(typed.at, Target { address, port }))
            }),
            weight: raw.weight.or(1, |typed| number(&typed, "weight", 0, u16::MAX, findings)),
            backup: raw.backup.given().unwrap_or_default(),
        }
    }

    pub(super) fn finish(self, ports: Ports) -> Option<Server> {
        Some(Server {
            name: self.name?.value,
            address: self.address?.value.resolved(ports),
            weight: self.weight?,
            backup: self.backup,
            admin: Admin::Ready,
        })
    }
}

impl Target {
    /// With port 0 where a packet keeps its own.
    pub(super) fn resolved(self, ports: Ports) -> SocketAddr {
        SocketAddr::new(self.address, self.port.or(ports.single()).unwrap_or(0))
    }
}

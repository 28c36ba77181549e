//! One entry of `server`: its values and defaults.

use std::net::{IpAddr, SocketAddr};

use super::{checked, name, number, required};
use crate::pure::config::{
    address,
    error::{Findings, Spanned},
    model::{Admin, Server, Service},
    network::{Family, Ports},
    raw,
    value::{self, Fault, fault},
};
use crate::pure::overlay::Added;

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

/// A server that is added to a service while the daemon runs: held to the rules of the file.
pub(in crate::pure) fn added_server(service: &Service, added: &Added) -> Result<Server, Fault> {
    let name = value::name(&added.name)?;
    let (address, port) = address::server_address(&added.address)?;
    let target = Target { address, port };
    if service.forward.keeps_port() && port.is_some() && port != service.ports.single() {
        return Err(fault(
            format!(
                "`{}` cannot change the port from {} to {}",
                service.forward.name(),
                service.ports,
                port.unwrap_or(0)
            ),
            format!("write {address} alone"),
        ));
    }
    let family = Family::of(address);
    if service.forward.keeps_family() && !service.has(family) {
        return Err(fault(
            format!(
                "`{}` keeps the family of a packet, and service {} has no {} address",
                service.forward.name(),
                service.name,
                family.name()
            ),
            "add a server of the service's own family",
        ));
    }
    let address = target.resolved(service.ports);
    if service.check.needs_port() && address.port() == 0 {
        return Err(fault(
            format!(
                "no port to check: service {} has port {}, and the server none",
                service.name, service.ports
            ),
            "give the server a port",
        ));
    }
    Ok(Server { name, address, weight: added.weight, backup: added.backup, admin: Admin::Ready })
}

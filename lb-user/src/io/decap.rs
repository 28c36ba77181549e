//! The facts that `decap --check` judges: addresses and kernel settings of this network namespace.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
    sys::socket::SockaddrStorage,
};

use crate::pure::decap::{Address, Facts, Interface, Ipv4Settings};

#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("cannot list this server's addresses: {0}; see the system's limits")]
    Addresses(#[source] nix::Error),
    #[error("cannot read {}: {source}; is /proc mounted?", path.display())]
    Setting { path: PathBuf, source: io::Error },
    #[error("{} says `{text}`, which is no number: report this as a fault", path.display())]
    Value { path: PathBuf, text: String },
}

/// `interfaces`: each with its MTU.
pub fn facts(interfaces: impl Iterator<Item = (String, u32)>) -> Result<Facts, FactsError> {
    let listed = getifaddrs().map_err(FactsError::Addresses)?;
    Ok(Facts {
        addresses: listed.filter_map(|entry| address(&entry)).collect(),
        all: ipv4("all")?,
        loopback_without_ipv6: without_ipv6("lo")?,
        interfaces: interfaces.map(interface).collect::<Result<_, _>>()?,
    })
}

fn interface((name, mtu): (String, u32)) -> Result<Interface, FactsError> {
    Ok(Interface { mtu, settings: ipv4(&name)?, without_ipv6: without_ipv6(&name)?, name })
}

fn address(entry: &InterfaceAddress) -> Option<Address> {
    let prefix = match ip(entry.netmask.as_ref()?)? {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    };
    Some(Address {
        interface: entry.interface_name.clone(),
        loopback: entry.flags.contains(InterfaceFlags::IFF_LOOPBACK),
        address: ip(entry.address.as_ref()?)?,
        prefix: u8::try_from(prefix).ok()?,
    })
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 =
        || address.as_sockaddr_in().map(|address| SocketAddr::from(std::net::SocketAddrV4::from(*address)));
    let v6 =
        || address.as_sockaddr_in6().map(|address| SocketAddr::from(std::net::SocketAddrV6::from(*address)));
    v4().or_else(v6).map(|address| address.ip())
}

fn ipv4(interface: &str) -> Result<Ipv4Settings, FactsError> {
    let read = |name| Ok(setting("ipv4", interface, name)?.unwrap_or(0));
    Ok(Ipv4Settings {
        arp_ignore: read("arp_ignore")?,
        arp_announce: read("arp_announce")?,
        rp_filter: read("rp_filter")?,
    })
}

/// Also where the kernel has no IPv6 at all.
fn without_ipv6(interface: &str) -> Result<bool, FactsError> {
    Ok(setting("ipv6", interface, "disable_ipv6")? != Some(0))
}

fn setting(family: &str, interface: &str, name: &str) -> Result<Option<u8>, FactsError> {
    let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{interface}/{name}"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FactsError::Setting { path, source }),
    };
    match text.trim().parse() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(FactsError::Value { path, text }),
    }
}

//! This host's interfaces and their addresses, at one moment.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::pure::lint::HostInterface;

/// Every interface, also one without addresses.
pub fn interfaces() -> io::Result<Vec<HostInterface>> {
    let mut interfaces: Vec<HostInterface> = Vec::new();
    for entry in getifaddrs()? {
        let address = entry.address.as_ref().and_then(ip);
        let prefix = entry.netmask.as_ref().and_then(ip).map(prefix);
        let found = address.zip(prefix);
        match interfaces.iter_mut().find(|known| known.name == entry.interface_name) {
            Some(known) => known.addresses.extend(found),
            None => interfaces
                .push(HostInterface { name: entry.interface_name, addresses: found.into_iter().collect() }),
        }
    }
    Ok(interfaces)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn prefix(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => Ipv4Addr::to_bits(mask).leading_ones(),
        IpAddr::V6(mask) => Ipv6Addr::to_bits(mask).leading_ones(),
    };
    // At most 128.
    ones as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there() {
        let interfaces = interfaces().unwrap();
        let lo = interfaces.iter().find(|interface| interface.name == "lo").expect("every host has lo");
        assert!(lo.addresses.is_empty() || lo.addresses.contains(&(Ipv4Addr::LOCALHOST.into(), 8)), "{lo:?}");
    }
}

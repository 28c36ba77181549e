//! Addresses, networks and ports written as text.
//!
//! Owns their grammar, and which addresses a packet cannot be forwarded to. Must not know which key a value
//! belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustls::pki_types::DnsName;

use super::{
    error::quote,
    network::{Family, Network, Ports},
    value::{Fault, fault},
};

/// One address that a packet can be sent to.
pub(crate) fn address(text: &str) -> Result<IpAddr, Fault> {
    if let Ok(address) = text.parse() {
        return usable(Network::host(address)).map(|()| address);
    }
    if network(text).is_ok() {
        return Err(fault(
            format!("{} is a network, not one address", quote(text)),
            "write a single address, without `/` and a prefix length",
        ));
    }
    Err(no_address(text))
}

/// The same, or one that only this link knows.
pub(crate) fn link_address(text: &str) -> Result<IpAddr, Fault> {
    match text.parse() {
        Ok(IpAddr::V6(link)) if link.is_unicast_link_local() => Ok(link.into()),
        _ => address(text),
    }
}

/// An address as an interface has it: with the length of the prefix of its network, else alone.
pub(crate) fn interface_address(text: &str) -> Result<(IpAddr, u8), Fault> {
    let Some((typed, length)) = text.split_once('/') else {
        return link_address(text).map(|address| (address, Family::of(address).bits()));
    };
    let address = link_address(typed)?;
    let bits = Family::of(address).bits();
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
    match length.parse().ok().filter(|length| is_number && (1..=bits).contains(length)) {
        Some(length) => Ok((address, length)),
        None => Err(fault(
            format!("{} is not the length of a prefix", quote(length)),
            format!("write 1 to {bits}, such as \"{address}/{bits}\""),
        )),
    }
}

/// The addresses of a service: one, or a network of them.
pub(crate) fn service_network(text: &str) -> Result<Network, Fault> {
    let network = network(text)?;
    usable(network).map(|()| network)
}

/// Any network, `/0` too; an address without a length is a network of one.
pub(crate) fn network(text: &str) -> Result<Network, Fault> {
    let Some((typed, length)) = text.split_once('/') else {
        return text.parse().map(Network::host).map_err(|_| no_address(text));
    };
    let address: IpAddr = typed.parse().map_err(|_| no_address(text))?;
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = length.parse().ok().filter(|_| is_number);
    let Some(network) = parsed.and_then(|length| Network::around(address, length)) else {
        let bits = Network::host(address).length();
        return Err(fault(
            format!("{} is not the length of a prefix", quote(length)),
            format!("write 0 to {bits}, such as \"{address}/{bits}\""),
        ));
    };
    if network.address() != address {
        return Err(fault(
            format!("{} has bits set behind its prefix", quote(text)),
            format!("write \"{network}\" for the network, or \"{address}\" for the one address"),
        ));
    }
    Ok(network)
}

/// `IP` or `IP:PORT`; an IPv6 address before a port stands in brackets.
pub(crate) fn server_address(text: &str) -> Result<(IpAddr, Option<u16>), Fault> {
    let (host, port) = host_and_port(text);
    let address = address(host)?;
    let Some(port) = port else { return Ok((address, None)) };
    let example = SocketAddr::new(address, 8_080);
    if port_range(port).is_some() || port == "any" {
        return Err(fault(
            format!("{} is more than one port", quote(port)),
            format!("write one, as \"{example}\", or none, as \"{address}\""),
        ));
    }
    match port_number(port) {
        Some(port) if port != 0 => Ok((address, Some(port))),
        _ => Err(fault(
            format!("{} is not a port", quote(port)),
            format!("write 1 to 65535, as \"{example}\"; without a port the service's is used"),
        )),
    }
}

/// A host that mail is given to: its name or address, and a port where it is not 25.
pub(crate) fn mail_server(text: &str) -> Result<String, Fault> {
    let (host, port) = host_and_port(text);
    let is_host = host.parse::<IpAddr>().is_ok() || DnsName::try_from(host).is_ok();
    let is_port = port.is_none_or(|port| port_number(port).is_some_and(|port| port != 0));
    if !is_host || !is_port {
        return Err(fault(
            format!("{} is not a mail server", quote(text)),
            "write a name or an address, and a port where it is not 25: \"mail.example.com:587\"",
        ));
    }
    Ok(text.into())
}

/// `"8000-8999"` or `"any"`; one port is a number, without quotes.
pub(crate) fn ports(text: &str) -> Result<Ports, Fault> {
    if text == "any" {
        return Ok(Ports::ANY);
    }
    if let Some(port) = port_number(text) {
        let remedy = format!("write `port = {}`", port.max(1));
        return Err(fault("`port` must be an integer, not a string", remedy));
    }
    match port_range(text) {
        Some((0, last)) => {
            Err(fault(format!("{} begins at port 0", quote(text)), format!("write \"1-{}\"", last.max(1))))
        }
        Some((first, last)) if last < first => Err(fault(
            format!("the range {} ends before it begins", quote(text)),
            format!("write \"{last}-{first}\""),
        )),
        Some((first, last)) => Ok(Ports { first, last }),
        None => Err(fault(
            format!("{} is not a port", quote(text)),
            "write a port from 1 to 65535, a range such as \"8000-8999\", or \"any\"",
        )),
    }
}

fn host_and_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && host.parse::<Ipv6Addr>().is_ok()
    {
        match (rest, rest.strip_prefix(':')) {
            ("", _) => return (host, None),
            (_, Some(port)) => return (host, Some(port)),
            (_, None) => return (text, None),
        }
    }
    match text.split_once(':') {
        Some((host, port)) if !host.starts_with('[') && !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    Some((port_number(first)?, port_number(last)?))
}

/// Digits alone: `parse` would take a sign.
fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn no_address(text: &str) -> Fault {
    if let Ok(end) = text.parse::<SocketAddr>() {
        let port = if end.port() == 0 { 80 } else { end.port() };
        return fault(
            format!("{} has a port, which does not belong here", quote(text)),
            format!("write \"{}\"; a service's port has its own key, `port = {port}`", end.ip()),
        );
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'))
        && inner.parse::<Ipv6Addr>().is_ok()
    {
        return fault(
            format!("{} stands in brackets, which only a port needs", quote(text)),
            format!("write \"{inner}\""),
        );
    }
    fault(
        format!("{} is not an IP address", quote(text)),
        "write an address such as 10.0.5.96 or 2001:db8::96; names are not resolved",
    )
}

/// Whether each of its addresses can be that of one machine on the network.
fn usable(network: Network) -> Result<(), Fault> {
    let refused = UNUSABLE.iter().find_map(|&(address, length, kind)| {
        let special = Network::around(address, length)?;
        special.overlaps(network).then_some((special, kind))
    });
    let Some((special, kind)) = refused else { return Ok(()) };
    if !special.covers(network) {
        return Err(fault(
            format!("`{network}` holds `{special}`, which is not for services"),
            "write longer prefixes, of addresses that others can reach over the network",
        ));
    }
    let verb = if network.is_host() { "is" } else { "is of" };
    let remedy = match network.address() {
        IpAddr::V6(address) if let Some(plain) = address.to_ipv4_mapped() => {
            format!("write the IPv4 address, such as \"{plain}\"")
        }
        _ => "write an address of one machine that others can reach over the network".into(),
    };
    Err(fault(format!("`{network}` {verb} {kind}"), remedy))
}

const UNUSABLE: [(IpAddr, u8, &str); 9] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32, "the unspecified address"),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8, "a loopback address"),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4, "a multicast address"),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32, "the broadcast address"),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 128, "the unspecified address"),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), 128, "the loopback address"),
    (IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)), 96, "an IPv4 address written as IPv6"),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10, "a link-local address"),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8, "a multicast address"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses() {
        let v4 = IpAddr::from([10, 0, 5, 91]);
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let accepted = [
            ("10.0.5.91", (v4, None)),
            ("10.0.5.91:8888", (v4, Some(8_888))),
            ("2001:db8::1", (v6, None)),
            ("[2001:db8::1]", (v6, None)),
            ("[2001:db8::1]:80", (v6, Some(80))),
        ];
        for (text, expected) in accepted {
            assert_eq!(server_address(text), Ok(expected), "{text}");
        }
        let refused = [
            "",
            ":",
            "10.0.5.91:",
            "10.0.5.91:0",
            "10.0.5.91:+80",
            "10.0.5.91:65536",
            "10.0.5.91:80-90",
            "10.0.5.91:any",
            "web1:80",
            "[::1",
            "10.0.5:80",
            "10.0.5.91/32",
            "[10.0.5.91]:80",
            "[2001:db8::1]80",
            "[2001:db8::1]:",
            "[2001:db8::1]:0",
            "[fe80::1]:80",
            "::ffff:10.0.5.91",
            "fe80::1%eth0",
        ];
        for text in refused {
            assert!(server_address(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn networks() {
        let accepted = ["10.0.5.96", "10.0.5.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32", "fe80::/10"];
        for text in accepted {
            assert_eq!(network(text).map(|network| network.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(network("10.0.5.96/32"), network("10.0.5.96"));
        let refused = [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/33",
            "2001:db8::/129",
            "10.0.5.96/24",
            "2001:db8::1/64",
            "10.0.0.0/8/8",
            "10/8",
            "net/8",
            "10.0.5.96:80/24",
        ];
        for text in refused {
            assert!(network(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn services_hold_usable_addresses_only() {
        let cases = [
            ("10.0.5.0/24", None),
            ("2001:db8::/32", None),
            ("0.0.0.0/0", Some("`0.0.0.0/0` holds `0.0.0.0`, which is not for services")),
            ("::/0", Some("`::/0` holds `::`, which is not for services")),
            ("128.0.0.0/1", Some("`128.0.0.0/1` holds `224.0.0.0/4`, which is not for services")),
            ("127.1.0.0/16", Some("`127.1.0.0/16` is of a loopback address")),
            ("::1", Some("`::1` is the loopback address")),
            ("::", Some("`::` is the unspecified address")),
            ("fe80::96", Some("`fe80::96` is a link-local address")),
            ("ff02::1", Some("`ff02::1` is a multicast address")),
            ("::ffff:10.0.5.96", Some("`::ffff:10.0.5.96` is an IPv4 address written as IPv6")),
        ];
        for (text, expected) in cases {
            let found = service_network(text).err().map(|fault| fault.message);
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn port_ranges() {
        let accepted = [
            ("any", Ports::ANY),
            ("1-65535", Ports::ANY),
            ("8000-8999", Ports { first: 8_000, last: 8_999 }),
            ("80-80", Ports::exact(80)),
        ];
        for (text, expected) in accepted {
            assert_eq!(ports(text), Ok(expected), "{text}");
        }
        for text in
            ["", "-", "80", "http", "80-", "-80", "0-80", "90-80", "80-65536", "80 - 90", "+80-90", "ANY"]
        {
            assert!(ports(text).is_err(), "{text:?}");
        }
    }
}

//! Checks that go through the data path: what the probes' sockets, the daemon's table and the programs at the kernel's
//! traffic hooks share.

use crate::{
    net::{Be16, Be128},
    slot::ServerId,
};

/// The mark of a probe's socket: this in the first byte, the server's id in the others. A mark alone means nothing: only
/// packets to the address and port of that very server are taken.
pub const MARK: u32 = 0x5300_0000;
pub const MARK_MASK: u32 = 0xff00_0000;

/// The mark of packets that check a server.
#[inline(always)]
pub const fn mark(server: ServerId) -> u32 {
    MARK | server.0 & !MARK_MASK
}

/// The server that a mark names.
#[inline(always)]
pub const fn marked(mark: u32) -> Option<ServerId> {
    if mark & MARK_MASK == MARK { Some(ServerId(mark & !MARK_MASK)) } else { None }
}

/// Where the check of one server goes. IPv4 addresses stand in their mapped form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// Of the service.
    pub vip: Be128,
    /// What such packets come from where service and server are of different IP versions; zero: nothing to come from.
    pub source: Be128,
    pub vip_port: Be16,
    /// What the probe's socket connects to, at the server's address.
    pub port: Be16,
    /// An `entry::Mode` that keeps the packet's ends.
    pub mode: u32,
}

/// A checking connection as the server sees it; what it answers comes back with these ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ConnectionKey {
    pub local: Be128,
    pub vip: Be128,
    pub local_port: Be16,
    pub vip_port: Be16,
    pub protocol: u32,
}

/// The same connection as the probe's socket sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Connection {
    pub local: Be128,
    pub server: Be128,
    pub server_port: Be16,
    pub reserved: u16,
    /// Of the socket, which takes nothing without it.
    pub mark: u32,
}

/// Checking connections that are known at once; the least recently seen gives way. More than run together, since the
/// last packets of one come when its socket is closed.
pub const CONNECTIONS_MAX: u32 = 8_192;

const _: () = assert!(crate::limits::SERVERS_MAX <= !MARK_MASK);
const _: () = assert!(size_of::<Target>() == 40 && size_of::<ConnectionKey>() == 40);
const _: () = assert!(size_of::<Connection>() == 40);

/// What became of the packets of checks.
pub mod counter {
    use crate::counter::counters;

    counters! {
        /// Packets of checks sent as their service's traffic is.
        CheckSent = "check_sent",
        /// Answers to checks handed to the probe's socket.
        CheckAnswered = "check_answered",
        /// ICMP errors about checks handed to the probe's socket.
        CheckError = "check_error",
        /// Packets of checks dropped: too long for the interface once they are encapsulated, or no memory.
        CheckRefused = "check_refused",
        /// Packets of checks dropped: this machine has no address of the service's IP version to send from.
        CheckNoSource = "check_no_source",
    }

    /// Places in the map: a power of two, so that the bits of an index keep it within.
    pub const COUNTS: usize = 8;

    const _: () = assert!(Counter::ALL.len() <= COUNTS && COUNTS.is_power_of_two());

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_documentation_lists_every_counter() {
            let page = include_str!("../../docs/through.md");
            let mut rows = page.lines().filter_map(|line| line.strip_prefix("| `check_"));
            for counter in Counter::ALL {
                let name = counter.name().strip_prefix("check_").expect("all are about checks");
                let row = rows.next().and_then(|row| row.strip_prefix(name));
                let help = row.and_then(|row| row.strip_prefix("` | ")?.strip_suffix(" |"));
                assert_eq!(help, Some(counter.help()), "{}", counter.name());
            }
            assert_eq!(rows.next(), None, "docs/through.md");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_servers() {
        for id in [0, 1, 0x7fff, 0xff_ffff] {
            assert_eq!(marked(mark(ServerId(id))), Some(ServerId(id)));
        }
        for foreign in [0, 1, 0x5400_0001, 0xffff_ffff] {
            assert_eq!(marked(foreign), None, "{foreign:x}");
        }
    }
}

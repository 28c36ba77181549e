//! One counter per way a packet leaves the program, and one per thing worth counting on the way.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// The position in the enum is the index in the map; the name is the one in the metrics.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            pub const ALL: &'static [Counter] = &[$(Counter::$variant),+];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Counter::$variant => $name,)+
                }
            }

            /// One sentence for the documentation and the metrics' help text.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Counter::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }
        }
    };
}

pub(crate) use counters;

counters! {
    /// Sent to a server with the destination MAC rewritten.
    ForwardDsr = "forward_dsr",
    /// Sent to a server with both addresses rewritten.
    ForwardNatRequest = "forward_nat_request",
    /// A server's answer sent to the client with both addresses restored.
    ForwardNatReply = "forward_nat_reply",
    /// Answered with a TCP RST: the service has no usable server.
    ResetNoServer = "reset_no_server",
    /// Answered with a TCP RST: within a NAT connection that is not recorded.
    ResetNoFlow = "reset_no_flow",
    /// Passed to the kernel: not IPv4.
    PassNotIpv4 = "pass_not_ipv4",
    /// Passed to the kernel: the frame is for a group of machines.
    PassMulticast = "pass_multicast",
    /// Passed to the kernel: the frame ends within its headers.
    PassTruncated = "pass_truncated",
    /// Passed to the kernel: the IPv4 header has options.
    PassOptions = "pass_options",
    /// Passed to the kernel: a fragment.
    PassFragment = "pass_fragment",
    /// Passed to the kernel: neither TCP nor UDP.
    PassProtocol = "pass_protocol",
    /// Passed to the kernel: no service has this address, port and protocol.
    PassNoService = "pass_no_service",
    /// Passed to the kernel: to a NAT source address, but of no flow of ours.
    PassNoFlow = "pass_no_flow",
    /// Dropped: for a service, but its lengths contradict each other.
    DropMalformed = "drop_malformed",
    /// Dropped: the time to live would reach zero.
    DropTtl = "drop_ttl",
    /// Dropped: the service has no usable server.
    DropNoServer = "drop_no_server",
    /// Dropped: a TCP RST within a NAT connection that is not recorded.
    DropNoFlow = "drop_no_flow",
    /// Dropped: the interface to leave through is gone.
    DropDevice = "drop_device",
    /// Dropped: the MAC address of the server's next hop is not known.
    DropUnresolved = "drop_unresolved",
    /// Dropped: no free NAT source port within the bounded number of tries.
    DropNatPorts = "drop_nat_ports",
    /// Dropped: the flow table has no room for a flow that needs a record.
    DropFlowsFull = "drop_flows_full",
    /// Dropped: a slot or a service points nowhere; a fault of the daemon.
    DropTables = "drop_tables",
    /// Not a way out: a flow was recorded.
    FlowRecorded = "flow_recorded",
    /// Not a way out: no room for a record; the slot's base took the packet.
    FlowUnrecorded = "flow_unrecorded",
}

/// Places in the map: a power of two, so that the bits of an index keep it within.
pub const COUNTS: usize = 32;

/// The value of the one-entry per-CPU map.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Counts(pub [u64; COUNTS]);

/// Per server and per CPU, client to server direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TrafficCounts {
    pub packets: u64,
    /// IP total length.
    pub bytes: u64,
    /// TCP SYNs; UDP flows where they are recorded.
    pub connections: u64,
}

const _: () = assert!(Counter::ALL.len() <= COUNTS && COUNTS.is_power_of_two());
const _: () = assert!(size_of::<TrafficCounts>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_name_are_unique() {
        for (index, &counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(counter as usize, index);
            assert!(Counter::ALL[..index].iter().all(|other| other.name() != counter.name()));
            assert!(counter.help().ends_with('.'), "{}", counter.name());
        }
    }

    #[test]
    fn the_documentation_lists_every_counter() {
        let page = include_str!("../../docs/counters.md");
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Counter::ALL.len(), "docs/counters.md");
        for counter in Counter::ALL {
            let row = page.lines().find_map(|line| line.strip_prefix("| `")?.strip_prefix(counter.name()));
            let help = row.and_then(|row| row.strip_prefix("` | ")?.strip_suffix(" |"));
            assert_eq!(help, Some(counter.help()), "{}", counter.name());
        }
    }
}

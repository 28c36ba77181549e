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
    /// Sent to a server in another IP header.
    ForwardIpip = "forward_ipip",
    /// Sent to a server in another IP header and UDP.
    ForwardGue = "forward_gue",
    /// Sent to a server with both addresses rewritten.
    ForwardNatRequest = "forward_nat_request",
    /// A server's answer sent to the client with both addresses restored.
    ForwardNatReply = "forward_nat_reply",
    /// Sent to a server with the destination address rewritten.
    ForwardGatewayRequest = "forward_gateway_request",
    /// A server's answer sent to the client with the source address restored.
    ForwardGatewayReply = "forward_gateway_reply",
    /// An ICMP error about a flow sent to that flow's server.
    ForwardIcmp = "forward_icmp",
    /// An ICMP error from a server's side sent to the client of that flow.
    ForwardIcmpReply = "forward_icmp_reply",
    /// Answered: an echo request to the address of a service.
    AnswerEcho = "answer_echo",
    /// Answered with a TCP RST: the service has no usable server.
    ResetNoServer = "reset_no_server",
    /// Answered with a TCP RST: within a NAT connection that is not recorded.
    ResetNoFlow = "reset_no_flow",
    /// Answered with an ICMP error: the service has no usable server.
    AnswerNoServer = "answer_no_server",
    /// Answered with an ICMP error: too long for the way to the server.
    AnswerTooBig = "answer_too_big",
    /// Answered with an ICMP error: the time to live would reach zero.
    AnswerTtl = "answer_ttl",
    /// Passed to the kernel: neither IPv4 nor IPv6.
    PassNotIp = "pass_not_ip",
    /// Passed to the kernel: the frame is for a group of machines.
    PassMulticast = "pass_multicast",
    /// Passed to the kernel: the frame ends within its headers.
    PassTruncated = "pass_truncated",
    /// Passed to the kernel: IPv6 extension headers that are not known, or too many.
    PassExtensions = "pass_extensions",
    /// Passed to the kernel: a fragment of nothing that is known.
    PassFragment = "pass_fragment",
    /// Passed to the kernel: an ICMP message that concerns no service.
    PassIcmp = "pass_icmp",
    /// Passed to the kernel: neither TCP nor UDP nor ICMP.
    PassProtocol = "pass_protocol",
    /// Passed to the kernel: no service has this address, port and protocol.
    PassNoService = "pass_no_service",
    /// Passed to the kernel: to a NAT source or from a server behind the gateway, but of no flow of ours.
    PassNoFlow = "pass_no_flow",
    /// Passed to the kernel: no daemon has been alive for longer than the watchdog allows.
    PassWatchdog = "pass_watchdog",
    /// Dropped: for a service, but its lengths contradict each other.
    DropMalformed = "drop_malformed",
    /// Dropped: the time to live would reach zero.
    DropTtl = "drop_ttl",
    /// Dropped: the client may not use the service.
    DropAccess = "drop_access",
    /// Dropped: the service has no usable server.
    DropNoServer = "drop_no_server",
    /// Dropped: within a NAT connection that is not recorded, or of a flow whose record is being moved to another table.
    DropNoFlow = "drop_no_flow",
    /// Dropped: a fragment for a service before the first of its datagram, or after its time.
    DropFragment = "drop_fragment",
    /// Dropped: too long for the way to the server.
    DropTooBig = "drop_too_big",
    /// Dropped: the interface to leave through is gone.
    DropDevice = "drop_device",
    /// Dropped: the MAC address of the server's next hop is not known.
    DropUnresolved = "drop_unresolved",
    /// Dropped: no free NAT source port within the bounded number of tries.
    DropNatPorts = "drop_nat_ports",
    /// Dropped: the flow table has no room for a flow that needs a record.
    DropFlowsFull = "drop_flows_full",
    /// Dropped: the driver leaves no room in front of the packet for another header.
    DropHeadroom = "drop_headroom",
    /// Dropped: a slot or a service points nowhere; a fault of the daemon.
    DropTables = "drop_tables",
    /// Not a way out: a flow was recorded.
    FlowRecorded = "flow_recorded",
    /// Not a way out: no room for a record; the slot's base took the packet.
    FlowUnrecorded = "flow_unrecorded",
    /// Not a way out: the MSS of a SYN was lowered.
    MssClamped = "mss_clamped",
}

/// Places in the map: a power of two, so that the bits of an index keep it within.
pub const COUNTS: usize = 64;

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

//! What the program that opens encapsulated packets on a server shares with the command that runs it.

use crate::counter::counters;

/// Virtual addresses of each family.
pub const VIPS_MAX: u32 = 64;

counters! {
    /// Opened: the packet within an IP in IP packet went to this server's own stack.
    OpenIpip = "open_ipip",
    /// Opened: the packet within a GUE packet went to this server's own stack.
    OpenGue = "open_gue",
    /// Passed untouched: neither IP in IP nor GUE.
    PassOther = "pass_other",
    /// Passed untouched: the frame is for a group of machines.
    PassMulticast = "pass_multicast",
    /// Passed untouched: the frame ends within the headers that would have to be read.
    PassTruncated = "pass_truncated",
    /// Passed untouched: the outer header has IPv4 options or IPv6 extension headers.
    PassOptions = "pass_options",
    /// Passed untouched: a fragment, IP in IP or of UDP.
    PassFragment = "pass_fragment",
    /// Passed untouched: GUE of a kind that is not opened (a control message, flags, an unknown version), or no IP inside.
    PassKind = "pass_kind",
    /// Passed untouched: what is inside is for no listed address.
    PassNoVip = "pass_no_vip",
    /// Dropped: for a listed address, but its lengths contradict each other or the outer checksum is wrong.
    DropMalformed = "drop_malformed",
    /// Dropped: the driver does not let the program move the start of the packet.
    DropRefused = "drop_refused",
}

/// Places in the map: a power of two, so that the bits of an index keep it within.
pub const COUNTS: usize = 16;

/// The value of the one-entry per-CPU map.
pub type Counts = [u64; COUNTS];

const _: () = assert!(Counter::ALL.len() <= COUNTS && COUNTS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_counter() {
        let page = include_str!("../../docs/decap.md");
        let mut rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        for counter in Counter::ALL {
            let row = rows.next().and_then(|row| row.strip_prefix(counter.name()));
            let help = row.and_then(|row| row.strip_prefix("` | ")?.strip_suffix(" |"));
            assert_eq!(help, Some(counter.help()), "{}", counter.name());
        }
        assert_eq!(rows.next(), None, "docs/decap.md");
    }
}

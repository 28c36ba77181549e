//! Capacities, and the relations between them.

/// Services in the daemon's configuration.
pub const SERVICES_MAX: u32 = 4_096;
/// Buckets of each open-addressed service table: a power of two, one bucket per address, port and protocol, and one
/// per address.
pub const SERVICE_BUCKETS: u32 = 65_536;
/// Exact keys that may be configured. With a key for each of their addresses, and of wildcard services', less than a quarter
/// of the buckets is used, so that a probe for an absent key stops at once.
pub const SERVICE_KEYS_MAX: u32 = 4_096;
/// Buckets looked at before a key counts as absent.
pub const PROBES_MAX: u32 = 16;

/// Networks, and addresses with more than one port, that services hold beside their exact keys.
pub const WILDCARD_NETWORKS_MAX: u32 = 4_096;
/// Rules (network, protocol and range of ports) that may apply to one address: the program compares a packet
/// with each in turn.
pub const WILDCARD_RULES_MAX: usize = 16;
/// Client networks in `allow` and `deny` of all services together.
pub const ACCESS_NETWORKS_MAX: u32 = 65_536;

/// Server entries; id 0 means "no server".
pub const SERVERS_MAX: u32 = 32_768;

/// Ring sizes: powers of two.
pub const SLOTS_MIN: u32 = 256;
pub const SLOTS_DEFAULT: u32 = 16_384;
pub const SLOTS_MAX: u32 = 1 << 20;
/// Slots of all rings together when the map is made for few services: 8 MiB.
pub const RING_SLOTS_MIN: u32 = 1 << 20;
/// And the most it is ever made for: 256 MiB.
pub const RING_SLOTS_MAX: u32 = 1 << 25;

/// Flow records, both directions of a NAT flow counted.
pub const FLOWS_MIN: u32 = 1_024;
pub const FLOWS_DEFAULT: u32 = 262_144;
pub const FLOWS_MAX: u32 = 1 << 24;

/// Source addresses for `nat`.
pub const NAT_SOURCES_MAX: usize = 64;
/// Ports for `nat` sources: disjoint from the host's ephemeral ports.
pub const NAT_PORT_FIRST: u16 = 1_024;
pub const NAT_PORT_LAST: u16 = 32_767;
/// Ports tried before a new NAT flow is refused.
pub const NAT_PORT_TRIES: u32 = 16;

/// Datagrams whose fragments are under way; the least recently seen gives way.
pub const FRAGMENTS_MAX: u32 = 8_192;
/// Answers that nobody asked for (ICMP errors), per second and CPU.
pub const ANSWERS_PER_SECOND: u32 = 1_000;
/// Servers whose connections `leastconn` compares.
pub const LEASTCONN_CHOICES: u32 = 8;

/// Interfaces that packets may leave through.
pub const DEVICES_MAX: u32 = 256;

const _: () = assert!(SERVICE_BUCKETS.is_power_of_two());
const _: () = assert!(SERVICE_KEYS_MAX >= SERVICES_MAX);
const _: () = assert!(2 * SERVICE_KEYS_MAX + WILDCARD_NETWORKS_MAX <= SERVICE_BUCKETS / 4);
const _: () = assert!(PROBES_MAX < SERVICE_BUCKETS);
const _: () = assert!(SERVERS_MAX < 1 << 24, "a slot holds server ids of 24 bits");
const _: () = assert!(SLOTS_MIN.is_power_of_two() && SLOTS_DEFAULT.is_power_of_two());
const _: () = assert!(SLOTS_MAX.is_power_of_two() && SLOTS_MAX <= RING_SLOTS_MIN);
const _: () = assert!(FLOWS_DEFAULT >= FLOWS_MIN && FLOWS_DEFAULT <= FLOWS_MAX);
const _: () = assert!(NAT_PORT_FIRST <= NAT_PORT_LAST && NAT_PORT_FIRST >= 1_024);

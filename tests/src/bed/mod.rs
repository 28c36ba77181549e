//! The test bed: a client, a balancer and servers in network namespaces, with real links and real sockets.
//!
//! ```text
//!     client ──┐                    one arm: everybody on one bridge
//!              ├─ front ─ balancer
//!     router ──┘             │      two arms: servers on a bridge of their own; their own answers go
//!        └────── back ───────┤      through the router, with `gateway` through the balancer
//!                            └─ servers
//! ```
//!
//! Every link has both families; the layout says which of them clients and servers use.
//!
//! A [`Pair`] stands where two or more nodes share addresses: all on one bridge, and beside `steelyard` those that
//! it must get along with, Keepalived and FRR.
//!
//! Owns namespaces, links, addresses, peer processes, and the processes of nodes. Must not know what a
//! scenario expects of them.

pub mod client;
pub mod config;
pub mod datagrams;
pub mod decap;
mod exec;
pub mod frr;
mod icmp;
pub mod interrupt;
pub mod janitor;
pub mod keepalived;
pub mod layout;
pub mod namespace;
pub mod observer;
mod offload;
pub mod opener;
pub mod pair;
pub mod peer;
pub mod server;
mod sockopt;
pub mod steelyard;
pub mod stream;
mod switch;
pub mod tcpdump;
pub mod topology;
pub mod vrrp;
pub mod wait;
pub mod xdp;

pub use config::{Check, Config, Member, Ports, Service};
pub use layout::{Arms, Family, Forward, Layout};
pub use namespace::Namespace;
pub use pair::Pair;
pub use server::Server;
pub use steelyard::Steelyard;
pub use topology::{Bed, Host};
pub use wait::{pause, poll};

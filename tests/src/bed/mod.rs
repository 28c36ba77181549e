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
//! Owns namespaces, links, addresses, peer processes and the `steelyard` process. Must not know what a
//! scenario expects of them.

pub mod client;
pub mod config;
pub mod datagrams;
pub mod decap;
mod exec;
mod icmp;
pub mod interrupt;
pub mod janitor;
pub mod layout;
pub mod namespace;
mod offload;
pub mod opener;
pub mod peer;
pub mod server;
mod sockopt;
pub mod steelyard;
pub mod stream;
mod switch;
pub mod topology;
pub mod wait;
pub mod xdp;

pub use config::{Check, Config, Member, Ports, Service};
pub use layout::{Arms, Family, Forward, Layout};
pub use namespace::Namespace;
pub use server::Server;
pub use steelyard::Steelyard;
pub use topology::{Bed, Host};
pub use wait::poll;

//! The test bed: a client, a balancer and servers in network namespaces, with real links and real sockets.
//!
//! ```text
//!     client ──┐                    one arm: everybody on one bridge
//!              ├─ front ─ balancer
//!     router ──┘             │      two arms: servers on a bridge of their own; with `dsr` their
//!        └────── back ───────┤      answers go through the router, not through the balancer
//!                            └─ servers
//! ```
//!
//! Owns namespaces, links, addresses, peer processes and the `steelyard` process. Must not know what a
//! scenario expects of them.

pub mod client;
pub mod config;
pub mod decap;
mod exec;
mod icmp;
pub mod janitor;
pub mod namespace;
mod offload;
pub mod peer;
pub mod server;
pub mod steelyard;
pub mod stream;
pub mod topology;
pub mod wait;
pub mod xdp;

pub use config::{Check, Config, Member, Service};
pub use namespace::Namespace;
pub use server::Server;
pub use steelyard::Steelyard;
pub use topology::{Arms, Bed, Host, Layout};
pub use wait::poll;

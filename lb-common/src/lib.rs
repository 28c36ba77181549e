//! What the kernel program and the daemon share: map records and keys, capacities, counters, the flow hash.
//!
//! Must not know packets, sockets, configuration or health: only the words both sides read.
//!
//! ```text
//! daemon ── one aligned store a word ──► services ─► ring ─► servers      (mapped arrays)
//! kernel ── inserts, stamps ───────────► flows                            (hash map)
//! kernel ── adds ──────────────────────► counters, server traffic         (per CPU)
//! ```
#![no_std]

pub mod counter;
pub mod entry;
pub mod flow;
pub mod hash;
pub mod limits;
pub mod net;
pub mod slot;
#[cfg(feature = "user")]
mod user;
pub mod word;

/// Directory below the pin directory: changes whenever the layout of a map does.
pub const LAYOUT: &str = "v1";

//! What the kernel program and the daemon share: map records and keys, capacities, counters, the flow hash.
//!
//! Must not know packets, sockets, configuration or health: only the words both sides read.
//!
//! ```text
//! daemon ── one aligned store a word ──► services ─► ring ─► servers      (mapped arrays)
//! kernel ── inserts, stamps ───────────► flows                            (mapped arrays, no locks)
//! kernel ── adds ──────────────────────► counters, server traffic         (per CPU)
//! ```
#![no_std]
// Rust offers no compare-and-swap for BPF but these; the BPF half is compiled with unstable features anyway.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics), expect(internal_features))]

pub mod counter;
pub mod decap;
pub mod entry;
pub mod flow;
pub mod flow_table;
pub mod fragment;
pub mod hash;
pub mod limits;
pub mod net;
pub mod slot;
pub mod stage;
pub mod through;
#[cfg(feature = "user")]
mod user;
pub mod word;

/// Directory below the pin directory: changes whenever the layout of a map does.
pub const LAYOUT: &str = "v3";

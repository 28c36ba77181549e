//! The packet path: one pure function over a packet and some tables, compiled for the host and for BPF.
//!
//! ```text
//! Packet ─► parse ─► decide ─► rewrite ─► Outcome         forward: the order of the steps
//!             │        │          │
//!           frame   Tables     checksum
//! ```
//!
//! Must not know maps, helpers or the daemon: the kernel half (`bin`) and the tests bring `Packet` and
//! `Tables`.
#![no_std]

pub mod checksum;
pub mod decap;
mod decide;
pub mod forward;
pub mod frame;
pub mod header;
mod nat;
mod parse;
mod reset;
mod rewrite;
pub mod tables;

pub use forward::{Action, Outcome, forward};
pub use tables::{Packet, Tables};

//! The packet path: one pure function over a packet and some tables, compiled for the host and for BPF.
//!
//! ```text
//! Packet ─► parse ─► decide ─► direct | nat | icmp | answer ─► Outcome       forward: the order of the stages
//!             │        │          │
//!         frame, ip  Tables   link, rewrite, checksum
//! ```
//!
//! Must not know maps, helpers or the daemon: the kernel half (`bin`) and the tests bring `Packet` and
//! `Tables`.
#![no_std]
// Inline assembly for BPF; its half is compiled with unstable features anyway.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod answer;
pub mod checksum;
mod clamp;
pub mod decap;
mod decide;
mod direct;
pub mod forward;
mod fragment;
pub mod frame;
pub mod header;
mod icmp;
mod ip;
mod link;
mod nat;
mod parse;
mod rewrite;
pub mod tables;
pub mod through;

pub use forward::{Action, Held, Outcome, entry, forward, run};
pub use tables::{FamilyTables, Packet, Tables};

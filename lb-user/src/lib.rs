//! The daemon and its command line.
//!
//! Imports point one way: `pure` knows nobody, `io` knows `pure`, `daemon` knows both, `cli` is the door.

pub mod cli;
pub mod daemon;
pub mod io;
pub mod pure;

//! The daemon and its command line.
//!
//! Imports point one way: `pure` knows nobody, `io` knows `pure`, `daemon` knows both, `cli` is the door.

pub mod io;
pub mod pure;

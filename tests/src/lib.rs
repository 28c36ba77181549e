//! What the tests stand on: `bed`, the network of namespaces that scenarios and the demo run in,
//! `bench`, the measurements, `cases`, the packets that the host and the kernel must treat alike, `decap`, those of
//! the program that runs on a server, and `through`, those of checks.

pub mod bed;
pub mod bench;
pub mod cases;
pub mod decap;
pub mod soak;
pub mod through;

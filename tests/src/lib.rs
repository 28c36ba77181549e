//! What the tests stand on: `bed`, the network of namespaces that scenarios and the demo run in,
//! `bench`, the measurements, and `cases`, the packets that the host and the kernel must treat alike.

pub mod bed;
pub mod bench;
pub mod cases;

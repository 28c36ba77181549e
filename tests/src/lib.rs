//! What the tests stand on: `bed`, the network of namespaces that scenarios and the demo run in.

pub mod bed;

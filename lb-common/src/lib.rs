//! What the kernel program and the daemon share: records, keys, limits, counters, the flow hash.
#![no_std]

pub mod limits;

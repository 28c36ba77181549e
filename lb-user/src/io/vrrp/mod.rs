//! What the thread of the virtual routers does in the kernel: sockets of adverts, frames of ARP and neighbour discovery.

mod filter;
pub mod frames;
pub mod socket;
#[cfg(test)]
mod testing;

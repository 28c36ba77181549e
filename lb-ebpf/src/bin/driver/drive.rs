//! The floor every measurement is net of.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

#[xdp]
fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

//! A packet at the XDP hook, which can lose its start.
#![expect(unsafe_code, reason = "reads the context's pointers and moves the head of a packet")]

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_ebpf::{decap::DecapPacket, frame::Frame};

pub(crate) struct XdpPacket<'a> {
    context: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        XdpPacket { context }
    }
}

impl DecapPacket for XdpPacket<'_> {
    #[inline(always)]
    fn frame(&mut self) -> Frame<'_> {
        // SAFETY: the kernel gives the bounds of one packet that only this program run touches; they are
        // read anew for every frame, and `&mut self` keeps two frames from existing at once. The kernel
        // aligns the start of a frame to at least 2, and what is taken from it is even.
        unsafe { Frame::new(self.context.data(), self.context.data_end()) }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the kernel's own; the helper only reads it.
        unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) as u32 }
    }

    #[inline(always)]
    fn strip(&mut self, bytes: u32) -> Option<()> {
        // SAFETY: no frame is borrowed here; the kernel checks the new start.
        let result = unsafe { bpf_xdp_adjust_head(self.context.as_ptr().cast(), bytes as i32) };
        (result == 0).then_some(())
    }
}

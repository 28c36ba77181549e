//! A packet at the XDP hook.
#![expect(unsafe_code, reason = "reads the context's pointers")]

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_ebpf::{Packet, frame::Frame};

pub(crate) struct XdpPacket<'a> {
    context: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        XdpPacket { context }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn frame(&mut self) -> Frame<'_> {
        // SAFETY: the kernel gives the bounds of one packet that only this program run touches; they are
        // read anew for every frame, and `&mut self` keeps two frames from existing at once. The kernel
        // aligns the start of a frame to at least 2.
        unsafe { Frame::new(self.context.data(), self.context.data_end()) }
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // SAFETY: the context is the kernel's own.
        unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) as u32 }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.context.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn grow(&mut self, bytes: i32) -> Option<()> {
        // SAFETY: no frame is borrowed here; the kernel checks the new start.
        let result = unsafe { bpf_xdp_adjust_head(self.context.as_ptr().cast(), -bytes) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn truncate(&mut self, length: u32) -> Option<()> {
        let excess = self.length() as i32 - length as i32;
        if excess < 0 {
            return None;
        }
        // SAFETY: no frame is borrowed here; the kernel checks the new length.
        let result = unsafe { bpf_xdp_adjust_tail(self.context.as_ptr().cast(), -excess) };
        (result == 0).then_some(())
    }
}

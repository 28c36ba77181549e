//! A packet at the kernel's traffic hooks.
#![expect(unsafe_code, reason = "reads the context's pointers")]

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    programs::TcContext,
};
use lb_ebpf::{
    checksum::Sum,
    frame::{Frame, Header},
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ipv4, Ipv6, Udp},
    through::{Bytes, Covered, Field, SocketBuffer, Version},
};

pub(crate) struct TcPacket<'a> {
    context: &'a TcContext,
}

impl<'a> TcPacket<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext) -> Self {
        TcPacket { context }
    }
}

impl SocketBuffer for TcPacket<'_> {
    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the context is the kernel's own and lives as long as the program runs.
        unsafe { (*self.context.skb.skb).mark }
    }

    #[inline(always)]
    fn set_mark(&mut self, mark: u32) {
        self.context.set_mark(mark);
    }

    #[inline(always)]
    fn frame(&mut self) -> Frame<'_> {
        // SAFETY: the kernel gives the bounds of the packet's first piece; they are read anew for every frame, and
        // `&mut self` keeps two frames from existing at once. Others only read it while the program runs, and so does
        // `through`. The kernel aligns the IP header, and so the start of the frame, to at least 2.
        unsafe { Frame::new(self.context.data(), self.context.data_end()) }
    }

    #[inline(always)]
    fn pull(&mut self, bytes: u32) {
        // What cannot be had is missed where it is read.
        let _ = self.context.pull_data(bytes.min(self.context.len()));
    }

    #[inline(always)]
    fn store<T: Header>(&mut self, offset: usize, header: T, bytes: Bytes) -> Option<()> {
        let flags = match bytes {
            Bytes::Summed => BPF_F_RECOMPUTE_CSUM as u64,
            Bytes::Unsummed => 0,
        };
        self.context.store(offset, &header, flags).ok()
    }

    #[inline(always)]
    fn amend(&mut self, field: Field, change: Sum, of: Covered) -> Option<()> {
        let flags = match of {
            Covered::Ends => BPF_F_PSEUDO_HDR as u64,
            Covered::Payload => 0,
        };
        let flags = if field.optional { flags | BPF_F_MARK_MANGLED_0 as u64 } else { flags };
        self.context.l4_csum_replace(field.offset, 0, change.word() as u64, flags).ok()
    }

    #[inline(always)]
    fn convert(&mut self, to: Version) -> Option<()> {
        let ethertype = match to {
            Version::V4 => ETHERTYPE_IPV4,
            Version::V6 => ETHERTYPE_IPV6,
        };
        self.context.change_proto(ethertype.0, 0).ok()
    }

    #[inline(always)]
    fn wrap(&mut self, outer: Version, udp: bool) -> Option<()> {
        let (length, flags) = match outer {
            Version::V4 => (size_of::<Ipv4>(), BPF_F_ADJ_ROOM_ENCAP_L3_IPV4),
            Version::V6 => (size_of::<Ipv6>(), BPF_F_ADJ_ROOM_ENCAP_L3_IPV6),
        };
        let (length, flags) = match udp {
            true => (length + size_of::<Udp>(), flags | BPF_F_ADJ_ROOM_ENCAP_L4_UDP),
            false => (length, flags),
        };
        self.context.adjust_room(length as i32, BPF_ADJ_ROOM_MAC, flags as u64).ok()
    }
}

//! The only place with pointers: bounds-checked views of a packet's bytes.
#![expect(unsafe_code, reason = "turns checked offsets into references")]

use core::marker::PhantomData;

/// The bytes of a packet, borrowed mutably: a reference taken from a frame cannot outlive a move of the
/// packet's head or tail.
pub struct Frame<'a> {
    start: usize,
    end: usize,
    packet: PhantomData<&'a mut [u8]>,
}

/// The low bits of an offset that comes from memory. In BPF the compiler does not learn that it is small: it would
/// leave out checks that follow from others by arithmetic, and the verifier does not follow that.
#[inline(always)]
pub(crate) fn confine<const MASK: u32>(offset: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut offset = offset;
        // SAFETY: one instruction on one register.
        unsafe { core::arch::asm!("{0} &= {1}", inout(reg) offset, const MASK, options(nomem, nostack)) };
        offset
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        offset & MASK as usize
    }
}

/// Header types that a frame may hand out.
///
/// # Safety
///
/// Every bit pattern is a value, there is no padding, and the alignment is at most 2, which every frame has.
pub unsafe trait Header: Copy {}

impl<'a> Frame<'a> {
    /// # Safety
    ///
    /// `start..end` are the readable and writable bytes of one packet, borrowed by nobody else for `'a`,
    /// and `start` is a multiple of 2.
    #[inline(always)]
    pub unsafe fn new(start: usize, end: usize) -> Self {
        Frame { start, end, packet: PhantomData }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        (self.end - self.start) as u32
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The header at `offset`, unless the frame ends before it does.
    #[inline(always)]
    pub fn at<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        const { assert!(align_of::<T>() <= 2) };
        if self.start + offset + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes lie within the frame (checked above), are borrowed through `&mut self`, and
        // are aligned: `start` and all offsets in use are even and `T` needs at most 2. `Header` says that
        // any bytes are a value.
        Some(unsafe { &mut *((self.start + offset) as *mut T) })
    }
}

//! Map memory shared with the kernel: an mmapable array as a slice.
#![expect(unsafe_code, reason = "maps kernel memory")]

use std::{io, num::NonZeroUsize, ops::Deref, os::fd::AsFd, ptr::NonNull};

use lb_common::{
    entry::{Globals, ServerEntry, ServiceEntry, SlotEntry},
    flow::{Flow, Half},
    flow_table::Tags,
    net::Family,
    word::Word,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Values that consist of `lb_common::word::Word`s only, so that a shared reference to memory the kernel
/// reads and writes is sound.
///
/// # Safety
///
/// `repr(C)` or `repr(transparent)`, nothing but words, and the size the kernel half gives the map's values.
pub(super) unsafe trait Words: Sync {}

// SAFETY: words only; the kernel half declares the map with this very type.
unsafe impl Words for Globals {}
// SAFETY: as above.
unsafe impl<F: Family> Words for ServiceEntry<F> where ServiceEntry<F>: Sync {}
// SAFETY: as above.
unsafe impl Words for ServerEntry {}
// SAFETY: as above.
unsafe impl Words for SlotEntry {}
// SAFETY: as above.
unsafe impl<F: Family> Words for Flow<F> where Flow<F>: Sync {}
// SAFETY: as above.
unsafe impl<F: Family> Words for Half<F> where Half<F>: Sync {}
// SAFETY: as above.
unsafe impl Words for Tags {}
// SAFETY: as above.
unsafe impl Words for Word {}

/// All values of one array map. Stores reach the kernel at once.
pub(super) struct Mapped<T: Words> {
    start: NonNull<T>,
    len: usize,
}

impl<T: Words> Mapped<T> {
    /// `fd`: a `BPF_F_MMAPABLE` array of `len` values of type `T`, as the caller has checked.
    pub(super) fn new(fd: impl AsFd, len: u32) -> io::Result<Self> {
        let len = len as usize;
        let bytes = NonZeroUsize::new(len * size_of::<T>()).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses; nothing else is affected.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Mapped { start: start.cast(), len })
    }
}

impl<T: Words> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, page aligned, until drop; `Words` allows the kernel to
        // change them meanwhile, and every bit pattern is a value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Words> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; no reference outlives `self`.
        let result = unsafe { munmap(self.start.cast(), self.len * size_of::<T>()) };
        debug_assert!(result.is_ok(), "munmap of our own mapping: {result:?}");
    }
}

// SAFETY: the memory belongs to no thread, and its values are `Sync`.
unsafe impl<T: Words> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Words> Sync for Mapped<T> {}

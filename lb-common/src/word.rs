//! A 64-bit word that several CPUs read and write: each load and store whole. Loads and stores have no order
//! among them beyond the machine's own; the three read-and-write operations are full barriers.
#![cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "BPF has no atomic loads and stores"))]

#[cfg(target_arch = "bpf")]
use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_xchg};
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// On the host a relaxed atomic; in BPF one volatile load or store, since LLVM knows no relaxed atomics
/// there before CPU level 4.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Word(Inner);

#[cfg(not(target_arch = "bpf"))]
type Inner = core::sync::atomic::AtomicU64;
#[cfg(target_arch = "bpf")]
type Inner = core::cell::UnsafeCell<u64>;

impl Word {
    #[inline(always)]
    pub const fn new(value: u64) -> Self {
        Word(Inner::new(value))
    }

    #[cfg(not(target_arch = "bpf"))]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[cfg(not(target_arch = "bpf"))]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Whether the word was `old` and is now `new`.
    #[cfg(not(target_arch = "bpf"))]
    pub fn compare_exchange(&self, old: u64, new: u64) -> bool {
        self.0.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }

    #[cfg(not(target_arch = "bpf"))]
    pub fn swap(&self, value: u64) -> u64 {
        self.0.swap(value, SeqCst)
    }

    /// Clears the bits that `mask` lacks.
    #[cfg(not(target_arch = "bpf"))]
    pub fn and(&self, mask: u64) -> u64 {
        self.0.fetch_and(mask, SeqCst)
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn compare_exchange(&self, old: u64, new: u64) -> bool {
        // SAFETY: the cell is 8 aligned bytes; one instruction.
        unsafe { atomic_cxchg::<u64, SEQ_CST, SEQ_CST>(self.0.get(), old, new).1 }
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn swap(&self, value: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic_xchg::<u64, SEQ_CST>(self.0.get(), value) }
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn and(&self, mask: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic_and::<u64, u64, SEQ_CST>(self.0.get(), mask) }
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the cell is 8 aligned bytes; the load is one instruction, whatever other CPUs store.
        unsafe { self.0.get().read_volatile() }
    }

    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: the cell is 8 aligned bytes; the store is one instruction, whatever other CPUs load.
        unsafe { self.0.get().write_volatile(value) }
    }
}

// SAFETY: loads and stores of one aligned word are whole on every CPU that runs BPF.
#[cfg(target_arch = "bpf")]
unsafe impl Sync for Word {}

const _: () = assert!(size_of::<Word>() == 8 && align_of::<Word>() == 8);

#[cfg(target_arch = "bpf")]
const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;

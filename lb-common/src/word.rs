//! A 64-bit word that several CPUs read and write: each load and store whole, no order among them.
#![cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "BPF has no atomic loads and stores"))]

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
        self.0.load(core::sync::atomic::Ordering::Relaxed)
    }

    #[cfg(not(target_arch = "bpf"))]
    pub fn set(&self, value: u64) {
        self.0.store(value, core::sync::atomic::Ordering::Relaxed);
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

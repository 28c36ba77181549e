//! A 64-bit word that several CPUs read and write: each load and store whole. Loads and stores have no order
//! among them beyond the machine's own; the three read-and-write operations are full barriers.
#![cfg_attr(target_arch = "bpf", expect(unsafe_code, reason = "BPF has no atomic loads and stores"))]

#[cfg(target_arch = "bpf")]
use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_xadd, atomic_xchg};
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

    /// Adds, wrapping, and returns what was there before.
    #[cfg(not(target_arch = "bpf"))]
    pub fn add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, SeqCst)
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
    pub fn add(&self, value: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u64, u64, SEQ_CST>(self.0.get(), value) }
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

/// A value of several words, and the same in shared memory: each word is whole, the value is not.
pub trait Words: Copy + Eq + Ord + core::hash::Hash + core::fmt::Debug {
    type Shared: SharedWords<Value = Self>;
    const ZERO: Self;

    /// Takes every word into a hash.
    fn mix(self, hash: u64) -> u64;
}

pub trait SharedWords: core::fmt::Debug {
    type Value;
    const ZERO: Self;

    fn load(&self) -> Self::Value;
    fn store(&self, value: Self::Value);
    fn is(&self, value: Self::Value) -> bool;
    /// Zero when the words are those of the value. Without a branch for each word, which the verifier would follow.
    fn differs(&self, value: Self::Value) -> u64;
}

impl<const N: usize> Words for [u64; N] {
    type Shared = [Word; N];
    const ZERO: Self = [0; N];

    #[inline(always)]
    fn mix(self, hash: u64) -> u64 {
        let mut x = hash;
        for word in self {
            x = (x ^ word).wrapping_mul(crate::hash::MIX_1);
            x ^= x >> 32;
        }
        x
    }
}

impl<const N: usize> SharedWords for [Word; N] {
    type Value = [u64; N];
    const ZERO: Self = [const { Word::new(0) }; N];

    #[inline(always)]
    fn load(&self) -> [u64; N] {
        let mut value = [0; N];
        for (to, from) in value.iter_mut().zip(self) {
            *to = from.get();
        }
        value
    }

    #[inline(always)]
    fn store(&self, value: [u64; N]) {
        for (to, from) in self.iter().zip(value) {
            to.set(from);
        }
    }

    #[inline(always)]
    fn is(&self, value: [u64; N]) -> bool {
        self.differs(value) == 0
    }

    #[inline(always)]
    fn differs(&self, value: [u64; N]) -> u64 {
        self.iter().zip(value).fold(0, |bits, (mine, other)| bits | (mine.get() ^ other))
    }
}

// SAFETY: loads and stores of one aligned word are whole on every CPU that runs BPF.
#[cfg(target_arch = "bpf")]
unsafe impl Sync for Word {}

const _: () = assert!(size_of::<Word>() == 8 && align_of::<Word>() == 8);

#[cfg(target_arch = "bpf")]
const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;

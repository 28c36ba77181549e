//! Chance that comes again with the same seed.

use std::time::Duration;

pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        // Zero would stay zero.
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `sides`, which is not 0.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        // Marsaglia's xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }

    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = self.roll(of.len().max(1) as u64);
        of.get(index as usize).copied()
    }

    /// Between two acts: mostly long enough for an election, now and then not.
    pub(super) fn pause(&mut self) -> Duration {
        let ms = match self.roll(4) {
            0 => self.roll(100),
            _ => 300 + self.roll(2_500),
        };
        Duration::from_millis(ms)
    }
}

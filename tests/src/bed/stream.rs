//! A stream of bytes that both ends can compute, and its 64-bit digest.
//!
//! Against damage and loss on the way, not against malice: works on words, so that 100 MB cost little even
//! without optimisation.

/// SplitMix64 over a counter, as little-endian words.
#[derive(Debug, Default)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// Fills whole words; `buffer` is a multiple of 8 bytes except at the end of a stream.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// FNV-1a's steps on words; independent of how the bytes are cut.
#[derive(Debug)]
pub struct Digest {
    state: u64,
    partial: [u8; 8],
    filled: usize,
    bytes: u64,
}

impl Default for Digest {
    fn default() -> Digest {
        Digest { state: 0xcbf2_9ce4_8422_2325, partial: [0; 8], filled: 0, bytes: 0 }
    }
}

impl Digest {
    pub fn update(&mut self, mut data: &[u8]) {
        self.bytes += data.len() as u64;
        if self.filled > 0 {
            let take = data.len().min(8 - self.filled);
            self.partial[self.filled..self.filled + take].copy_from_slice(&data[..take]);
            self.filled += take;
            data = &data[take..];
            if self.filled < 8 {
                return;
            }
            self.word(self.partial);
        }
        let (words, rest) = data.as_chunks::<8>();
        for word in words {
            self.word(*word);
        }
        self.partial[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    /// Of all bytes so far, their number included.
    pub fn value(&self) -> u64 {
        let mut rest = [0; 8];
        rest[..self.filled].copy_from_slice(&self.partial[..self.filled]);
        mix(mix(self.state, u64::from_le_bytes(rest)), self.bytes)
    }

    fn word(&mut self, word: [u8; 8]) {
        self.state = mix(self.state, u64::from_le_bytes(word));
    }
}

/// What the receiver of the first `bytes` of the stream must find.
pub fn digest_of(bytes: u64) -> u64 {
    let mut digest = Digest::default();
    for_each_block(bytes, |block| {
        digest.update(block);
        Ok::<(), std::convert::Infallible>(())
    })
    .unwrap_or_else(|never| match never {});
    digest.value()
}

/// The first `bytes` of the stream, a block at a time, until `take` fails.
pub fn for_each_block<E>(bytes: u64, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut stream = Stream::default();
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let size = left.min(BLOCK as u64) as usize;
        stream.fill(&mut block[..size]);
        take(&block[..size])?;
        left -= size as u64;
    }
    Ok(())
}

fn mix(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
}

pub const BLOCK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_does_not_depend_on_the_cuts() {
        let mut bytes = vec![0; 1_003];
        Stream::default().fill(&mut bytes);
        for cut in [1, 3, 7, 8, 9, 64, 1_003] {
            let mut digest = Digest::default();
            bytes.chunks(cut).for_each(|part| digest.update(part));
            assert_eq!(digest.value(), digest_of(1_003), "cut at {cut}");
        }
    }

    #[test]
    fn digest_sees_a_swap_a_flip_and_a_missing_byte() {
        let mut bytes = vec![0; 1_000];
        Stream::default().fill(&mut bytes);
        let of = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.update(bytes);
            digest.value()
        };
        let whole = of(&bytes);
        assert_ne!(of(&bytes[..999]), whole);
        bytes.swap(8, 16);
        assert_ne!(of(&bytes), whole);
        bytes.swap(8, 16);
        bytes[500] ^= 1;
        assert_ne!(of(&bytes), whole);
    }
}

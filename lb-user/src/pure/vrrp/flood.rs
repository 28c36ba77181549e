//! How much of what arrives on a socket is looked at.
//!
//! An advert is the same from one interval to the next, so more than a few copies of it tell nothing. Different ones
//! are all looked at, as far as the bound goes: whoever can forge a sender's address must not silence the sender.

use std::{
    collections::BTreeMap,
    hash::Hasher,
    net::IpAddr,
    time::{Duration, Instant},
};

use siphasher::sip::SipHasher13;

/// Of one socket.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    since: Option<Instant>,
    /// How often each came since then.
    copies: BTreeMap<u64, u8>,
}

impl Gate {
    pub fn admits(&mut self, now: Instant, source: IpAddr, bytes: &[u8]) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.copies.clear();
        }
        let packet = digest(source, bytes);
        if self.copies.len() >= DIFFERENT_MAX && !self.copies.contains_key(&packet) {
            return false;
        }
        let copies = self.copies.entry(packet).or_default();
        *copies = copies.saturating_add(1);
        *copies <= COPIES_MAX
    }
}

fn digest(source: IpAddr, bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    match source {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    hasher.write(bytes);
    hasher.finish()
}

/// The shortest interval between two adverts.
const WINDOW: Duration = Duration::from_millis(10);
/// One that is due, one that answers, and what the network repeats.
const COPIES_MAX: u8 = 4;
/// Every VRID of eight senders.
const DIFFERENT_MAX: usize = 2_048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::testing::an_instant;

    #[test]
    fn copies_beyond_a_few_wait_for_the_next_window() {
        let (mut gate, now) = (Gate::default(), an_instant());
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let admitted = |gate: &mut Gate, at, source, bytes: &[u8]| {
            (0..1_000).filter(|_| gate.admits(at, source, bytes)).count()
        };
        assert_eq!(admitted(&mut gate, now, one, b"advert"), 4);
        assert_eq!(admitted(&mut gate, now, one, b"another"), 4);
        assert_eq!(admitted(&mut gate, now, other, b"advert"), 4);
        assert_eq!(admitted(&mut gate, now + WINDOW - Duration::from_nanos(1), one, b"advert"), 0);
        assert_eq!(admitted(&mut gate, now + WINDOW, one, b"advert"), 4);
    }

    #[test]
    fn different_adverts_are_bounded() {
        let (mut gate, now) = (Gate::default(), an_instant());
        let source = IpAddr::from([10, 0, 0, 1]);
        let admitted = (0..10_000_u32).filter(|n| gate.admits(now, source, &n.to_be_bytes())).count();
        assert_eq!(admitted, DIFFERENT_MAX);
        assert!(gate.admits(now, source, &0_u32.to_be_bytes()), "a known one has its copies");
    }
}

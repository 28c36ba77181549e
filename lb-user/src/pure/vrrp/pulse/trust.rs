//! Which peers' silence is acted on: a take-over that adverts proved wrong is not repeated at once.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::pure::vrrp::node::RouterId;

#[derive(Debug, Default)]
pub struct Trust {
    /// Take-overs because a peer is silent: the last of each router.
    guesses: BTreeMap<RouterId, (IpAddr, Instant)>,
    /// By peer, so no more than these.
    doubts: BTreeMap<IpAddr, Doubt>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    until: Instant,
    length: Duration,
}

impl Trust {
    pub fn guessed(&mut self, now: Instant, id: RouterId, peer: IpAddr) {
        self.guesses.insert(id, (peer, now));
    }

    /// An advert of somebody better was heard by a router that took over: whose silence meant nothing, if that was
    /// lately and it is silent still, and for how long it is not acted on.
    pub fn outbid(
        &mut self,
        now: Instant,
        id: RouterId,
        lately: Duration,
        is_silent: impl Fn(IpAddr) -> bool,
    ) -> Option<(IpAddr, Duration)> {
        let (peer, at) = self.guesses.remove(&id).filter(|(peer, _)| is_silent(*peer))?;
        // Routers that were taken over together are proved wrong together.
        if now > at + lately || !self.is_trusted(now, peer) {
            return None;
        }
        let length = match self.doubts.get(&peer) {
            Some(doubt) if now < doubt.until + AGAIN => (doubt.length * 2).min(DOUBT_MAX),
            Some(_) | None => DOUBT,
        };
        self.doubts.insert(peer, Doubt { until: now + length, length });
        Some((peer, length))
    }

    pub fn is_trusted(&self, now: Instant, peer: IpAddr) -> bool {
        self.doubts.get(&peer).is_none_or(|doubt| now >= doubt.until)
    }

    pub fn keep(&mut self, is_known: impl Fn(IpAddr) -> bool) {
        self.guesses.retain(|_, (peer, _)| is_known(*peer));
        self.doubts.retain(|peer, _| is_known(*peer));
    }
}

const DOUBT: Duration = Duration::from_secs(10);
const DOUBT_MAX: Duration = Duration::from_secs(600);
const AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::pure::testing::an_instant;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const LATELY: Duration = Duration::from_secs(2);

    #[test]
    fn a_wrong_guess_is_not_repeated_at_once_and_the_next_one_even_later() {
        let mut now = an_instant();
        let mut trust = Trust::default();
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            let length = Duration::from_secs(seconds);
            assert!(trust.is_trusted(now, PEER));
            for id in [1, 2] {
                trust.guessed(now, RouterId(id), PEER);
            }
            assert_eq!(trust.outbid(now, RouterId(1), LATELY, |_| true), Some((PEER, length)));
            assert_eq!(trust.outbid(now, RouterId(2), LATELY, |_| true), None, "the same guess");
            assert!(!trust.is_trusted(now + length - Duration::from_millis(1), PEER));
            now += length;
        }
        trust.guessed(now + AGAIN, RouterId(1), PEER);
        assert_eq!(trust.outbid(now + AGAIN, RouterId(1), LATELY, |_| true), Some((PEER, DOUBT)));
    }

    #[test]
    fn who_was_right_for_a_while_was_right() {
        let now = an_instant();
        let mut trust = Trust::default();
        trust.guessed(now, RouterId(1), PEER);
        assert_eq!(
            trust.outbid(now + LATELY + Duration::from_millis(1), RouterId(1), LATELY, |_| true),
            None
        );
        assert!(trust.is_trusted(now, PEER));
    }

    #[test]
    fn who_is_heard_again_was_silent() {
        let now = an_instant();
        let mut trust = Trust::default();
        trust.guessed(now, RouterId(1), PEER);
        assert_eq!(trust.outbid(now, RouterId(1), LATELY, |_| false), None);
        assert!(trust.is_trusted(now, PEER));
    }
}

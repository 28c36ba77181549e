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
    /// Whose adverts came after that, since when.
    suspects: BTreeMap<IpAddr, (RouterId, Instant)>,
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

    /// An advert of somebody better was heard by a router that took over lately: the silent one may live.
    pub fn outbid(
        &mut self,
        now: Instant,
        id: RouterId,
        lately: Duration,
        is_silent: impl Fn(IpAddr) -> bool,
    ) {
        let Some((peer, at)) = self.guesses.remove(&id).filter(|(peer, _)| is_silent(*peer)) else { return };
        // Routers that were taken over together are proved wrong together.
        if now <= at + lately && self.is_trusted(now, peer) {
            self.suspects.entry(peer).or_insert((id, now));
        }
    }

    /// Its heartbeats are back: they were cut together with its adverts.
    pub fn heard(&mut self, peer: IpAddr) {
        self.suspects.remove(&peer);
    }

    /// Whose heartbeats are still missing so long after its advert, and for how long its silence is not acted on.
    pub fn doubt(&mut self, now: Instant, patience: Duration) -> Vec<(RouterId, IpAddr, Duration)> {
        let due = self.suspects.extract_if(.., |_, (_, since)| now >= *since + patience);
        let due: Vec<_> = due.map(|(peer, (id, _))| (id, peer)).collect();
        due.into_iter().map(|(id, peer)| (id, peer, self.doubt_once_more(now, peer))).collect()
    }

    fn doubt_once_more(&mut self, now: Instant, peer: IpAddr) -> Duration {
        let length = match self.doubts.get(&peer) {
            Some(doubt) if now < doubt.until + AGAIN => (doubt.length * 2).min(DOUBT_MAX),
            Some(_) | None => DOUBT,
        };
        self.doubts.insert(peer, Doubt { until: now + length, length });
        length
    }

    pub fn is_trusted(&self, now: Instant, peer: IpAddr) -> bool {
        self.doubts.get(&peer).is_none_or(|doubt| now >= doubt.until)
    }

    pub fn keep(&mut self, is_known: impl Fn(IpAddr) -> bool) {
        self.guesses.retain(|_, (peer, _)| is_known(*peer));
        self.suspects.retain(|peer, _| is_known(*peer));
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

    const PATIENCE: Duration = Duration::from_millis(100);

    #[test]
    fn a_wrong_guess_is_not_repeated_at_once_and_the_next_one_even_later() {
        let mut now = an_instant();
        let mut trust = Trust::default();
        for seconds in [10, 20, 40, 80, 160, 320, 600, 600] {
            let length = Duration::from_secs(seconds);
            assert!(trust.is_trusted(now, PEER));
            for id in [1, 2] {
                trust.guessed(now, RouterId(id), PEER);
                trust.outbid(now, RouterId(id), LATELY, |_| true);
            }
            assert_eq!(trust.doubt(now + PATIENCE - Duration::from_millis(1), PATIENCE), []);
            now += PATIENCE;
            assert_eq!(trust.doubt(now, PATIENCE), [(RouterId(1), PEER, length)], "one guess");
            assert!(!trust.is_trusted(now + length - Duration::from_millis(1), PEER));
            now += length;
        }
        now += AGAIN;
        trust.guessed(now, RouterId(1), PEER);
        trust.outbid(now, RouterId(1), LATELY, |_| true);
        assert_eq!(trust.doubt(now + PATIENCE, PATIENCE), [(RouterId(1), PEER, DOUBT)]);
    }

    #[test]
    fn who_was_right_is_believed_again() {
        let now = an_instant();
        let late = now + LATELY + Duration::from_millis(1);
        for (name, outbid_at, is_silent, is_heard) in [
            ("it was right for a while", late, true, false),
            ("it is heard already", now, false, false),
            ("it is heard soon", now, true, true),
        ] {
            let mut trust = Trust::default();
            trust.guessed(now, RouterId(1), PEER);
            trust.outbid(outbid_at, RouterId(1), LATELY, |_| is_silent);
            if is_heard {
                trust.heard(PEER);
            }
            assert_eq!(trust.doubt(late + PATIENCE, PATIENCE), [], "{name}");
            assert!(trust.is_trusted(late + PATIENCE, PEER), "{name}");
        }
    }
}

//! When a router's addresses are announced: gratuitous ARP and unsolicited neighbour advertisements, spread over time.
//!
//! One burst can be lost whole, and some neighbours learn from requests only, others from replies: rounds alternate.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::frame::ArpForm;
use crate::pure::config::model::vrrp::Announce;

/// The rounds that one router still has to announce.
#[derive(Debug, Clone, Default)]
pub struct Announcer {
    /// In ascending order, at most `ROUNDS_MAX`.
    rounds: VecDeque<Instant>,
    /// Of rounds that have begun: at most two of all addresses.
    pending: VecDeque<(IpAddr, ArpForm)>,
    /// When the next of these may be sent.
    pending_at: Option<Instant>,
    refresh_at: Option<Instant>,
    begun: u32,
    again_from: Option<Instant>,
}

impl Announcer {
    /// The addresses are ours from now on.
    pub fn begin(&mut self, now: Instant, announce: &Announce) {
        self.pending.clear();
        self.pending_at = None;
        let mut offsets: Vec<Duration> = announce.times.clone();
        if !announce.delay.is_zero() {
            offsets.extend(announce.times.iter().map(|&time| announce.delay + time));
        }
        offsets.sort_unstable();
        self.rounds = offsets.into_iter().take(ROUNDS_MAX).map(|offset| now + offset).collect();
        self.refresh_at = (!announce.refresh.is_zero()).then(|| now + announce.refresh);
        self.again_from = Some(now + AGAIN);
    }

    /// Somebody else may have announced them meanwhile. A flood of such signs does not make one of ours.
    pub fn again(&mut self, now: Instant, announce: &Announce) {
        if self.again_from.is_none_or(|from| now >= from) {
            self.begin(now, announce);
        }
    }

    pub fn stop(&mut self) {
        *self = Announcer::default();
    }

    pub fn deadline(&self) -> Option<Instant> {
        let next = [self.rounds.front().copied(), self.pending_at, self.refresh_at];
        next.into_iter().flatten().min()
    }

    /// What is to be announced now. `free_at` is when the interface may have its next one.
    pub fn due(
        &mut self,
        now: Instant,
        announce: &Announce,
        addresses: &[IpAddr],
        free_at: &mut Option<Instant>,
    ) -> Vec<(IpAddr, ArpForm)> {
        while self.rounds.front().is_some_and(|&round| round <= now) {
            self.rounds.pop_front();
            self.begin_round(addresses);
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = Some(now + announce.refresh);
            self.begin_round(addresses);
        }
        let mut due = Vec::new();
        while !self.pending.is_empty() && free_at.is_none_or(|free_at| free_at <= now) {
            due.extend(self.pending.pop_front());
            if !announce.spacing.is_zero() {
                *free_at = Some(now + announce.spacing);
            }
        }
        self.pending_at = if self.pending.is_empty() { None } else { *free_at };
        due
    }

    /// A round is left out while two wait: spacing is slower than the rounds.
    fn begin_round(&mut self, addresses: &[IpAddr]) {
        let form = if self.begun.is_multiple_of(2) { ArpForm::Request } else { ArpForm::Reply };
        self.begun = self.begun.wrapping_add(1);
        if self.pending.len() <= addresses.len() {
            self.pending.extend(addresses.iter().map(|&address| (address, form)));
        }
    }
}

/// Of one take-over.
const ROUNDS_MAX: usize = 64;
/// Between two times that all rounds begin again.
const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::pure::testing::an_instant;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn announce() -> Announce {
        let times = [0, 10, 50, 200, 1_000].map(ms).to_vec();
        Announce { times, delay: Duration::ZERO, refresh: Duration::ZERO, spacing: Duration::ZERO }
    }

    /// (milliseconds, addresses, form) of everything in the first `until` milliseconds.
    fn run(announce: &Announce, addresses: usize, until: u64) -> Vec<(u64, usize, ArpForm)> {
        let start = an_instant();
        let mut announcer = Announcer::default();
        announcer.begin(start, announce);
        let addresses: Vec<IpAddr> =
            (0..addresses).map(|n| Ipv4Addr::new(10, 0, 0, n as u8).into()).collect();
        let (mut told, mut free_at) = (Vec::new(), None);
        while let Some(at) = announcer.deadline().filter(|&at| at <= start + ms(until)) {
            let due = announcer.due(at, announce, &addresses, &mut free_at);
            if let Some(&(_, form)) = due.first() {
                told.push(((at - start).as_millis() as u64, due.len(), form));
            }
        }
        told
    }

    #[test]
    fn rounds_are_spread_and_alternate() {
        use ArpForm::{Reply, Request};
        let five = [(0, 2, Request), (10, 2, Reply), (50, 2, Request), (200, 2, Reply), (1_000, 2, Request)];
        assert_eq!(run(&announce(), 2, 100_000), five);
        let second = Announce { delay: ms(5_000), ..announce() };
        assert_eq!(run(&second, 2, 100_000).len(), 10);
        let refreshed = Announce { refresh: ms(60_000), ..announce() };
        let times: Vec<_> = run(&refreshed, 2, 200_000).iter().map(|told| told.0).collect();
        assert_eq!(times, [0, 10, 50, 200, 1_000, 60_000, 120_000, 180_000]);
    }

    #[test]
    fn spacing_sends_one_at_a_time_and_no_more_than_two_rounds_late() {
        let spaced = Announce { spacing: ms(100), ..announce() };
        let told = run(&spaced, 3, 100_000);
        assert!(told.iter().all(|&(_, count, _)| count == 1));
        assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 100));
        assert_eq!(told.len(), 9, "two rounds of five are left out");
    }

    #[test]
    fn a_flood_of_signs_makes_no_flood() {
        let (announce, start) = (announce(), an_instant());
        let mut announcer = Announcer::default();
        announcer.begin(start, &announce);
        let address = [IpAddr::from([10, 0, 0, 1])];
        let mut sent = 0;
        for at in (0..10_000).map(|n| start + Duration::from_micros(n * 200)) {
            announcer.again(at, &announce);
            sent += announcer.due(at, &announce, &address, &mut None).len();
        }
        assert!(sent <= 10, "{sent} in two seconds");
    }
}

//! Hand-overs under way: who was asked to take a router over, since when, and what follows from the answer.
//!
//! ```text
//! leaver                                successor
//!   │ no more adverts; addresses stay       │
//!   ├─ Resign ──── again every 5 ms ───────►│ advert, addresses, gratuitous ARP
//!   │◄─────────────────────────── Claimed ──┤
//!   │ advert of priority 0, addresses go    │
//! ```
//!
//! One that wants to be Active says Take, and the one that is resigns in its favour. Without an answer in 50 ms each goes
//! the RFC's way. Must not know what routers do, nor how messages travel.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::wire::{Call, Key, Message};
use crate::pure::vrrp::node::RouterId;

/// At most one per router in each direction.
#[derive(Debug, Default)]
pub struct HandOvers {
    rounds: u32,
    leaving: BTreeMap<RouterId, Leaving>,
    asking: BTreeMap<RouterId, Waiting>,
}

/// A router of ours that is Active, and is not to be any longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub cause: Cause,
    waiting: Waiting,
}

/// Why a router is handed over, and so what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    Stop,
    /// An operator's order.
    FailOver,
    /// Its priority fell below that of the successor.
    Outbid(String),
    /// It cannot be Active any more.
    Fault,
    /// The successor asked for it.
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    peer: IpAddr,
    call: Call,
    again: Instant,
    until: Instant,
}

impl HandOvers {
    /// From now on `id` sends no adverts. What is to be told to the peer.
    pub fn leave(
        &mut self,
        now: Instant,
        id: RouterId,
        peer: IpAddr,
        cause: Cause,
        call: (Key, u8),
    ) -> Message {
        let waiting = self.wait(now, peer, call);
        self.leaving.insert(id, Leaving { cause, waiting });
        Message::Resign(waiting.call)
    }

    /// `id` wants to be Active, and the peer is.
    pub fn ask(
        &mut self,
        (now, until): (Instant, Instant),
        id: RouterId,
        peer: IpAddr,
        call: (Key, u8),
    ) -> Message {
        let waiting = Waiting { until, ..self.wait(now, peer, call) };
        self.asking.insert(id, waiting);
        Message::Take(waiting.call)
    }

    fn wait(&mut self, now: Instant, peer: IpAddr, (key, priority): (Key, u8)) -> Waiting {
        self.rounds = self.rounds.wrapping_add(1);
        let call = Call { key, round: self.rounds, priority };
        Waiting { peer, call, again: now + AGAIN, until: now + PATIENCE }
    }

    pub fn is_leaving(&self, id: RouterId) -> bool {
        self.leaving.contains_key(&id)
    }

    pub fn is_asking(&self, id: RouterId) -> bool {
        self.asking.contains_key(&id)
    }

    pub fn is_anybody_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Something graver came in between.
    pub fn change_cause(&mut self, id: RouterId, cause: Cause) {
        if let Some(leaving) = self.leaving.get_mut(&id) {
            leaving.cause = cause;
        }
    }

    /// The peer is Active, as it was asked to be.
    pub fn claimed(&mut self, peer: IpAddr, round: u32) -> Option<(RouterId, Leaving)> {
        let is_it = |leaving: &Leaving| leaving.waiting.is(peer, round);
        let id = self.leaving.iter().find(|(_, leaving)| is_it(leaving)).map(|(id, _)| *id)?;
        self.leaving.remove(&id).map(|leaving| (id, leaving))
    }

    /// The peer does not do what it was asked for. What it was: a router that leaves goes on without it; one that asked
    /// takes what it wants.
    pub fn refused(&mut self, peer: IpAddr, round: u32) -> Option<(RouterId, Option<Leaving>)> {
        if let Some((id, leaving)) = self.claimed(peer, round) {
            return Some((id, Some(leaving)));
        }
        let id = self.asking.iter().find(|(_, waiting)| waiting.is(peer, round)).map(|(id, _)| *id)?;
        self.asking.remove(&id).map(|_| (id, None))
    }

    pub fn stop_asking(&mut self, id: RouterId) {
        self.asking.remove(&id);
    }

    /// The router is no longer Active for another reason, or no more.
    pub fn forget(&mut self, id: RouterId) {
        self.leaving.remove(&id);
        self.asking.remove(&id);
    }

    /// Nobody is there to answer: what waits for this peer is over at the next `due`.
    pub fn give_up(&mut self, now: Instant, peer: IpAddr) {
        let leaving = self.leaving.values_mut().map(|leaving| &mut leaving.waiting);
        leaving.chain(self.asking.values_mut()).filter(|waiting| waiting.peer == peer).for_each(|waiting| {
            waiting.until = now;
        });
    }

    /// What is to be said again.
    pub fn again(&mut self, now: Instant) -> Vec<(IpAddr, Message)> {
        let mut due = Vec::new();
        let leaving = self.leaving.values_mut().map(|leaving| (&mut leaving.waiting, true));
        let asking = self.asking.values_mut().map(|waiting| (waiting, false));
        for (waiting, leaves) in leaving.chain(asking).filter(|(waiting, _)| now >= waiting.again) {
            waiting.again = now + AGAIN;
            let message = if leaves { Message::Resign(waiting.call) } else { Message::Take(waiting.call) };
            due.push((waiting.peer, message));
        }
        due
    }

    /// What waited for an answer too long.
    pub fn expired(&mut self, now: Instant) -> Vec<(RouterId, Option<Leaving>)> {
        let leaving = self.leaving.extract_if(.., |_, leaving| now >= leaving.waiting.until);
        let mut expired: Vec<_> = leaving.map(|(id, leaving)| (id, Some(leaving))).collect();
        let asking = self.asking.extract_if(.., |_, waiting| now >= waiting.until);
        expired.extend(asking.map(|(id, _)| (id, None)));
        expired
    }

    pub fn deadline(&self) -> Option<Instant> {
        let leaving = self.leaving.values().map(|leaving| &leaving.waiting);
        leaving.chain(self.asking.values()).map(|waiting| waiting.again.min(waiting.until)).min()
    }
}

impl Waiting {
    fn is(&self, peer: IpAddr, round: u32) -> bool {
        self.peer == peer && self.call.round == round
    }
}

impl Leaving {
    pub fn peer(&self) -> IpAddr {
        self.waiting.peer
    }
}

const AGAIN: Duration = Duration::from_millis(5);
/// Ten times what a hand-over takes: who waits longer than this for an answer costs more than it saves.
pub const PATIENCE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::pure::{config::network::Family, testing::an_instant};

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const KEY: Key = Key { vrid: 51, family: Family::V4, addresses: 7 };

    fn ids(of: Vec<(RouterId, Option<Leaving>)>) -> Vec<(RouterId, bool)> {
        of.into_iter().map(|(id, leaving)| (id, leaving.is_some())).collect()
    }

    #[test]
    fn an_answer_counts_in_its_round_and_from_its_peer() {
        let now = an_instant();
        let mut table = HandOvers::default();
        let first = table.leave(now, RouterId(1), PEER, Cause::Stop, (KEY, 100));
        let Message::Resign(Call { round, .. }) = first else { panic!("{first:?}") };
        assert_eq!(table.claimed(PEER, round + 1), None);
        assert_eq!(table.claimed(Ipv4Addr::LOCALHOST.into(), round), None);
        assert!(table.claimed(PEER, round).is_some_and(|(id, _)| id == RouterId(1)));
        assert_eq!(table.claimed(PEER, round), None, "once");
        assert_eq!(table.deadline(), None);
    }

    #[test]
    fn what_is_not_answered_is_said_again_and_given_up() {
        let start = an_instant();
        let mut table = HandOvers::default();
        table.leave(start, RouterId(1), PEER, Cause::FailOver, (KEY, 100));
        table.ask((start, start + PATIENCE), RouterId(2), PEER, (KEY, 100));
        let mut said = 0;
        let mut over = Vec::new();
        while let Some(now) = table.deadline() {
            said += table.again(now).len();
            over.extend(table.expired(now));
            assert!(now <= start + PATIENCE);
        }
        assert_eq!(said, 20);
        assert_eq!(ids(over), [(RouterId(1), true), (RouterId(2), false)]);
    }

    #[test]
    fn nothing_waits_for_a_peer_that_is_gone() {
        let now = an_instant();
        let mut table = HandOvers::default();
        table.leave(now, RouterId(1), PEER, Cause::Stop, (KEY, 100));
        table.ask((now, now + PATIENCE), RouterId(2), Ipv4Addr::LOCALHOST.into(), (KEY, 100));
        table.give_up(now, PEER);
        assert_eq!(ids(table.expired(now)), [(RouterId(1), true)]);
    }
}

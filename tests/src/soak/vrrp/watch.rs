//! Whether every address is on exactly one of the nodes that hear each other.
//!
//! Nodes that are cut off are each a world of their own, where they may have everything. One without a carrier or a
//! daemon takes no part: what the first still has, it must give up; what a killed one leaves behind, nobody can take.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::act::{Act, Cast, Link};
use crate::bed::{Pair, observer::Observer, pause, vrrp::Virtual};

pub(super) struct Watch<'a> {
    pair: &'a Pair,
    observer: &'a Observer,
    routers: Vec<Virtual>,
    /// Since when something is not as it should be, without an act in between.
    wrong: BTreeMap<(Wrong, u8), Instant>,
    /// The longest that anything was.
    longest: BTreeMap<Wrong, Duration>,
    /// The last act was over then.
    acted: Instant,
    /// The last start: nobody takes part until the program has looked around, whatever is done meanwhile.
    started: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wrong {
    /// No node of a world has the address.
    None,
    Two,
    /// More than one node of a world advertises.
    TwoHeard,
    /// A node has it without a carrier.
    WithoutLink,
}

impl<'a> Watch<'a> {
    pub(super) fn new(pair: &'a Pair, observer: &'a Observer, routers: Vec<Virtual>) -> Watch<'a> {
        let (wrong, longest) = (BTreeMap::new(), BTreeMap::new());
        Watch { pair, observer, routers, wrong, longest, acted: Instant::now(), started: Instant::now() }
    }

    /// An act: what is wrong from here on begins anew.
    pub(super) fn restart(&mut self, act: Act) {
        self.wrong.clear();
        if matches!(act, Act::Start(_)) {
            self.started = Instant::now();
        }
    }

    /// Looks again and again for as long; an error when something was wrong for longer than it may be.
    pub(super) fn during(&mut self, time: Duration, cast: &Cast) -> Result<()> {
        self.acted = Instant::now();
        let end = self.acted + time;
        while Instant::now() < end {
            self.look(cast)?;
            pause(LOOK);
        }
        Ok(())
    }

    pub(super) fn longest(&self, wrong: Wrong) -> Duration {
        self.longest.get(&wrong).copied().unwrap_or_default()
    }

    fn look(&mut self, cast: &Cast) -> Result<()> {
        let now = Instant::now();
        let addresses: Vec<_> =
            (0..self.pair.nodes.len()).map(|node| self.pair.addresses(node)).collect::<Result<_>>()?;
        let heard = self.observer.adverts();
        for router in self.routers.clone() {
            let has = |node: &usize| addresses[*node].contains(&router.address());
            let advertises = |node: &usize| {
                let recent = heard.iter().rev().take_while(|advert| now.duration_since(advert.at) < RECENT);
                recent
                    .clone()
                    .any(|advert| (advert.node, advert.vrid) == (*node, router.vrid) && advert.priority > 0)
                    && !recent
                        .clone()
                        .any(|advert| (advert.node, advert.vrid, advert.priority) == (*node, router.vrid, 0))
            };
            let worlds = self.worlds(cast);
            let none = worlds.iter().any(|world| !world.iter().any(has));
            let two = worlds.iter().any(|world| world.iter().filter(|node| has(node)).count() > 1);
            let two_heard = now.duration_since(self.acted) > RECENT
                && worlds.iter().any(|world| world.iter().filter(|node| advertises(node)).count() > 1);
            let without_link =
                (0..self.pair.nodes.len()).any(|node| cast.state(node) == (true, Link::Down) && has(&node));
            for (wrong, is) in [
                (Wrong::None, none),
                (Wrong::Two, two),
                (Wrong::TwoHeard, two_heard),
                (Wrong::WithoutLink, without_link),
            ] {
                self.note(wrong, &router, is, now)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, wrong: Wrong, router: &Virtual, is: bool, now: Instant) -> Result<()> {
        let key = (wrong, router.vrid);
        if !is {
            self.wrong.remove(&key);
            return Ok(());
        }
        let since = *self.wrong.entry(key).or_insert(now);
        let longest = self.longest.entry(wrong).or_default();
        *longest = (*longest).max(now - since);
        let starting = STARTING.saturating_sub(since.duration_since(self.started));
        if now - since > wrong.allowed(router) + starting {
            let holders = self.pair.holders(router.address())?;
            bail!("{wrong:?} for {:?} of VRID {}: {holders:?} have it", now - since, router.vrid);
        }
        Ok(())
    }

    /// The nodes that hear each other, and each that hears nobody.
    fn worlds(&self, cast: &Cast) -> Vec<Vec<usize>> {
        let (mut together, mut worlds) = (Vec::new(), Vec::new());
        for node in 0..self.pair.nodes.len() {
            match cast.state(node) {
                (true, Link::Up) => together.push(node),
                (true, Link::Cut) => worlds.push(vec![node]),
                (true, Link::Down) | (false, _) => {}
            }
        }
        if !together.is_empty() {
            worlds.push(together);
        }
        worlds
    }
}

impl Wrong {
    pub(super) const ALL: [Wrong; 4] = [Wrong::None, Wrong::Two, Wrong::TwoHeard, Wrong::WithoutLink];

    pub(super) fn name(self) -> &'static str {
        match self {
            Wrong::None => "no master",
            Wrong::Two => "two masters",
            Wrong::TwoHeard => "two that advertise",
            Wrong::WithoutLink => "an address without a link",
        }
    }

    /// What RFC 9568 allows, and a machine that has other things to do. None: the master-down time of the lowest
    /// priority. Two: until one hears an advert of the other.
    fn allowed(self, router: &Virtual) -> Duration {
        let interval = Duration::from_millis(router.interval_ms.into());
        let protocol = match self {
            Wrong::None => interval * 4,
            Wrong::Two | Wrong::WithoutLink => interval,
            Wrong::TwoHeard => interval + RECENT,
        };
        protocol + CROWDED
    }
}

const LOOK: Duration = Duration::from_millis(5);
/// Longer than between two adverts.
const RECENT: Duration = Duration::from_millis(150);
/// Leftovers are removed, and checks have a first result.
const STARTING: Duration = Duration::from_millis(1_000);
const CROWDED: Duration = Duration::from_millis(1_000);

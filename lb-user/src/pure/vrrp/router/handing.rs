//! What other nodes of the cluster want of an election: one leaves while another one already takes over.

use std::time::{Duration, Instant};

use super::{Act, Phase, Rival, Router};

/// What is agreed with another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hand<'a> {
    /// Another node is asked to take over: nothing that is sent from now on may stop it. The addresses stay.
    Leave,
    /// It does not.
    Stay,
    /// Another node is Active, too.
    Insist,
    /// Another node leaves, and this one is to take over.
    Succeed(&'a str),
    /// Whatever the timer would have it do, not before then.
    Postpone(Instant),
}

impl Router {
    pub(super) fn hand(&mut self, now: Instant, phase: Phase, hand: Hand<'_>) -> Vec<Act> {
        match (phase, hand) {
            (Phase::Active { .. }, Hand::Leave) => {
                self.quiet = true;
                Vec::new()
            }
            (Phase::Active { .. }, Hand::Stay) if self.quiet => {
                self.quiet = false;
                self.advertise(now, now)
            }
            (Phase::Active { .. }, Hand::Insist) if !self.quiet => self.advertise(now, now),
            (Phase::Backup { .. }, Hand::Succeed(why)) => {
                let acts = self.take(now, why);
                self.spares = Some(now + SPARES);
                acts
            }
            (Phase::Active { .. }, Hand::Succeed(_)) => {
                self.spares = Some(now + SPARES);
                Vec::new()
            }
            (Phase::Backup { .. }, Hand::Postpone(until)) => {
                self.phase = Phase::Backup { down_at: Some(until) };
                Vec::new()
            }
            (Phase::Active { .. }, Hand::Stay | Hand::Insist | Hand::Postpone(_))
            | (Phase::Backup { .. }, Hand::Leave | Hand::Stay | Hand::Insist)
            | (
                Phase::Initialize | Phase::Fault { .. },
                Hand::Leave | Hand::Stay | Hand::Insist | Hand::Succeed(_) | Hand::Postpone(_),
            ) => Vec::new(),
        }
    }

    /// Whether an advert changes nothing, since its sender is about to let go, or we are.
    pub(super) fn passes_over(&self, now: Instant, heard: Rival, beats_us: bool) -> bool {
        if heard.priority > 0 && beats_us { self.spares.is_some_and(|until| now < until) } else { self.quiet }
    }
}

/// Adverts of the leaver may still be under way, or queued behind others.
const SPARES: Duration = Duration::from_millis(100);

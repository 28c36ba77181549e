//! What the records of rewritten connections say of their servers: who refuses them, or does not answer.
//!
//! Owns the counts of one round over the flow table. Must not know where the records come from, nor what follows.

use std::collections::{BTreeMap, VecDeque};

use lb_common::{
    flow::{OPENING, Owner, RST, Ticks},
    slot::ServerId,
};

/// One connection's word on its server, and from when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Answered(Ticks),
    /// By a reset in answer to its opening, or not at all.
    Failed(Ticks),
}

/// What the connections of each server say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signs(BTreeMap<ServerId, Run>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Run {
    answered: Option<Ticks>,
    /// The latest failures, in ascending order; at most `FAILURES_MAX`.
    failed: VecDeque<Ticks>,
}

/// Of a pair that a SYN made. The reply half is stamped when the pair is made, and then by the server alone; a
/// client that got an answer sends a packet that ends the opening.
pub fn sign(now: Ticks, request: &Owner, reply: &Owner) -> Option<Sign> {
    if request.state & OPENING == 0 {
        return Some(Sign::Answered(reply.seen));
    }
    if reply.state & RST != 0 {
        return Some(Sign::Failed(reply.seen));
    }
    if reply.seen.since(request.seen) > SAME_TIME {
        // The server repeats its answer to a client that does not go on.
        return Some(Sign::Answered(reply.seen));
    }
    (now.since(reply.seen) >= UNANSWERED_TICKS).then_some(Sign::Failed(reply.seen))
}

impl Signs {
    pub fn add(&mut self, server: ServerId, sign: Sign) {
        let run = self.0.entry(server).or_default();
        match sign {
            Sign::Answered(at) => {
                run.answered = Some(run.answered.map_or(at, |answered| answered.max(at)));
            }
            Sign::Failed(at) => {
                let place = run.failed.partition_point(|&failed| failed <= at);
                run.failed.insert(place, at);
                if run.failed.len() > FAILURES_MAX {
                    run.failed.pop_front();
                }
            }
        }
    }

    /// Connections of each server that failed in a row: since the last one that was answered.
    pub fn in_a_row(&self) -> BTreeMap<ServerId, u32> {
        let count = |run: &Run| {
            let since = |failed: &&Ticks| run.answered.is_none_or(|answered| **failed > answered);
            run.failed.iter().filter(since).count() as u32
        };
        self.0.iter().map(|(&server, run)| (server, count(run))).filter(|&(_, count)| count > 0).collect()
    }
}

/// Failures of a server that are told apart; a service that wants more in a row never suspects.
pub const FAILURES_MAX: usize = 256;
/// A second SYN has been sent by then, and a server that lives has repeated its answer to the first.
const UNANSWERED_TICKS: u32 = Ticks::in_ms(3_000);
/// Stamps of a request and its answer differ by less, those of an answer and its repetition by more.
const SAME_TIME: u32 = Ticks::in_ms(500);

#[cfg(test)]
mod tests {
    use lb_common::flow::{NAT_REPLY, NAT_REQUEST};
    use proptest::prelude::*;

    use super::*;

    const NOW: Ticks = Ticks(100_000);

    fn half(state: u32, silent_ms: u64) -> Owner {
        Owner { server: 1, seen: Ticks(NOW.0 - Ticks::in_ms(silent_ms)), state }
    }

    #[test]
    fn what_a_pair_says() {
        for (name, request, reply, expected) in [
            ("established", (0, 100), (0, 100), Some(true)),
            ("reset later", (0, 100), (RST, 100), Some(true)),
            ("just opened", (OPENING, 100), (OPENING, 100), None),
            ("refused", (OPENING, 100), (OPENING | RST, 100), Some(false)),
            ("unanswered, repeated", (OPENING, 1_000), (OPENING, 4_000), Some(false)),
            ("unanswered, the client gave up", (OPENING, 9_000), (OPENING, 9_000), Some(false)),
            ("repeated, not for long", (OPENING, 900), (OPENING, 1_900), None),
            ("answered again and again", (OPENING, 9_000), (OPENING, 5_000), Some(true)),
        ] {
            let (request, reply) =
                (half(request.0 | NAT_REQUEST, request.1), half(reply.0 | NAT_REPLY, reply.1));
            let answered = sign(NOW, &request, &reply).map(|sign| match sign {
                Sign::Answered(at) => (at, true),
                Sign::Failed(at) => (at, false),
            });
            assert_eq!(answered, expected.map(|answered| (reply.seen, answered)), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_run_is_what_failed_after_the_last_answer(
            signs in proptest::collection::vec((0..50_u32, any::<bool>()), 0..60),
        ) {
            let mut all = Signs::default();
            for &(at, answered) in &signs {
                let sign = if answered { Sign::Answered(Ticks(at)) } else { Sign::Failed(Ticks(at)) };
                all.add(ServerId(1), sign);
            }
            let last = signs.iter().filter(|(_, answered)| *answered).map(|&(at, _)| at).max();
            let after = |&&(at, answered): &&(u32, bool)| !answered && last.is_none_or(|last| at > last);
            let expected = signs.iter().filter(after).count() as u32;
            prop_assert_eq!(all.in_a_row().get(&ServerId(1)).copied().unwrap_or(0), expected);
        }
    }

    #[test]
    fn failures_are_bounded() {
        let mut signs = Signs::default();
        (0..5_000).for_each(|at| signs.add(ServerId(1), Sign::Failed(Ticks(at))));
        assert_eq!(signs.in_a_row(), [(ServerId(1), FAILURES_MAX as u32)].into());
    }
}

//! When a flow record is void and may be deleted.

use lb_common::flow::{NAT_REPLY, NAT_REQUEST, Owner, Ticks, idle_ticks, nat_idle_ticks};

/// What to do with a record the sweep came upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    Remove,
    /// A NAT half whose own silence does not decide: ask again with its twin.
    SeeTwin,
}

/// Of a record alone. `idle`: of the service its server belongs to; None when the server is gone.
pub fn alone(now: Ticks, flow: &Owner, idle: Option<u32>) -> Verdict {
    let silent = now.since(flow.seen);
    let nat = flow.state & (NAT_REQUEST | NAT_REPLY) != 0;
    if silent < YOUNG_TICKS {
        return Verdict::Keep;
    }
    match (nat, idle) {
        (true, _) => Verdict::SeeTwin,
        (false, None) => Verdict::Remove,
        (false, Some(idle)) if silent >= idle_ticks(flow.state, idle) => Verdict::Remove,
        (false, Some(_)) => Verdict::Keep,
    }
}

/// Of a NAT half with its twin: a pair lives by the younger of its stamps and the bits of both.
pub fn pair(now: Ticks, half: &Owner, twin: Option<&Owner>, idle: Option<u32>) -> Verdict {
    let (Some(twin), Some(idle)) = (twin, idle) else { return Verdict::Remove };
    let (request, reply) = if half.state & NAT_REQUEST != 0 { (half, twin) } else { (twin, half) };
    let silent = now.since(half.seen).min(now.since(twin.seen));
    if silent >= nat_idle_ticks(request.state, reply.state, idle) { Verdict::Remove } else { Verdict::Keep }
}

/// A record this young is never void: the kernel inserts a pair in two moves, and the sweep may see one.
const YOUNG_TICKS: u32 = Ticks::in_ms(1_000);

#[cfg(test)]
mod tests {
    use lb_common::flow::{CLOSED_TICKS, FIN, OPENING, OPENING_TICKS, RESET_TICKS, RST};

    use super::*;

    const IDLE: u32 = 6_000;
    const NOW: Ticks = Ticks(1_000_000);

    fn flow(state: u32, silent: u32) -> Owner {
        Owner { server: 1, seen: Ticks(NOW.0 - silent), state }
    }

    #[test]
    fn records_alone() {
        for (name, state, silent, idle, expected) in [
            ("fresh", 0, 0, Some(IDLE), Verdict::Keep),
            ("silent, but not long", 0, IDLE - 1, Some(IDLE), Verdict::Keep),
            ("silent too long", 0, IDLE, Some(IDLE), Verdict::Remove),
            ("opening", OPENING, OPENING_TICKS - 1, Some(IDLE), Verdict::Keep),
            ("opening too long", OPENING, OPENING_TICKS, Some(IDLE), Verdict::Remove),
            ("server gone", 0, YOUNG_TICKS, None, Verdict::Remove),
            ("server gone, record just made", 0, 0, None, Verdict::Keep),
            ("nat", NAT_REQUEST, IDLE, Some(IDLE), Verdict::SeeTwin),
            ("nat, just made", NAT_REPLY, 0, Some(IDLE), Verdict::Keep),
        ] {
            assert_eq!(alone(NOW, &flow(state, silent), idle), expected, "{name}");
        }
    }

    #[test]
    fn nat_pairs_from_either_half() {
        for (name, request, reply, silent, expected) in [
            ("established", (0, 10), (0, 10), Some(IDLE), Verdict::Keep),
            ("client silent, server streams", (0, IDLE * 2), (0, 1), Some(IDLE), Verdict::Keep),
            ("both silent", (0, IDLE), (0, IDLE + 5), Some(IDLE), Verdict::Remove),
            ("closed", (FIN, CLOSED_TICKS), (FIN, CLOSED_TICKS), Some(IDLE), Verdict::Remove),
            ("closing", (FIN, CLOSED_TICKS), (0, CLOSED_TICKS), Some(IDLE), Verdict::Keep),
            ("reset", (0, RESET_TICKS), (RST, RESET_TICKS), Some(IDLE), Verdict::Remove),
            ("server gone", (0, 10), (0, 10), None, Verdict::Remove),
        ] {
            let request = flow(request.0 | NAT_REQUEST, request.1);
            let reply = flow(reply.0 | NAT_REPLY, reply.1);
            assert_eq!(pair(NOW, &request, Some(&reply), silent), expected, "{name}");
            assert_eq!(pair(NOW, &reply, Some(&request), silent), expected, "{name}, other half first");
        }
        assert_eq!(pair(NOW, &flow(NAT_REPLY, 10), None, Some(IDLE)), Verdict::Remove, "half a pair");
    }
}

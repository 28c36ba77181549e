//! What becomes of a router's priority and readiness by the things that it tracks, as Keepalived reckons.
//!
//! Must not know how anything is checked: it has verdicts.

use super::node::Verdict;
use crate::pure::{
    config::model::vrrp::{Effect, Track, Tracked},
    status::TrackedStatus,
};

/// What all trackers of a router come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Effective: with every weight, from 1 to 254; of the owner always 255.
    pub priority: u8,
    /// Each keeps the router in Fault.
    pub faults: Vec<String>,
    /// Each may do so when its first result is there.
    pub unknown: Vec<String>,
    /// What moved the priority.
    pub weights: Vec<String>,
}

/// One thing tracked, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    pub track: &'a Track,
    pub verdict: Verdict,
    /// A member's own weights do not count in a group, whose members change state together.
    pub weighs: bool,
}

/// Of a router whose priority is `base`.
pub fn standing(base: u8, counted: &[Counted<'_>]) -> Standing {
    let mut standing = Standing { priority: base, ..Standing::default() };
    let mut sum = i32::from(base);
    for one in counted {
        let is_up = is_up(one.verdict);
        match one.track.effect {
            Effect::Fault { reverse } => match is_up {
                None => standing.unknown.push(format!("{} has no result yet", name(&one.track.what))),
                Some(is_up) if is_up == reverse => standing.faults.push(fails(&one.track.what, is_up)),
                Some(_) => {}
            },
            Effect::Weight { .. } | Effect::Scaled { .. } if !one.weighs || base == u8::MAX => {}
            effect @ (Effect::Weight { .. } | Effect::Scaled { .. }) => {
                let by = weight(effect, one.verdict);
                sum = sum.saturating_add(by);
                if by != 0 {
                    standing.weights.push(format!("{} {by:+}", name(&one.track.what)));
                }
            }
        }
    }
    if base != u8::MAX {
        standing.priority = sum.clamp(1, 254) as u8;
    }
    standing
}

fn weight(effect: Effect, verdict: Verdict) -> i32 {
    match effect {
        Effect::Fault { .. } => 0,
        Effect::Weight { weight, reverse } => {
            let weight = i32::from(weight);
            let counts = is_up(verdict) == Some(weight > 0);
            match (counts, reverse) {
                (false, _) => 0,
                (true, false) => weight,
                (true, true) => -weight,
            }
        }
        Effect::Scaled { weight } => match verdict {
            Verdict::Number(number) => number.saturating_mul(i32::from(weight)).clamp(-254, 254),
            Verdict::Unknown | Verdict::Up | Verdict::Down => 0,
        },
    }
}

/// A number other than 0 fails.
fn is_up(verdict: Verdict) -> Option<bool> {
    match verdict {
        Verdict::Unknown => None,
        Verdict::Up => Some(true),
        Verdict::Down => Some(false),
        Verdict::Number(number) => Some(number == 0),
    }
}

fn fails(what: &Tracked, is_up: bool) -> String {
    match (what, is_up) {
        (Tracked::Interface(name), false) => format!("interface {name} is down"),
        (Tracked::Service(name), false) => format!("service {name} has no usable server"),
        (Tracked::Datapath, false) => "the datapath does not forward".to_owned(),
        (what, false) => format!("{} fails", name(what)),
        (what, true) => format!("{} succeeds, which is reversed", name(what)),
    }
}

fn name(what: &Tracked) -> String {
    match what {
        Tracked::Interface(name) => format!("interface {name}"),
        Tracked::Script(name) => format!("script {name}"),
        Tracked::Process(name) => format!("process {name}"),
        Tracked::File(name) => format!("file {name}"),
        Tracked::Service(name) => format!("service {name}"),
        Tracked::Datapath => "datapath".to_owned(),
    }
}

impl Counted<'_> {
    pub fn status(&self) -> TrackedStatus {
        let state = match self.verdict {
            Verdict::Unknown => "unknown".to_owned(),
            Verdict::Up => "up".to_owned(),
            Verdict::Down => "down".to_owned(),
            Verdict::Number(number) => number.to_string(),
        };
        let reversed = |reverse: bool| if reverse { " reverse" } else { "" };
        let mut effect = match self.track.effect {
            Effect::Fault { reverse } => format!("fault{}", reversed(reverse)),
            Effect::Weight { weight, reverse } => format!("weight {weight}{}", reversed(reverse)),
            Effect::Scaled { weight } => format!("weight {weight} times its number"),
        };
        if !self.weighs && !matches!(self.track.effect, Effect::Fault { .. }) {
            effect.push_str(", not counted in a group");
        }
        TrackedStatus { what: name(&self.track.what), state, effect, detail: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(effect: Effect) -> Track {
        Track { what: Tracked::Script("x".to_owned()), effect }
    }

    fn of(base: u8, tracks: &[(Effect, Verdict)]) -> Standing {
        let tracks: Vec<_> = tracks.iter().map(|&(effect, verdict)| (track(effect), verdict)).collect();
        let counted: Vec<_> = tracks
            .iter()
            .map(|(track, verdict)| Counted { track, verdict: *verdict, weighs: true })
            .collect();
        standing(base, &counted)
    }

    #[test]
    fn weights_are_keepalived_s() {
        use Verdict::{Down, Number, Unknown, Up};
        let plain = |weight| Effect::Weight { weight, reverse: false };
        let reverse = |weight| Effect::Weight { weight, reverse: true };
        let scaled = |weight| Effect::Scaled { weight };
        for (base, tracks, expected) in [
            (100, vec![(plain(20), Up)], 120),
            (100, vec![(plain(20), Down)], 100),
            (100, vec![(plain(20), Unknown)], 100),
            (100, vec![(plain(-20), Up)], 100),
            (100, vec![(plain(-20), Down)], 80),
            (100, vec![(plain(-20), Unknown)], 100),
            (100, vec![(reverse(20), Up)], 80),
            (100, vec![(reverse(20), Down)], 100),
            (100, vec![(reverse(-20), Up)], 100),
            (100, vec![(reverse(-20), Down)], 120),
            (100, vec![(plain(-20), Down), (plain(30), Up)], 110),
            (100, vec![(plain(253), Up)], 254),
            (100, vec![(plain(-253), Down)], 1),
            (255, vec![(plain(-253), Down)], 255),
            (100, vec![(scaled(2), Number(7))], 114),
            (100, vec![(scaled(-2), Number(i32::MAX))], 1),
            (100, vec![(scaled(2), Up)], 100),
            (100, vec![(plain(-20), Number(3))], 80),
        ] {
            assert_eq!(of(base, &tracks).priority, expected, "{base} with {tracks:?}");
        }
    }

    #[test]
    fn faults_and_what_is_not_known_yet() {
        use Verdict::{Down, Number, Unknown, Up};
        let fault = |reverse| Effect::Fault { reverse };
        for (reverse, verdict, faults, unknown) in [
            (false, Up, 0, 0),
            (false, Down, 1, 0),
            (false, Unknown, 0, 1),
            (false, Number(0), 0, 0),
            (false, Number(1), 1, 0),
            (true, Up, 1, 0),
            (true, Down, 0, 0),
            (true, Unknown, 0, 1),
        ] {
            for base in [100, 255] {
                let standing = of(base, &[(fault(reverse), verdict)]);
                let found = (standing.faults.len(), standing.unknown.len(), standing.priority);
                assert_eq!(found, (faults, unknown, base), "reverse {reverse}, {verdict:?}");
            }
        }
    }

    #[test]
    fn a_member_s_weights_do_not_count() {
        let track = track(Effect::Weight { weight: -20, reverse: false });
        let counted = Counted { track: &track, verdict: Verdict::Down, weighs: false };
        assert_eq!(standing(100, &[counted]).priority, 100);
        assert_eq!(counted.status().effect, "weight -20, not counted in a group");
    }
}

//! Routers that change state together, as Keepalived's sync groups do.
//!
//! One fault is every member's; all become Active when all want to, for a group that is half Active routes nothing; one
//! that is outbid takes the others along.

use std::collections::BTreeSet;

use super::node::{RouterId, State};

/// A group as the node keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub members: BTreeSet<RouterId>,
    /// The state of all members that was told last.
    pub told: Option<State>,
}

/// Whether a router may take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Able,
    Waits(String),
    Fault { why: String, by_link: bool },
}

/// One member as the others see it.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub id: RouterId,
    pub name: &'a str,
    pub state: State,
    /// In Backup, and its master is down.
    pub wants: bool,
    /// By what it is and tracks itself.
    pub own: &'a Condition,
}

/// What holds for the member `id`, given all of the group.
pub fn condition(id: RouterId, members: &[Member<'_>]) -> Option<Condition> {
    let me = members.iter().find(|member| member.id == id)?;
    let fault = |member: &&Member<'_>| matches!(member.own, Condition::Fault { .. });
    // Addresses stay during a bounce only if nothing but links is at fault in all of the group.
    let only_links =
        members.iter().all(|member| !matches!(member.own, Condition::Fault { by_link: false, .. }));
    let first = members.iter().find(fault);
    Some(match (me.own, first) {
        (Condition::Fault { why, .. }, _) => Condition::Fault { why: why.clone(), by_link: only_links },
        (
            Condition::Able | Condition::Waits(_),
            Some(Member { name, own: Condition::Fault { why, .. }, .. }),
        ) => {
            let why = format!("{name} of its group is in fault: {why}");
            Condition::Fault { why, by_link: only_links }
        }
        (Condition::Waits(why), _) => Condition::Waits(why.clone()),
        // One that joins a group that runs does not stop it.
        (Condition::Able, _) => match me.state {
            State::Initialize | State::Fault => waiting(members).unwrap_or(Condition::Able),
            State::Backup | State::Active => Condition::Able,
        },
    })
}

fn waiting(members: &[Member<'_>]) -> Option<Condition> {
    members.iter().find_map(|member| match member.own {
        Condition::Waits(why) => Some(Condition::Waits(format!("{} of its group waits: {why}", member.name))),
        Condition::Able | Condition::Fault { .. } => None,
    })
}

/// Those that become Active now: some want to, and all others do or are.
pub fn takers(members: &[Member<'_>]) -> Vec<RouterId> {
    if members.iter().all(|member| member.wants || member.state == State::Active) {
        members.iter().filter(|member| member.wants).map(|member| member.id).collect()
    } else {
        Vec::new()
    }
}

/// The state of all of them.
pub fn common(members: &[Member<'_>]) -> Option<State> {
    let state = members.first()?.state;
    members.iter().all(|member| member.state == state).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, state: State, wants: bool, own: &Condition) -> Member<'_> {
        Member { id: RouterId(id), name: ["a", "b", "c"][id as usize], state, wants, own }
    }

    fn fault(by_link: bool) -> Condition {
        Condition::Fault { why: "interface eth0 is down".to_owned(), by_link }
    }

    #[test]
    fn a_fault_is_every_member_s() {
        let (able, waits) = (Condition::Able, Condition::Waits("no result yet".to_owned()));
        let (link, script) = (fault(true), fault(false));
        for (name, own, expected) in [
            ("none", [&able, &able], (0, true)),
            ("a link", [&able, &link], (1, true)),
            ("a script", [&able, &script], (1, false)),
            ("its own link, and a script", [&link, &script], (1, false)),
            ("waits, and a fault", [&waits, &script], (1, false)),
            ("waits", [&waits, &able], (2, true)),
            ("the other waits", [&able, &waits], (2, true)),
        ] {
            let [one, other] = own;
            let members =
                [member(0, State::Initialize, false, one), member(1, State::Initialize, false, other)];
            let found = match condition(RouterId(0), &members) {
                Some(Condition::Able) => (0, true),
                Some(Condition::Fault { by_link, .. }) => (1, by_link),
                Some(Condition::Waits(_)) => (2, true),
                None => (3, true),
            };
            assert_eq!(found, expected, "{name}");
        }
        let members = [member(0, State::Active, false, &able), member(1, State::Initialize, false, &waits)];
        assert_eq!(condition(RouterId(0), &members), Some(Condition::Able), "one that joins");
    }

    #[test]
    fn all_take_or_none() {
        let able = Condition::Able;
        let of = |state, wants| move |id| (id, state, wants);
        let (backup, wants, active) =
            (of(State::Backup, false), of(State::Backup, true), of(State::Active, false));
        let of_three = |members: [(u32, State, bool); 3]| {
            takers(&members.map(|(id, state, wants)| member(id, state, wants, &able)))
        };
        assert_eq!(of_three([wants(0), wants(1), backup(2)]), []);
        assert_eq!(of_three([wants(0), wants(1), wants(2)]), [0, 1, 2].map(RouterId));
        assert_eq!(of_three([wants(0), active(1), active(2)]), [RouterId(0)]);
        assert_eq!(of_three([active(0), active(1), active(2)]), []);
    }
}

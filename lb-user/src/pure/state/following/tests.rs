use super::*;
use crate::pure::{
    plan::Tables,
    state::tests::{checked, running, slots},
};

/// The other node's ring: every slot that is this node's first server's there belongs to `base`.
fn view(state: &State, base: &str, lookup: bool) -> View {
    let service = &state.config.services[0];
    let slots = vec![(Some(base.parse().unwrap()), lookup); service.slots as usize];
    View { service: service.name.clone(), family: service.rings()[0], slots }
}

fn bases(state: &State) -> BTreeSet<(ServerId, bool)> {
    slots(state).iter().map(|slot| (slot.base(), slot.lookup())).collect()
}

#[test]
fn slots_follow_the_node_that_has_the_address() {
    let mut state = running("dsr", Tables::default());
    let vip = state.config.services[0].addresses[0].address();
    let elsewhere = Holdings { movable: [vip].into(), held: BTreeSet::new() };
    let base = state.servers.iter().next().map(|(&id, server)| (id, server.address)).unwrap();
    let view = view(&state, &base.1.to_string(), false);
    assert!(!state.follow(&view), "the address is here");
    let planned: Vec<_> = slots(&state).iter().map(|slot| slot.current()).collect();
    state.hold(elsewhere.clone());
    assert!(state.follow(&view));
    state.plan();
    for (slot, planned) in slots(&state).iter().zip(&planned) {
        assert_eq!((slot.current(), slot.base(), slot.lookup()), (*planned, base.0, *planned != base.0));
    }
    assert!(state.follow(&view) && !state.is_stale(), "the same again changes nothing");
    let followed = bases(&state);
    state.hold(Holdings { held: [vip].into(), ..elsewhere });
    state.plan();
    assert_eq!(bases(&state), followed, "when the address comes, what stands goes on");
    assert!(!state.follow(&view));
}

#[test]
fn what_this_node_thinks_of_a_server_does_not_change_whose_a_slot_was() {
    let mut state = running("dsr", Tables::default());
    let vip = state.config.services[0].addresses[0].address();
    let ids: Vec<_> = state.servers.iter().map(|(&id, server)| (id, server.address)).collect();
    state.hold(Holdings { movable: [vip].into(), held: BTreeSet::new() });
    assert!(state.follow(&view(&state, &ids[0].1.to_string(), true)));
    state.plan();
    for passed in [false, true] {
        for _ in 0..5 {
            let event = checked(&state, 0, passed);
            state.handle(event);
        }
        state.plan();
    }
    assert_eq!(bases(&state), [(ids[0].0, true)].into(), "it was down here alone");
}

#[test]
fn a_ring_of_another_shape_is_not_followed() {
    let mut state = running("dsr", Tables::default());
    let vip = state.config.services[0].addresses[0].address();
    state.hold(Holdings { movable: [vip].into(), held: BTreeSet::new() });
    let mut short = view(&state, "10.0.0.1:80", true);
    short.slots.pop();
    assert!(!state.follow(&short));
    assert!(!state.follow(&View { service: "other".into(), ..view(&state, "10.0.0.1:80", true) }));
    assert!(!state.follow(&View { family: Some(Family::V6), ..view(&state, "10.0.0.1:80", true) }));
}

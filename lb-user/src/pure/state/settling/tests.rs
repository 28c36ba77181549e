use lb_common::{
    net::{Be32, TCP, V4},
    slot::Slot,
};

use super::*;
use crate::pure::{
    plan::{Step, Tables},
    state::{
        Event,
        tests::{SECRET, THREE, checked, config, running, service, slots, start},
    },
};

/// Of TCP and UDP by default.
const T: u32 = Ticks::in_ms(900_000);
const T_UDP: u32 = Ticks::in_ms(30_000);

/// A round that began at `began` and saw `survey` ends; the plan that follows.
fn round(state: &mut State, survey: Survey) -> Vec<Step> {
    state.advance(survey.began, |_| None);
    state.handle(Event::Swept { records: 0, named: Default::default(), survey });
    state.plan()
}

fn quiet(state: &mut State, began: u32) -> Vec<Step> {
    round(state, Survey::beginning(Ticks(began)))
}

fn reload(state: &mut State, text: &str, now: u32) {
    state.advance(Ticks(now), |_| None);
    state.reconfigure(config(text), SECRET).expect("room for all");
    state.plan();
}

/// Slots that owe connections to their base, and slots with lookup.
fn waiting(state: &State) -> (usize, usize) {
    let owes = |slot: &&Slot| slot.base() != slot.current();
    let slots = slots(state);
    (slots.iter().filter(owes).count(), slots.iter().filter(|slot| slot.lookup()).count())
}

fn with_a_fourth() -> String {
    service("dsr", &[THREE, &[("10.0.0.4", 4)]].concat())
}

/// At 0 a fourth server took half of the slots.
fn moved() -> State {
    let mut state = running("dsr", Tables::default());
    reload(&mut state, &with_a_fourth(), 0);
    assert_eq!(waiting(&state), (MOVED, MOVED));
    state
}

#[test]
fn a_slot_settles_step_by_step() {
    let mut state = moved();
    assert_eq!(quiet(&mut state, T - 1), [], "somebody may still be silent");
    let steps = quiet(&mut state, T);
    assert!(matches!(steps.as_slice(), [Step::SetSlots(_, changes)] if changes.len() == MOVED));
    assert_eq!(waiting(&state), (0, MOVED), "the base follows, and records still count");
    assert_eq!(quiet(&mut state, T + GRACE - 1), [], "a cpu may hold the slot as it was");
    quiet(&mut state, T + GRACE);
    assert_eq!(waiting(&state), (0, 0));
    assert_eq!(quiet(&mut state, T * 9), []);
}

#[test]
fn a_round_that_began_before_says_nothing() {
    let mut state = moved();
    state.advance(Ticks(T * 2), |_| None);
    let survey = Survey::beginning(Ticks(T - 1));
    state.handle(Event::Swept { records: 0, named: Default::default(), survey });
    assert!(!state.is_stale(), "whoever spoke behind this round was not confirmed by it");
}

#[test]
fn a_record_of_another_server_holds_its_slot_alone() {
    let mut state = moved();
    quiet(&mut state, T);
    let base = state.services[0].place.rings[0];
    let held = slots(&state).iter().position(|slot| slot.lookup()).expect("one that moved") as u32;
    let site = |slot| Site { ring: base, position: held, slot, records: Records::Unsettled, is_due: false };
    let mut survey = Survey::beginning(Ticks(T * 2));
    survey.note(&site(slots(&state)[held as usize]));
    round(&mut state, survey);
    assert_eq!(waiting(&state), (0, 1));
    assert!(slots(&state)[held as usize].lookup());
    quiet(&mut state, T * 2 + 1);
    assert_eq!(waiting(&state), (0, 0), "it ended");
}

/// The second time it is gone, the round under way may have passed its new records already.
#[test]
fn a_server_that_was_back_between_two_rounds_is_not_forgotten() {
    let mut state = moved();
    let fourth = state.services[0].servers[3];
    reload(&mut state, &service("dsr", THREE), 1);
    quiet(&mut state, 2);
    reload(&mut state, &with_a_fourth(), 3);
    reload(&mut state, &service("dsr", THREE), 4);
    quiet(&mut state, 2);
    assert!(state.installed.servers.contains_key(&fourth));
    assert!(quiet(&mut state, 5).contains(&Step::RemoveServer(fourth)), "nobody named it in a whole round");
}

/// Two services whose servers change alike; a flow of the first finds no room.
#[test]
fn a_flow_without_a_record_holds_the_slots_of_its_service() {
    let two =
        |text: &str| format!("{text}{}", text.replace("web", "other").replace("192.0.2.10", "192.0.2.11"));
    let mut state = start(config(&two(&service("dsr", THREE))), Tables::default());
    state.plan();
    reload(&mut state, &two(&with_a_fourth()), 0);
    let first = state.services[0].place.id;
    let refused = |id: u32| (id == first).then_some(Ticks(T / 2));
    let unsettled = |state: &State| [0, 1].map(|index| state.services[index].rings[0].slots.unsettled);
    for began in [T, T + GRACE, T / 2 + T - 1] {
        state.advance(Ticks(began), refused);
        let survey = Survey::beginning(Ticks(began));
        state.handle(Event::Swept { records: 0, named: Default::default(), survey });
        state.plan();
    }
    assert_eq!(unsettled(&state), [MOVED as u32, 0]);
    assert_eq!(waiting(&state), (MOVED, MOVED), "its base still owns them");
    let end = T / 2 + T;
    for began in [end, end + GRACE] {
        state.advance(Ticks(began), refused);
        let survey = Survey::beginning(Ticks(began));
        state.handle(Event::Swept { records: 0, named: Default::default(), survey });
        state.plan();
    }
    assert_eq!(unsettled(&state), [0, 0]);
}

#[test]
fn an_undone_change_waits_for_a_round_only() {
    let mut state = moved();
    reload(&mut state, &service("dsr", THREE), 10);
    assert_eq!(waiting(&state), (0, MOVED), "records of the fourth may live");
    assert_eq!(quiet(&mut state, 10 + GRACE - 1), []);
    quiet(&mut state, 10 + GRACE);
    assert_eq!(waiting(&state), (0, 0));
}

/// What the first change left to the bases is as old as that change, however often current moves on.
#[test]
fn a_second_change_does_not_begin_the_wait_anew() {
    let mut state = moved();
    let third = service("dsr", &[THREE, &[("10.0.0.5", 4)]].concat());
    reload(&mut state, &third, T / 2);
    let (owing, _) = waiting(&state);
    assert!(owing >= MOVED);
    quiet(&mut state, T);
    let (still, _) = waiting(&state);
    assert!(still < owing, "slots that moved at the first change follow");
    quiet(&mut state, T / 2 + T);
    assert_eq!(waiting(&state).0, 0);
}

#[test]
fn a_restart_begins_the_wait_anew() {
    let before = moved();
    let mut state = start(config(&with_a_fourth()), before.installed);
    state.advance(Ticks(T / 2), |_| None);
    state.plan();
    assert_eq!(waiting(&state), (MOVED, MOVED));
    assert_eq!(quiet(&mut state, T / 2 + T - 1), []);
    quiet(&mut state, T / 2 + T);
    assert_eq!(waiting(&state), (0, MOVED));
}

/// Down and up of a base: the server that took over owns the slot until T after the return.
#[test]
fn a_base_that_died_owes_nothing() {
    let mut state = moved();
    let dead = state.services[0].servers[0];
    let its_own = |slot: &Slot| (slot.current(), slot.base()) == (dead, dead);
    let before: Vec<bool> = slots(&state).iter().map(its_own).collect();
    let mut check = |passed, now| {
        let event = checked(&state, 0, passed);
        state.advance(Ticks(now), |_| None);
        state.handle(event);
        state.plan();
        slots(&state)
    };
    let without = check(false, 5);
    assert!(without.iter().all(|slot| slot.base() != dead && slot.current() != dead));
    let back = check(true, 9);
    let returned = |slot: &Slot| slot.current() == dead && slot.base() != dead;
    let all_returned = |slots: &[Slot]| slots.iter().zip(&before).all(|(slot, &its)| !its || returned(slot));
    assert!(all_returned(&back));
    quiet(&mut state, T + 8);
    assert!(all_returned(&slots(&state)), "they moved at 9");
    quiet(&mut state, T + 9);
    assert_eq!(waiting(&state).0, 0);
}

/// What is left of the records names the server that died, and would count again when it comes back.
#[test]
fn a_death_just_after_lookup_went_keeps_lookup() {
    let mut state = moved();
    quiet(&mut state, T);
    quiet(&mut state, T + GRACE);
    assert_eq!(waiting(&state), (0, 0));
    let mut later = state.clone();
    let down = checked(&state, 0, false);
    state.handle(down);
    state.plan();
    let (owing, looked_up) = waiting(&state);
    assert!(owing == 0 && looked_up > 0);
    quiet(&mut state, T + GRACE * 2);
    assert_eq!(waiting(&state), (0, 0));

    quiet(&mut later, T + GRACE * 2);
    let down = checked(&later, 0, false);
    later.handle(down);
    later.plan();
    assert_eq!(waiting(&later), (0, 0), "its records are gone");
}

#[test]
fn udp_drains_by_its_own_time() {
    let udp = |servers| service("dsr", servers).replace("port = 80", "port = 80\nprotocol = \"udp\"");
    let mut state = start(config(&udp(THREE)), Tables::default());
    state.plan();
    reload(&mut state, &udp(&[("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 0)]), 0);
    let drained = state.services[0].servers[2];
    let named = |state: &State| slots(state).iter().filter(|slot| slot.base() == drained).count();
    assert_eq!(named(&state), 128);
    quiet(&mut state, T_UDP);
    assert_eq!(named(&state), 0, "new flows go elsewhere from here on, and records are void T later");
}

fn in_turn(servers: &[(&str, u16)]) -> String {
    service("dsr", servers).replace("port = 80", "port = 80\nbalance = \"roundrobin\"")
}

/// Connections that a hash placed have no record, in whatever slot, until T has passed.
#[test]
fn a_scheduler_keeps_what_the_hash_placed_for_t() {
    let mut state = running("dsr", Tables::default());
    let placed: Vec<ServerId> = slots(&state).iter().map(|slot| slot.current()).collect();
    reload(&mut state, &in_turn(THREE), 0);
    reload(&mut state, &in_turn(&[("10.0.0.1", 5), ("10.0.0.2", 1), ("10.0.0.3", 1)]), 7);
    assert!(slots(&state).iter().all(|slot| slot.lookup()));
    assert!(slots(&state).iter().map(|slot| slot.base()).eq(placed), "though the rotation changed");
    assert_eq!(quiet(&mut state, T - 1), []);
    quiet(&mut state, T);
    assert_eq!(waiting(&state), (0, 0));
}

#[test]
fn a_hash_after_a_scheduler_settles_when_no_record_names_another() {
    let mut state = start(config(&in_turn(THREE)), Tables::default());
    state.plan();
    assert_eq!(waiting(&state), (0, 0));
    reload(&mut state, &service("dsr", THREE), 0);
    assert_eq!(waiting(&state), (0, 256), "a record may stand in any slot");
    let base = state.services[0].place.rings[0];
    let mut survey = Survey::beginning(Ticks(T));
    for position in 0..10 {
        let slot = slots(&state)[position as usize];
        survey.note(&Site { ring: base, position, slot, records: Records::Unsettled, is_due: false });
    }
    round(&mut state, survey);
    assert_eq!(waiting(&state), (0, 10));
    quiet(&mut state, T + 1);
    assert_eq!(waiting(&state), (0, 0));
}

#[test]
fn a_hash_that_comes_back_within_t_still_owes() {
    let mut state = running("dsr", Tables::default());
    let placed: Vec<ServerId> = slots(&state).iter().map(|slot| slot.current()).collect();
    reload(&mut state, &in_turn(THREE), 0);
    reload(&mut state, &service("dsr", THREE), 5);
    assert!(slots(&state).iter().map(|slot| slot.base()).eq(placed.iter().copied()));
    assert_eq!(waiting(&state), (0, 256));
}

#[test]
fn pairs_settle_without_a_look_at_records() {
    let mut state = running("gateway", Tables::default());
    let fourth = service("gateway", &[THREE, &[("10.0.0.4", 4)]].concat());
    reload(&mut state, &fourth, 0);
    assert_eq!(waiting(&state), (MOVED, MOVED));
    let mut undone = state.clone();
    quiet(&mut state, T);
    assert_eq!(waiting(&state), (0, 0));
    reload(&mut undone, &service("gateway", THREE), 5);
    assert_eq!(waiting(&undone), (0, 0), "its connections are recorded, whatever the slot says");
}

#[test]
fn a_record_finds_its_slot() {
    let state = moved();
    let tuple = Tuple {
        source: Be32::new(0xc000_0207),
        destination: Be32::new(0xc000_020a),
        source_port: Be16::new(40_000),
        destination_port: Be16::new(80),
    };
    let id = state.services[0].servers[0];
    let site = |state: &State, key: &FlowKey<V4>, now| state.site(id, key, Ticks(now));
    let key = FlowKey::new(tuple, TCP);
    let found = site(&state, &key, 0).expect("a slot");
    assert_eq!(found.slot, slots(&state)[found.position as usize]);
    assert!(!found.is_due);
    assert_eq!(site(&state, &key, T).expect("a slot").is_due, found.slot.lookup());
    let of_client = FlowKey::of_client(tuple.source, tuple.destination, TCP, 0);
    assert_eq!(site(&state, &of_client, 0), None, "of another kind than the service looks up");

    let mut sticky = running("dsr", Tables::default());
    reload(&mut sticky, &service("dsr", THREE).replace("port = 80", "port = 80\npersistence = \"1m\""), 0);
    assert_eq!(site(&sticky, &key, 0), None);
    let hashed = FlowTuple { source: tuple.source, source_port: Be16(0), destination_port: Be16(0) };
    let position = hash::flow::<V4>(sticky.hash_key, hashed) & 255;
    assert_eq!(site(&sticky, &of_client, 0).map(|site| site.position), Some(position));
}

#[test]
fn a_table_that_fills_is_told_once() {
    let mut state = running("dsr", Tables::default());
    let max = u64::from(state.config.datapath.flows);
    let mut told = |fullest: u64| {
        let mut survey = Survey::default();
        survey.fullest = fullest;
        let notice = state.handle(Event::Swept { records: fullest, named: Default::default(), survey });
        (notice, state.snapshot().flows_crowded)
    };
    let (crowded, eased) = (max * 4 / 5 + 1, max * 7 / 10 - 1);
    assert_eq!(told(max * 4 / 5 - 1), (None, false));
    assert_eq!(told(crowded), (Some(Notice::FlowsCrowded { records: crowded, max }), true));
    assert_eq!(told(max), (None, true));
    assert_eq!(told(eased + 2), (None, true), "between the two nothing changes");
    assert_eq!(told(eased), (Some(Notice::FlowsEased { records: eased, max }), false));
    assert_eq!(told(crowded - 2), (None, false));
}

/// Slots that change hands when the fourth comes: its half, and a few among the others.
const MOVED: usize = 132;
const GRACE: u32 = settle::GRACE_TICKS;

//! The host ring: every case through the packet path compiled for this machine.

use std::collections::BTreeSet;

use lb_common::{counter::Counter, flow::Ticks};
use lb_ebpf::Action;

use super::{Case, all, checksum::Checksums, kernel_alone, on_host};

#[test]
fn every_case_has_the_effect_it_names() {
    let failed: Vec<String> = MOMENTS.into_iter().flat_map(all).filter_map(|case| judge(&case)).collect();
    assert!(failed.is_empty(), "{} cases failed:\n\n{}", failed.len(), failed.join("\n\n"));
}

fn judge(case: &Case) -> Option<String> {
    let found = on_host(case, 0xa5);
    if found != case.expected {
        return Some(case.difference(&found));
    }
    if on_host(case, 0x5a) != found {
        return Some(format!("{}: depends on bytes outside the packet", case.name));
    }
    if found.action == Action::Pass && found.packet != case.packet {
        return Some(format!("{}: passed, but not untouched", case.name));
    }
    if !matches!(found.action, Action::Transmit | Action::Redirect(_)) {
        return None;
    }
    match Checksums::of(&found.packet) {
        Some(found) if found.is_right() => None,
        wrong => Some(format!("{}: leaves with {wrong:?}", case.name)),
    }
}

#[test]
fn the_cases_are_many_and_their_names_are_unique() {
    let cases = all(MOMENTS[0]);
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
    println!("{} cases", cases.len());
    assert!(cases.len() >= 5_000, "{} cases", cases.len());
}

#[test]
fn every_counter_is_reached() {
    let cases = all(MOMENTS[0]).into_iter().chain(kernel_alone(MOMENTS[0]));
    let reached: BTreeSet<Counter> = cases.flat_map(|case| case.expected.counters.into_keys()).collect();
    let missed: Vec<_> = Counter::ALL.iter().filter(|counter| !reached.contains(counter)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// Ticks since boot: a usual one, the first, and one whose records' stamps lie before a wrap.
const MOMENTS: [Ticks; 3] = [Ticks(100_000), Ticks(0), Ticks(50)];

//! Any text as a configuration: no panic, every diagnostic within the text, and what is accepted can be run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lb_user::pure::{
    config::parse,
    plan::Tables,
    state::{Start, State},
};

fuzz_target!(|text: &str| {
    let parsed = match parse("fuzz.toml", text) {
        Ok(parsed) => parsed,
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "refused without a reason");
            let lines = text.lines().count() + 1;
            for diagnostic in diagnostics {
                assert!(diagnostic.line <= lines, "{diagnostic}");
                assert!(!diagnostic.to_string().is_empty());
            }
            return;
        }
    };
    let slots: u32 = parsed.config.services.iter().map(|service| service.slots * service.rings().len() as u32).sum();
    if slots > SLOTS_MAX {
        return;
    }
    let start = Start {
        config: parsed.config,
        secret: b"fuzz",
        pinned: Tables::default(),
        ring_slots: slots,
        flows_max: 262_144, now: std::time::Instant::now(),
    };
    if let Ok(mut state) = State::new(start) {
        let mut tables = Tables::default();
        for step in state.plan() {
            tables.apply(step);
            assert_eq!(tables.dangling(), None);
        }
    }
});

/// Larger rings take the time that inputs should have.
const SLOTS_MAX: u32 = 1 << 14;

//! The kernel ring: every packet case through the loaded program, by BPF_PROG_TEST_RUN.
//!
//! The host ring runs the same table. What the kernel does must equal what the host does and what the case
//! expects: action, bytes, records, counters.

mod decap;
mod rig;

use std::{collections::BTreeSet, net::SocketAddrV4};

use anyhow::{Context, Result, ensure};
use lb_common::{
    flow::{NAT_REPLY, NAT_REQUEST, OPENING, OPENING_TICKS},
    flow_table::{self, FlowMemory},
    net::TCP,
};
use lb_tests::cases::{
    Case, all, kernel_alone, on_host,
    world::{A, B, CLIENT, TCP_IDLE, WEB, ago, flow_key, record},
};
use lb_user::io::kernel::{Round, Sweep, now};

use self::rig::{Entry, Rigs, inside};

#[test]
fn every_case_has_the_effect_it_has_on_the_host() -> Result<()> {
    inside(|| every_case(Entry::Direct))
}

#[test]
fn no_case_depends_on_the_headroom() -> Result<()> {
    inside(|| every_case(Entry::Poisoned))
}

fn every_case(entry: Entry) -> Result<()> {
    let (mut rigs, mut failed) = (Rigs::default(), Vec::new());
    for case in all(now()).iter().filter(|case| takes(case)) {
        let found = rigs.prepare(case)?.run(case, entry)?;
        if found != rig::seen_by_kernel(&case.expected) || found != rig::seen_by_kernel(&on_host(case, 0xa5))
        {
            failed.push(case.difference(&found));
        }
    }
    report(&failed)
}

/// The packet path alone would send these out.
#[test]
fn what_may_not_leave_is_dropped_and_counted() -> Result<()> {
    inside(|| {
        let (mut rigs, mut failed) = (Rigs::default(), Vec::new());
        for case in kernel_alone(now()) {
            for entry in [Entry::Direct, Entry::Poisoned] {
                let found = rigs.prepare(&case)?.run(&case, entry)?;
                if found != rig::seen_by_kernel(&case.expected) {
                    failed.push(case.difference(&found));
                }
            }
        }
        report(&failed)
    })
}

fn report(failed: &[String]) -> Result<()> {
    ensure!(failed.is_empty(), "{} cases failed:\n\n{}", failed.len(), failed.join("\n\n"));
    Ok(())
}

/// The kernel itself refuses what is left out of `every_case`.
#[test]
fn frames_without_an_ethernet_header_cannot_be_run() -> Result<()> {
    inside(|| {
        let mut rigs = Rigs::default();
        for case in all(now()).iter().filter(|case| !takes(case)) {
            let refused = rigs.prepare(case)?.run(case, Entry::Direct).is_err();
            ensure!(refused, "{}: the kernel takes it now, so run it with the others", case.name);
        }
        Ok(())
    })
}

fn takes(case: &Case) -> bool {
    case.packet.len() >= ETHERNET
}

/// In the memory the program uses: void records and halves go, and so does a way whose writer was killed.
#[test]
fn the_sweep_takes_what_is_void() -> Result<()> {
    inside(|| {
        let now = now();
        let idle = |_, _| Some(TCP_IDLE);
        let mut rigs = Rigs::default();
        let rig = rigs.prepare(&all(now)[0])?;
        rig.clear_flows();
        let memory = rig.memory();
        let key = |port| flow_key(SocketAddrV4::new(*CLIENT.ip(), port), WEB, TCP);
        let (silent, old_opening) = (ago(now, TCP_IDLE), ago(now, OPENING_TICKS));
        let mut expected = Vec::new();
        for (port, flow, stays) in [
            (1, record(A, now, 0), true),
            (2, record(A, silent, 0), false),
            (3, record(B, ago(now, TCP_IDLE - 50), 0), true),
            (4, record(B, old_opening, OPENING), false),
            (5, record(B, ago(now, 10), NAT_REQUEST), false),
            (6, record(B, now, NAT_REPLY), true),
        ] {
            ensure!(flow_table::insert(memory, &key(port), &flow).is_ok());
            if stays {
                expected.push(port);
            }
        }
        let tags = memory.flow_tags(0).context("the table has a bucket")?;
        let before = tags.0[1].get();
        ensure!(before >> 48 == 0, "the last way of the first bucket is taken by chance");
        tags.0[1].set(before | 0xabcd << 48);

        let mut sweep = Sweep::default();
        let mut round = || {
            (0..=memory.flow_buckets())
                .find_map(|_| sweep.pass(memory, now, idle))
                .context("the round does not end")
        };
        let first = round()?;
        ensure!(first == Round { records: 3, named: [A, B].into() }, "{first:?}");
        let standing: Vec<_> =
            (1..=6).filter(|&port| flow_table::find(memory, &key(port)).is_some()).collect();
        ensure!(standing == expected, "{standing:?}");
        ensure!(tags.is_used(7), "a way may be being written");
        round()?;
        ensure!(!tags.is_used(7), "nobody writes that long");
        rig.clear_flows();
        Ok(())
    })
}

#[test]
fn the_program_is_small_and_holds_no_debugging() -> Result<()> {
    inside(|| {
        let mut rigs = Rigs::default();
        let rig = rigs.prepare(&all(now())[0])?;
        let info = rig.program()?.info()?;
        let verified = info.verified_instruction_count().unwrap_or(u32::MAX);
        println!("the verifier walked {verified} instructions");
        ensure!(verified < VERIFIED_MAX, "the verifier walked {verified} instructions");
        let maps: BTreeSet<String> = rig.map_names()?;
        ensure!(maps == MAPS.map(String::from).into(), "the program uses {maps:?}");
        Ok(())
    })?;
    for symbol in ["rust_begin_unwind", "panic_fmt", "AYA_LOG"] {
        let found = OBJECT.windows(symbol.len()).any(|bytes| bytes == symbol.as_bytes());
        ensure!(!found, "the object mentions {symbol}");
    }
    Ok(())
}

static OBJECT: &[u8] = include_bytes!(env!("STEELYARD_XDP"));

const ETHERNET: usize = 14;
/// A fifth of what the kernel allows.
const VERIFIED_MAX: u32 = 300_000;
const MAPS: [&str; 9] =
    ["counters", "devices", "flow_tags", "flows", "globals", "ring", "servers", "services", "traffic"];

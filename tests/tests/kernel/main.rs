//! The kernel ring: every packet case through the loaded program, by BPF_PROG_TEST_RUN.
//!
//! The host ring runs the same table. What the kernel does must equal what the host does and what the case
//! expects: action, bytes, records, counters.

mod decap;
mod rig;
mod state;
mod through;

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use lb_common::{
    flow::{NAT_REPLY, NAT_REQUEST, OPENING, OPENING_TICKS},
    flow_table::{self, FlowMemory},
    net::{TCP, V4},
    stage::Stage,
};
use lb_tests::cases::{
    Case, all,
    host::records,
    kernel_alone, on_host,
    world::{A, B, CLIENT, Key, RING_SLOTS, TCP_IDLE, WEB, ago, flow_key, record},
};
use lb_user::{
    io::kernel::{Sweep, now},
    pure::{
        config,
        plan::Tables,
        state::{Start, State},
    },
};

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
    for case in all(now()).iter().filter(|case| takes(case) && entry.takes(case)) {
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
        let state = of_every_flow()?;
        let mut rigs = Rigs::default();
        let rig = rigs.prepare(&all(now)[0])?;
        rig.clear_flows();
        let memory = rig.memory();
        let key = |port| flow_key(SocketAddr::new(CLIENT.ip(), port), WEB, TCP);
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
            ensure!(records::insert(memory, &key(port), &flow).is_ok());
            if stays {
                expected.push(port);
            }
        }
        let tags = FlowMemory::<V4>::flow_tags(memory, 0).context("the table has a bucket")?;
        let before = tags.0[1].get();
        ensure!(before >> 48 == 0, "the last way of the first bucket is taken by chance");
        tags.0[1].set(before | 0xabcd << 48);

        let mut sweep = Sweep::default();
        let mut round = || {
            (0..=2 * FlowMemory::<V4>::flow_buckets(memory))
                .find_map(|_| sweep.pass(memory, now, &state))
                .context("the round does not end")
        };
        let first = round()?;
        ensure!(first.records == 3 && first.named.keys().eq(&[A, B]), "{first:?}");
        let stands = |port: &u16| match key(*port) {
            Key::V4(key) => flow_table::find(memory, &key).is_some(),
            Key::V6(key) => flow_table::find(memory, &key).is_some(),
        };
        let standing: Vec<_> = (1..=6).filter(stands).collect();
        ensure!(standing == expected, "{standing:?}");
        ensure!(tags.is_used(7), "a way may be being written");
        round()?;
        ensure!(!tags.is_used(7), "nobody writes that long");
        rig.clear_flows();
        Ok(())
    })
}

/// Of a service that records every flow, with the servers A and B.
fn of_every_flow() -> Result<State> {
    let text = "[datapath]\ninterfaces = [\"eth0\"]\n[cluster]\nsecret = \"x\"\n[[service]]\nname = \"web\"\n\
                address = \"192.0.2.10\"\nport = 80\nforward = \"dsr\"\nbalance = \"roundrobin\"\nslots = 256\n\
                server = [{ name = \"a\", address = \"10.0.0.1\" }, { name = \"b\", address = \"10.0.0.2\" }]\n";
    let parsed = config::parse("test.toml", text).map_err(|found| anyhow::anyhow!("{found:?}"))?;
    let pinned = Tables::default();
    Ok(State::new(Start {
        config: parsed.config,
        secret: b"x",
        pinned,
        ring_slots: RING_SLOTS,
        flows_max: 262_144,
        now: std::time::Instant::now(),
    })?)
}

#[test]
fn the_programs_are_small_and_hold_no_debugging() -> Result<()> {
    inside(|| {
        let mut rigs = Rigs::default();
        let rig = rigs.prepare(&all(now())[0])?;
        let programs = rig.programs()?;
        ensure!(programs.len() == Stage::ALL.len() + 1, "{} programs", programs.len());
        for program in programs {
            let name = program.name_as_str().context("a program without a name")?;
            let verified = program.verified_instruction_count().unwrap_or(u32::MAX);
            println!("{name}: the verifier walked {verified} instructions");
            let most = if name == ENTRY { ENTRY_VERIFIED_MAX } else { STAGE_VERIFIED_MAX };
            ensure!(verified < most, "{name}: the verifier walked {verified} instructions");
        }
        let maps: BTreeSet<String> = rig.map_names()?;
        ensure!(maps == MAPS.map(String::from).into(), "the programs use {maps:?}");
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
const ENTRY: &str = "steelyard";
/// The kernel allows a million. A stage that comes near is about to grow out of hand, and loads slowly.
const STAGE_VERIFIED_MAX: u32 = 200_000;
/// Every packet goes through the entry: it stays small.
const ENTRY_VERIFIED_MAX: u32 = 60_000;
const MAPS: [&str; 24] = [
    "access",
    "answers",
    "counters",
    "devices",
    "flow_tags4",
    "flow_tags6",
    "flows4",
    "flows6",
    "fragments",
    "globals",
    "halves4",
    "halves6",
    "held4",
    "held6",
    "load",
    "refused",
    "ring",
    "servers",
    "services4",
    "services6",
    "stages",
    "traffic",
    "turns",
    "wildcards",
];

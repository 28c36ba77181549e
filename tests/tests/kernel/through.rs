//! Checks through the data path by their loaded programs.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use lb_common::through::counter::Counter;
use lb_ebpf::through::Verdict;
use lb_tests::{
    cases::world::RING_SLOTS,
    through::{Effect, Exchange, ID, Step, all},
};
use lb_user::{
    io::kernel::{Kernel, Pins, Sizes, Through},
    pure::{plan, state::Steering},
};

use super::rig::{inside, tag};

#[test]
fn every_exchange_has_the_effect_it_has_on_the_host() -> Result<()> {
    inside(|| {
        let pins = Pins::open(&Path::new("/sys/fs/bpf").join(tag()))?;
        let mut kernel = Kernel::load(pins, Sizes { flows: 1_024, ring_slots: RING_SLOTS })?;
        let done = exchanges(&mut kernel);
        kernel.pins.remove()?;
        done
    })
}

fn exchanges(kernel: &mut Kernel) -> Result<()> {
    let mut failed = Vec::new();
    let mut through = kernel.through()?;
    for Exchange { name, target, server, sent, back } in all() {
        kernel.apply(&plan::Step::SetServer(ID, server))?;
        through.steer(&Steering { targets: BTreeMap::from([(ID, target)]), ..Steering::default() })?;
        for (index, step) in [sent, back].iter().enumerate() {
            let found = run(&through, index, step).with_context(|| format!("running {name}"))?;
            if found != step.expected {
                let expected = &step.expected;
                failed.push(format!("{name}, {index}\n  found    {found:x?}\n  expected {expected:x?}"));
            }
        }
    }
    ensure!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}

#[test]
fn the_programs_of_checks_are_small() -> Result<()> {
    inside(|| {
        let pins = Pins::open(&Path::new("/sys/fs/bpf").join(tag()))?;
        let kernel = Kernel::load(pins, Sizes { flows: 1_024, ring_slots: RING_SLOTS })?;
        let sizes = kernel.through().map_err(anyhow::Error::from).and_then(|through| {
            through
                .programs()?
                .map(|program| Ok(program.info()?.verified_instruction_count()))
                .into_iter()
                .collect()
        });
        kernel.pins.remove()?;
        let sizes: Vec<Option<u32>> = sizes?;
        println!("the verifier walked {sizes:?} instructions");
        ensure!(sizes.iter().all(|size| size.is_some_and(|size| size < VERIFIED_MAX)), "{sizes:?}");
        Ok(())
    })
}

/// What a packet without a mark costs on its way out, in the kernel's own measure.
#[test]
fn a_packet_without_a_mark_costs_next_to_nothing() -> Result<()> {
    inside(|| {
        let pins = Pins::open(&Path::new("/sys/fs/bpf").join(tag()))?;
        let kernel = Kernel::load(pins, Sizes { flows: 1_024, ring_slots: RING_SLOTS })?;
        let through = kernel.through();
        let unmarked = all().into_iter().find(|exchange| exchange.name == "no mark");
        let times = through.map_err(anyhow::Error::from).and_then(|through| {
            let Exchange { sent, back, .. } = unmarked.context("no such exchange")?;
            let [out, arriving] = through.programs()?;
            Ok([time(out, &sent.packet)?, time(arriving, &back.packet)?])
        });
        kernel.pins.remove()?;
        let [out, arriving] = times?;
        println!("without a mark: {out} ns on the way out, {arriving} ns for what arrives");
        ensure!(out < UNMARKED_NS_MAX, "{out} ns: it does more than compare");
        Ok(())
    })
}

fn time(program: &SchedClassifier, packet: &[u8]) -> Result<u128> {
    let options = TestRunOptions { data_in: Some(packet), repeat: 1_000_000, ..TestRunOptions::default() };
    Ok(program.test_run(options)?.duration.as_nanos())
}

fn run(through: &Through, index: usize, step: &Step) -> Result<Effect> {
    let before = through.counters()?;
    let mut context = [0; CONTEXT];
    context[MARK..MARK + 4].copy_from_slice(&step.mark.to_ne_bytes());
    let mut context_after = [0; CONTEXT];
    let mut packet = vec![0; step.packet.len() + 128];
    let options = TestRunOptions {
        data_in: Some(&step.packet),
        data_out: Some(&mut packet),
        ctx_in: Some(&context),
        ctx_out: Some(&mut context_after),
        repeat: 1,
        ..TestRunOptions::default()
    };
    let ran = through.programs()?[index].test_run(options)?;
    packet.truncate(ran.data_size_out as usize);
    let after = through.counters()?;
    let grown = |counter: &&Counter| after[counter.name()] != before[counter.name()];
    let counted: Vec<_> = Counter::ALL.iter().copied().filter(|counter| grown(&counter)).collect();
    let verdict = match (ran.return_value.cast_signed(), counted.as_slice()) {
        (TCX_NEXT, []) => Verdict::Next(None),
        (TCX_NEXT, [counter]) => Verdict::Next(Some(*counter)),
        (TCX_DROP, [counter]) => Verdict::Drop(*counter),
        (value, counted) => bail!("returned {value} and counted {counted:?}"),
    };
    let mark = u32::from_ne_bytes(std::array::from_fn(|byte| context_after[MARK + byte]));
    Ok(Effect { verdict, mark, packet })
}

/// Bytes of `__sk_buff`, and where the mark stands in it.
const CONTEXT: usize = 192;
const MARK: usize = 8;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
const VERIFIED_MAX: u32 = 10_000;
/// Some 20 with the cost of the call, on a machine that has nothing else to do.
const UNMARKED_NS_MAX: u128 = 200;

//! The cases of `decap` through its loaded program.

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{TestRun, TestRunOptions};
use lb_common::decap::Counter;
use lb_ebpf::decap::DecapOutcome;
use lb_tests::decap::{Case, Effect, VIP4, VIP6, all, on_host};
use lb_user::io::kernel::Decap;

use super::rig::inside;

#[test]
fn every_case_of_decap_has_the_effect_it_has_on_the_host() -> Result<()> {
    inside(|| {
        let decap = Decap::load(&[VIP4.into(), VIP6.into()])?;
        let mut failed = Vec::new();
        for case in all().iter().filter(|case| case.packet.len() >= ETHERNET) {
            let found = run(&decap, case)?;
            if found != case.expected || found != on_host(case, 0xa5) {
                failed.push(format!("{}\n  found    {found:x?}\n  expected {:x?}", case.name, case.expected));
            }
        }
        ensure!(failed.is_empty(), "{} cases failed:\n\n{}", failed.len(), failed.join("\n\n"));
        Ok(())
    })
}

/// What is listed is opened, and nothing else: each address alone.
#[test]
fn only_listed_addresses_are_opened() -> Result<()> {
    inside(|| {
        for (vips, opened) in [(vec![], 0), (vec![VIP4.into()], 1), (vec![VIP6.into()], 1)] {
            let decap = Decap::load(&vips)?;
            let names = ["4 in 4, Ipip, vlan []", "6 in 4, Ipip, vlan []"];
            let cases: Vec<_> =
                all().into_iter().filter(|case| names.contains(&case.name.as_str())).collect();
            ensure!(cases.len() == names.len(), "the cases have other names now");
            let mut count = 0;
            for case in &cases {
                let found = run(&decap, case)?;
                count += usize::from(found == case.expected);
            }
            ensure!(count == opened, "{vips:?}: {count} opened");
        }
        Ok(())
    })
}

#[test]
fn the_program_of_decap_is_small() -> Result<()> {
    inside(|| {
        let decap = Decap::load(&[])?;
        let verified = decap.program()?.info()?.verified_instruction_count().unwrap_or(u32::MAX);
        println!("the verifier walked {verified} instructions");
        ensure!(verified < VERIFIED_MAX, "the verifier walked {verified} instructions");
        Ok(())
    })
}

fn run(decap: &Decap, case: &Case) -> Result<Effect> {
    let before = decap.counters()?;
    let mut packet = vec![0; case.packet.len() + 64];
    let options = TestRunOptions {
        data_in: Some(&case.packet),
        data_out: Some(&mut packet),
        repeat: 1,
        ..TestRunOptions::default()
    };
    let ran = decap.program()?.test_run(options).with_context(|| format!("running {}", case.name))?;
    packet.truncate(ran.data_size_out as usize);
    let after = decap.counters()?;
    let grown = |counter: &&Counter| after[counter.name()] != before[counter.name()];
    let mut counted = Counter::ALL.iter().filter(grown);
    let counter = *counted.next().with_context(|| format!("{}: nothing was counted", case.name))?;
    ensure!(counted.next().is_none(), "{}: counted twice", case.name);
    let outcome = match ran.return_value {
        XDP_DROP => DecapOutcome::Drop(counter),
        XDP_PASS => DecapOutcome::Pass(counter),
        value => bail!("{}: the program returned {value}, which is no action of ours", case.name),
    };
    Ok(Effect { outcome, packet })
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
/// Shorter frames the kernel refuses to run.
const ETHERNET: usize = 14;
const VERIFIED_MAX: u32 = 20_000;

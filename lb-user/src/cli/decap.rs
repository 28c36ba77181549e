//! `steelyard decap`: what was asked, and how findings and counters are shown.

use super::{CliError, args, ask::tell, color::Paint, render, serve};
use crate::{
    daemon::decap,
    pure::decap::{Finding, Wanted},
};

pub(super) fn run(asked: &args::Decap) -> Result<(), CliError> {
    let interfaces = asked.interface.iter().cloned().collect();
    let vips = asked.vip.iter().copied().collect();
    if asked.check {
        let findings =
            decap::check(&interfaces, &Wanted { vips, mss: asked.mss }).map_err(CliError::Decap)?;
        tell(&findings, &asked.output, |findings| show(findings, Paint::stdout()))?;
        return match findings.iter().filter(|finding| !finding.ok).count() {
            0 => Ok(()),
            missing => Err(CliError::Unprepared(missing)),
        };
    }
    serve::log("info");
    let options = decap::Options { interfaces, vips, mode: asked.mode.into() };
    let counters = decap::run(&options).map_err(CliError::Decap)?;
    tell(&counters, &asked.output, render::counters)
}

fn show(findings: &[Finding], paint: Paint) -> String {
    findings.iter().map(|finding| line(finding, paint)).collect()
}

fn line(finding: &Finding, paint: Paint) -> String {
    let Finding { about, found, .. } = finding;
    let mark = if finding.ok { paint.green("ok     ") } else { paint.red("MISSING") };
    let fix = finding.fix.as_ref().map_or_else(String::new, |fix| format!("; run: {fix}"));
    let instead = finding.instead.as_ref().map_or_else(String::new, |text| format!("  (or {text})"));
    format!("{mark}  {about}: {found}{fix}{instead}\n")
}

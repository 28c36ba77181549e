//! When gratuitous ARP and neighbour advertisements are sent, for all routers or for one.

use std::time::Duration;

use super::{
    parser::Statement,
    value::{number, timer},
};
use crate::pure::config::{error::Findings, model::vrrp::Announce};

/// What is not given is as everybody's, or the default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Garp {
    delay: Option<Duration>,
    repeat: Option<usize>,
    refresh: Option<Duration>,
    spacing: Option<Duration>,
}

impl Garp {
    /// `keyword` is without the `vrrp_` that it has in global_defs. False: it is none of these.
    pub(super) fn read(&mut self, keyword: &str, statement: &Statement, findings: &mut Findings) -> bool {
        let ignored = "the keyword is ignored";
        match keyword {
            "garp_master_delay" => {
                self.delay = whole_seconds(statement, DELAY_MAX, findings).or(self.delay);
            }
            "garp_master_repeat" => {
                self.repeat = number(statement, (1, REPEAT_MAX), ignored, findings).or(self.repeat);
            }
            "garp_master_refresh" => {
                self.refresh = whole_seconds(statement, REFRESH_MAX, findings).or(self.refresh);
            }
            "garp_interval" => {
                // Keepalived refuses 0, which stands in every distribution's example.
                self.spacing = timer(statement, (0, SPACING_MAX_US), ignored, findings).or(self.spacing);
            }
            "gna_interval" => {
                let spacing = timer(statement, (0, SPACING_MAX_US), ignored, findings);
                if self.spacing.is_none_or(|spacing| spacing.is_zero()) {
                    self.spacing = spacing.or(self.spacing);
                }
            }
            "garp_master_refresh_repeat" => {
                fixed(statement, "a refresh announces each address once", findings);
            }
            "garp_lower_prio_delay" | "garp_lower_prio_repeat" => {
                fixed(
                    statement,
                    "after an advert of lower priority the addresses are announced as after becoming Active",
                    findings,
                );
            }
            _ => return false,
        }
        true
    }

    pub(super) const WORDS: [&str; 8] = [
        "garp_master_delay",
        "garp_master_repeat",
        "garp_master_refresh",
        "garp_master_refresh_repeat",
        "garp_lower_prio_delay",
        "garp_lower_prio_repeat",
        "garp_interval",
        "gna_interval",
    ];

    /// A repeat is sent at the usual times, spread over a second: Keepalived sends all of it at once, and one burst of
    /// loss takes all of it.
    pub(super) fn finish(self, all: Garp) -> Announce {
        let usual = Announce::default();
        let mut times = usual.times;
        if let Some(repeat) = self.repeat.or(all.repeat) {
            let later = (2..).map(Duration::from_secs);
            times = times.into_iter().chain(later).take(repeat).collect();
        }
        Announce {
            times,
            delay: self.delay.or(all.delay).unwrap_or(usual.delay),
            refresh: self.refresh.or(all.refresh).unwrap_or(usual.refresh),
            spacing: self.spacing.or(all.spacing).unwrap_or(usual.spacing),
        }
    }
}

fn whole_seconds(statement: &Statement, max: i64, findings: &mut Findings) -> Option<Duration> {
    number::<u32>(statement, (0, max), "the keyword is ignored", findings)
        .map(|seconds| Duration::from_secs(seconds.into()))
}

fn fixed(statement: &Statement, why: &str, findings: &mut Findings) {
    super::value::unused(statement, why, findings);
}

const DELAY_MAX: i64 = 600;
const REFRESH_MAX: i64 = 86_400;
const REPEAT_MAX: i64 = 32;
const SPACING_MAX_US: u64 = 1_000_000;

//! The sequence of changes.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{
    crowd::{Crowd, allow_descriptors},
    report::{Report, Row},
};
use crate::bed::{
    Arms, Bed, Config, Forward, Layout, Member, Steelyard,
    steelyard::{all_up, is_down, server},
};

/// What to soak.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub forward: Forward,
    pub connections: usize,
    /// Connections that speak after every step.
    pub active: usize,
    pub datagram_flows: usize,
    /// Records the flow table has room for; None: the default.
    pub flows: Option<u32>,
}

/// Twelve servers: ten from the start, two that come later.
pub fn run(plan: Plan) -> Result<Report> {
    allow_descriptors((plan.connections + plan.connections / 4 + plan.datagram_flows) as u64 + 1_024)?;
    let layout = Layout { servers: 12, ..Layout::new(Arms::Two, plan.forward) };
    let bed = Bed::new(layout)?;
    let mut config = Config::of(&bed);
    config.flows = plan.flows;
    let late = config.services[0].servers.split_off(10);
    let steelyard = Steelyard::running(&bed, &config)?;
    let crowd = Crowd::open(&bed, plan.connections, plan.datagram_flows)?;
    let report = Report {
        forward: plan.forward.name().to_owned(),
        connections: plan.connections,
        active: plan.active,
        datagram_flows: plan.datagram_flows,
        rows: Vec::new(),
    };
    let mut soak = Soak { bed: &bed, steelyard, config, crowd, active: plan.active, report };
    soak.servers_change(late)?;
    soak.servers_die()?;
    soak.the_daemon_changes()?;
    soak.changes_meet()?;
    // A scheduler that follows no hash refuses what it cannot record.
    if plan.flows.is_none() {
        soak.schedulers_change()?;
    }
    soak.active = usize::MAX;
    soak.step("everybody speaks", |_| Ok(()))?;
    soak.steelyard.show_log = soak.report.broken() > 0;
    Ok(soak.report)
}

struct Soak<'a> {
    bed: &'a Bed,
    steelyard: Steelyard<'a>,
    config: Config,
    crowd: Crowd,
    active: usize,
    report: Report,
}

impl Soak<'_> {
    fn servers_change(&mut self, late: Vec<Member>) -> Result<()> {
        self.step("nothing", |_| Ok(()))?;
        self.step("two servers more", |soak| {
            soak.servers().extend(late);
            soak.reload()?;
            soak.steelyard.wait("the new servers", all_up).map(drop)
        })?;
        self.step("one drained", |soak| soak.steelyard.done(&["server", "drain", "web/web3"]).map(drop))?;
        self.step("all weighed anew", |soak| {
            for (position, server) in soak.servers().iter_mut().enumerate() {
                server.weight = [1, 3, 2, 5][position % 4];
            }
            soak.reload()
        })?;
        self.step("one removed", |soak| {
            soak.servers().retain(|server| server.name != "web4");
            soak.reload()
        })
    }

    fn servers_die(&mut self) -> Result<()> {
        self.step("one killed", |soak| {
            soak.bed.servers[4].kill();
            soak.crowd.excuse("web5");
            soak.steelyard.wait("web5 to leave", |status| is_down(status, "web", "web5")).map(drop)
        })?;
        self.step("it comes back", |soak| {
            soak.bed.servers[4].start()?;
            soak.steelyard.wait("web5 to return", |status| is_up(status, "web5")).map(drop)
        })
    }

    fn the_daemon_changes(&mut self) -> Result<()> {
        self.step("ten reloads", |soak| {
            for turn in 0..10 {
                soak.servers()[0].weight = 1 + turn % 3;
                soak.reload()?;
            }
            Ok(())
        })?;
        self.step("the daemon killed (-9)", |soak| soak.steelyard.kill9())?;
        self.step("and started again", |soak| {
            soak.steelyard.start()?;
            soak.steelyard.wait("the servers", |status| is_up(status, "web1")).map(drop)
        })?;
        self.step("stopped, and its program replaced", |soak| {
            soak.steelyard.terminate()?;
            soak.steelyard.start()?;
            soak.steelyard.wait("the servers", |status| is_up(status, "web1")).map(drop)
        })
    }

    fn changes_meet(&mut self) -> Result<()> {
        self.step("the drain undone", |soak| {
            soak.steelyard.done(&["server", "enable", "web/web3"]).map(drop)
        })?;
        self.step("one added and taken back", |soak| {
            let mut fourth = soak.servers()[0].clone();
            "web4".clone_into(&mut fourth.name);
            fourth.address = soak.bed.servers[3].own();
            soak.servers().push(fourth);
            soak.reload()?;
            soak.servers().pop();
            soak.reload()
        })?;
        self.step("a base down and up again", |soak| {
            soak.steelyard.done(&["server", "drain", "web/web6"])?;
            soak.bed.servers[5].kill();
            soak.crowd.excuse("web6");
            soak.steelyard.wait("web6 to be down", |status| {
                server(status, "web", "web6").is_some_and(|server| server.health == "down")
            })?;
            soak.bed.servers[5].start()?;
            soak.steelyard.done(&["server", "enable", "web/web6"])?;
            soak.steelyard.wait("web6 to return", |status| is_up(status, "web6")).map(drop)
        })?;
        self.step("two changes before it settles", |soak| {
            soak.servers()[1].weight = 9;
            soak.reload()?;
            soak.servers()[1].weight = 0;
            soak.reload()
        })?;
        self.step("more connections, then weighed anew", |soak| {
            let lost = soak.report.connections.saturating_sub(soak.crowd.connections());
            soak.crowd.more(soak.bed, lost)?;
            soak.servers()[1].weight = 2;
            soak.reload()
        })
    }

    fn schedulers_change(&mut self) -> Result<()> {
        self.step("maglev to roundrobin", |soak| {
            soak.config.services[0].balance = Some("roundrobin");
            soak.reload()?;
            soak.crowd.more(soak.bed, soak.report.connections / 20)
        })?;
        self.step("and back", |soak| {
            soak.config.services[0].balance = Some("maglev");
            soak.reload()
        })
    }

    fn servers(&mut self) -> &mut Vec<Member> {
        &mut self.config.services[0].servers
    }

    fn reload(&self) -> Result<()> {
        self.steelyard.reload(&self.config)
    }

    fn step(&mut self, name: &str, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let started = Instant::now();
        change(self).with_context(|| format!("the step \"{name}\""))?;
        let asked = self.crowd.ask(self.active);
        // While no daemon runs there is nobody to say it.
        let status = self.steelyard.status().ok();
        let services = status.iter().flat_map(|status| &status.services);
        self.report.rows.push(Row {
            step: name.to_owned(),
            connections: self.crowd.connections(),
            broken: asked.broken,
            excused: asked.excused,
            datagrams_moved: asked.datagrams_moved,
            slots_unsettled: services.map(|service| service.slots_unsettled).sum(),
            flows: status.as_ref().map_or(0, |status| status.datapath.flows),
            seconds: started.elapsed().as_secs_f64(),
        });
        Ok(())
    }
}

fn is_up(status: &lb_user::pure::status::Status, name: &str) -> bool {
    server(status, "web", name).is_some_and(|server| server.health == "up" && server.slots > 0)
}

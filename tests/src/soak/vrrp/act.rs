//! What happens to the nodes, and how they are then.

use anyhow::Result;
use nix::sys::signal::Signal;

use super::{Plan, dice::Dice};
use crate::bed::{
    Pair, Steelyard,
    keepalived::Keepalived,
    vrrp::{Virtual, keepalived_config, steelyard_config},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Stop(usize),
    Kill(usize),
    Start(usize),
    /// With the configuration it has.
    Reload(usize),
    /// With other priorities.
    Change(usize),
    Cut(usize),
    Unplug(usize),
    /// Undoes the last two.
    Mend(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// Nothing gets through, and nobody is told.
    Cut,
    /// No carrier.
    Down,
}

/// All nodes of a pair.
pub(super) struct Cast<'a> {
    pair: &'a Pair,
    nodes: Vec<Node<'a>>,
    heartbeats: bool,
}

struct Node<'a> {
    daemon: Daemon<'a>,
    runs: bool,
    link: Link,
}

enum Daemon<'a> {
    Steelyard(Box<Steelyard<'a>>),
    Keepalived(Keepalived<'a>),
}

impl<'a> Cast<'a> {
    /// Keepalived, if there is one, on the last node.
    pub(super) fn start(pair: &'a Pair, plan: Plan, routers: &[Virtual]) -> Result<Cast<'a>> {
        let mut cast = Cast { pair, nodes: Vec::new(), heartbeats: plan.heartbeats };
        for node in 0..pair.nodes.len() {
            let daemon = match node < plan.nodes {
                true => Daemon::Steelyard(Box::new(pair.steelyard(node)?)),
                false => Daemon::Keepalived(Keepalived::new(pair, node, "")?),
            };
            cast.nodes.push(Node { daemon, runs: false, link: Link::Up });
        }
        for node in 0..pair.nodes.len() {
            cast.configure(node, routers)?;
            cast.nodes[node].start()?;
        }
        Ok(cast)
    }

    /// Whether its daemon runs, and what its link is like.
    pub(super) fn state(&self, node: usize) -> (bool, Link) {
        (self.nodes[node].runs, self.nodes[node].link)
    }

    pub(super) fn choose(&self, dice: &mut Dice) -> Act {
        let node = dice.roll(self.nodes.len() as u64) as usize;
        let mut acts = match self.nodes[node].runs {
            true => vec![Act::Stop(node), Act::Kill(node), Act::Reload(node), Act::Change(node)],
            // Twice, so that most daemons run.
            false => vec![Act::Start(node), Act::Start(node)],
        };
        acts.extend(match self.nodes[node].link {
            Link::Up => vec![Act::Cut(node), Act::Unplug(node)],
            Link::Cut | Link::Down => vec![Act::Mend(node); 3],
        });
        dice.pick(&acts).unwrap_or(Act::Reload(node))
    }

    pub(super) fn carry_out(&mut self, act: Act, routers: &mut [Virtual], dice: &mut Dice) -> Result<()> {
        match act {
            Act::Stop(node) => self.nodes[node].stop(),
            Act::Kill(node) => self.nodes[node].kill9(),
            Act::Start(node) => self.nodes[node].start(),
            Act::Reload(node) => self.nodes[node].reload(),
            Act::Change(node) => {
                for router in routers.iter_mut() {
                    router.priorities[node] = 1 + dice.roll(254) as u8;
                }
                self.configure(node, routers)?;
                self.nodes[node].reload()
            }
            Act::Cut(node) => {
                self.nodes[node].link = Link::Cut;
                self.pair.cut(node)
            }
            Act::Unplug(node) => {
                self.nodes[node].link = Link::Down;
                self.pair.unplug(node)
            }
            Act::Mend(node) => {
                match std::mem::replace(&mut self.nodes[node].link, Link::Up) {
                    Link::Up => {}
                    Link::Cut => self.pair.mend(node)?,
                    Link::Down => self.pair.plug_in(node)?,
                }
                Ok(())
            }
        }
    }

    /// Whether the daemons' logs are worth showing.
    pub(super) fn quiet(&mut self, quiet: bool) {
        for node in &mut self.nodes {
            match &mut node.daemon {
                Daemon::Steelyard(steelyard) => steelyard.show_log = !quiet,
                Daemon::Keepalived(keepalived) if !quiet => eprintln!("{}", keepalived.log()),
                Daemon::Keepalived(_) => {}
            }
        }
    }

    fn configure(&self, node: usize, routers: &[Virtual]) -> Result<()> {
        match &self.nodes[node].daemon {
            Daemon::Steelyard(steelyard) => {
                let ours = |other: &usize| {
                    *other != node && matches!(self.nodes[*other].daemon, Daemon::Steelyard(_))
                };
                let peers: Vec<usize> =
                    (0..self.nodes.len()).filter(|other| self.heartbeats && ours(other)).collect();
                steelyard.write_config(&steelyard_config(self.pair, steelyard, node, &peers, routers))
            }
            Daemon::Keepalived(keepalived) => {
                keepalived.configure(&keepalived_config(self.pair, node, routers))
            }
        }
    }
}

impl Node<'_> {
    fn start(&mut self) -> Result<()> {
        self.runs = true;
        match &mut self.daemon {
            Daemon::Steelyard(steelyard) => steelyard.start(),
            Daemon::Keepalived(keepalived) => keepalived.start(),
        }
    }

    fn stop(&mut self) -> Result<()> {
        self.runs = false;
        match &mut self.daemon {
            Daemon::Steelyard(steelyard) => steelyard.terminate().map(drop),
            Daemon::Keepalived(keepalived) => keepalived.stop(),
        }
    }

    fn kill9(&mut self) -> Result<()> {
        self.runs = false;
        match &mut self.daemon {
            Daemon::Steelyard(steelyard) => steelyard.kill9(),
            Daemon::Keepalived(keepalived) => keepalived.kill9(),
        }
    }

    fn reload(&self) -> Result<()> {
        match &self.daemon {
            Daemon::Steelyard(steelyard) => steelyard.signal(Signal::SIGHUP),
            Daemon::Keepalived(keepalived) => keepalived.reload(),
        }
    }
}

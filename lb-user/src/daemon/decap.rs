//! `steelyard decap`: the program on a server's interfaces, from a good start until a signal.

use std::{collections::BTreeSet, future, net::IpAddr};

use lb_common::decap::VIPS_MAX;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{info, warn};

use super::{
    interfaces::target,
    start::{RunError, require_privileges},
};
use crate::{
    io::{
        decap::{FactsError, facts},
        kernel::{Decap, DecapAttachError, LoadError, Target},
        net::{
            Interface, Net, NetError,
            follow::{LinkState, NetEvent, Watched, follow},
        },
    },
    pure::{
        config::model::XdpMode,
        decap::{Finding, Wanted, findings},
        status::Counters,
    },
};

pub struct Options {
    pub interfaces: BTreeSet<String>,
    pub vips: BTreeSet<IpAddr>,
    pub mode: XdpMode,
}

#[derive(Debug, thiserror::Error)]
pub enum DecapError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("no interface `{name}`; this machine has {}: correct --interface", existing.join(", "))]
    NoInterface { name: String, existing: Vec<String> },
    #[error(transparent)]
    Net(NetError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Attach(#[from] DecapAttachError),
    #[error(transparent)]
    Facts(#[from] FactsError),
    #[error("interface {name} is gone, and the program with it: start decap again when it is back")]
    Gone { name: String },
    #[error("{0} addresses of one family, at most {VIPS_MAX} are possible: leave some --vip out")]
    TooMany(usize),
}

/// Opens packets until SIGINT or SIGTERM; returns what was counted.
pub fn run(options: &Options) -> Result<Counters, DecapError> {
    enough_room(&options.vips)?;
    require_privileges()?;
    runtime()?.block_on(serve(options))
}

/// What this server lacks, and what it has; attaches nothing.
pub fn check(interfaces: &BTreeSet<String>, wanted: &Wanted) -> Result<Vec<Finding>, DecapError> {
    enough_room(&wanted.vips)?;
    let found = runtime()?.block_on(find(interfaces))?;
    let mtus = found.into_iter().map(|interface| (interface.name, interface.mtu));
    Ok(findings(&facts(mtus)?, wanted))
}

async fn serve(options: &Options) -> Result<Counters, DecapError> {
    let taking = |source| RunError::System { what: "taking signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(taking)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(taking)?;
    let targets: Vec<_> = find(&options.interfaces).await?.iter().map(target).collect();
    targets.iter().try_for_each(Decap::inspect)?;
    let vips: Vec<_> = options.vips.iter().copied().collect();
    let mut decap = Decap::load(&vips)?;
    for target in &targets {
        attach(&mut decap, target, options.mode)?;
    }
    let names: Vec<_> = vips.iter().map(IpAddr::to_string).collect();
    info!("ready: opening ipip and gue for {}", names.join(", "));
    let gone = select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        name = gone(&targets) => Some(name),
    };
    decap.detach();
    if let Some(name) = gone {
        return Err(DecapError::Gone { name });
    }
    info!("stopped and detached");
    Ok(decap.counters().map_err(LoadError::from)?)
}

fn attach(decap: &mut Decap, target: &Target, mode: XdpMode) -> Result<(), DecapAttachError> {
    let attached = decap.attach(target, mode)?;
    let name = &target.name;
    info!("attached to interface {name} ({} mode)", attached.mode.name());
    if let Some(cause) = attached.fallback {
        warn!(
            "interface {name} runs xdp in generic mode, several times slower than native: {cause}; \
             see `ethtool -i {name}` for its driver, or give --mode generic to accept it"
        );
    }
    Ok(())
}

/// The name of an interface, as soon as it was removed or replaced: the program went with it.
async fn gone(targets: &[Target]) -> String {
    let interfaces = targets.iter().map(|target| target.name.clone()).collect();
    let (_wanted, watched) = watch::channel(Watched { interfaces, ..Watched::default() });
    let (sender, mut events) = mpsc::channel(EVENTS);
    let lost = async {
        while let Some(event) = events.recv().await {
            let NetEvent::Link(link) = event else { continue };
            let index = match link.state {
                LinkState::Up { index } | LinkState::Down { index } => Some(index),
                LinkState::Absent => None,
            };
            let known = targets.iter().find(|target| target.name == link.name);
            if known.is_some_and(|target| index != Some(target.index)) {
                return link.name;
            }
        }
        future::pending().await
    };
    select! {
        name = lost => name,
        // It ends only when one of the channels does.
        () = follow(watched, sender) => future::pending().await,
    }
}

/// The follower waits while so many are not taken.
const EVENTS: usize = 16;

async fn find(names: &BTreeSet<String>) -> Result<Vec<Interface>, DecapError> {
    let net = Net::new().map_err(DecapError::Net)?;
    let mut found = Vec::new();
    for name in names {
        found.push(net.interface(name).await.map_err(|error| match error {
            NetError::NoInterface { name, existing } => DecapError::NoInterface { name, existing },
            error => DecapError::Net(error),
        })?);
    }
    Ok(found)
}

fn enough_room(vips: &BTreeSet<IpAddr>) -> Result<(), DecapError> {
    let v4 = vips.iter().filter(|vip| vip.is_ipv4()).count();
    match v4.max(vips.len() - v4) {
        most if most > VIPS_MAX as usize => Err(DecapError::TooMany(most)),
        _ => Ok(()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| RunError::System { what: "starting the runtime", source })
}

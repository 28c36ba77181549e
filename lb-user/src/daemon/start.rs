//! Start and stop, in order: nothing is attached before everything else is known to work, and what a failed
//! start has made is taken back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::timeout_at,
};
use tracing::{info, warn};

use super::{
    answers::{Situation, Sources, answers},
    checks,
    control::{Control, INBOX},
};
use crate::{
    io::{
        admin::server::{self, BindError},
        file::{self, FileError},
        kernel::{AttachError, Kernel, LoadError, Pins, PinsError, Sizes},
        net::{
            Interface, Net, NetError,
            follow::{NetEvent, follow},
        },
    },
    pure::{
        config::model::{Config, Secret},
        hop::Reach,
        place::{self, PlaceError},
        state::{Event, Start, State},
    },
};

pub struct Options {
    pub config: Config,
    /// Take XDP and the pinned state away when the daemon stops.
    pub detach: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(
        "may not load bpf programs or change interfaces: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Privileges,
    #[error("{what} failed: {source}; see the system's limits")]
    System { what: &'static str, source: std::io::Error },
}

/// How long the first look at routes and neighbours may take before forwarding begins without it.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Runs until a signal says stop.
pub fn run(options: Options) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| RunError::System { what: "starting the runtime", source })?;
    runtime.block_on(serve(options))
}

async fn serve(options: Options) -> Result<(), RunError> {
    require_privileges()?;
    let mut signals = Signals::new().map_err(|source| RunError::System { what: "taking signals", source })?;
    let secret = secret(&options.config.cluster.secret)?;
    let pins = Pins::open(&options.config.datapath.pin)?;
    let mut daemon = match Daemon::build(options.config, &secret, pins).await {
        Ok(daemon) => daemon,
        Err((error, pins)) => {
            if let Some(pins) = pins {
                // The first error is the one to report.
                let _ = pins.remove_unused();
            }
            return Err(error);
        }
    };
    info!("ready");
    daemon.run(&mut signals).await;
    daemon.stop(options.detach)
}

/// A daemon that is ready: attached, first plan applied.
struct Daemon {
    control: Control,
    events: mpsc::Receiver<Event>,
    net_events: mpsc::Receiver<NetEvent>,
    inbox: mpsc::Sender<Event>,
    /// Kept: the follower ends when it is dropped.
    targets: watch::Sender<BTreeSet<std::net::Ipv4Addr>>,
    follower: tokio::task::JoinHandle<()>,
    admin: tokio::task::JoinHandle<std::io::Result<()>>,
    socket: PathBuf,
}

impl Daemon {
    /// The pins come back with an error, for the caller to take away what nothing uses.
    async fn build(config: Config, secret: &[u8], pins: Pins) -> Result<Self, (RunError, Option<Pins>)> {
        let early = async {
            let net = Net::new()?;
            let interfaces = interfaces(&net, &config).await?;
            let listener = server::bind(&config.global.admin_socket)?;
            Ok::<_, RunError>((net, interfaces, listener))
        };
        let (net, interfaces, listener) = match early.await {
            Ok(parts) => parts,
            Err(error) => return Err((error, Some(pins))),
        };
        let socket = config.global.admin_socket.clone();
        let built = Self::assemble(config, secret, pins, (net, interfaces, listener)).await;
        if built.is_err() {
            remove_socket(&socket);
        }
        built
    }

    async fn assemble(
        config: Config,
        secret: &[u8],
        pins: Pins,
        (net, interfaces, listener): (Net, Vec<Interface>, tokio::net::UnixListener),
    ) -> Result<Self, (RunError, Option<Pins>)> {
        let sizes = Sizes { flows: config.datapath.flows, ring_slots: place::ring_slots(&config) };
        let (kernel, reader, flows) = load(pins, sizes).map_err(|(error, pins)| (error.into(), pins))?;
        let mode = config.datapath.mode;
        let socket = config.global.admin_socket.clone();
        let node = config.global.node.clone().unwrap_or_else(host_name);
        let names: BTreeSet<_> = config.datapath.interfaces.iter().cloned().collect();
        let start = Start { config, secret, pinned: kernel.tables(), ring_slots: kernel.ring_slots() };
        let state = match State::new(start) {
            Ok(state) => state,
            Err(error) => return Err((error.into(), Some(kernel.into_pins()))),
        };
        let (targets, watched) = watch::channel(state.targets());
        let (net_sender, mut net_events) = mpsc::channel(INBOX);
        let follower = tokio::spawn(follow(watched, names, net_sender));
        let (inbox, events) = mpsc::channel(INBOX);
        let situation = Arc::new(Mutex::new(Situation::default()));
        let (publisher, snapshot) = watch::channel(Arc::new(state.snapshot()));
        let mut control = Control {
            kernel,
            flows,
            state,
            net,
            mode,
            situation: Arc::clone(&situation),
            snapshot: publisher,
            failure: None,
        };
        control.first_look(&mut net_events, Instant::now() + FIRST_LOOK).await;
        if let Err(error) = attach_all(&mut control, &interfaces) {
            return Err((error.into(), Some(control.kernel.into_pins())));
        }
        let sources = Sources { node, started: Instant::now(), reader, snapshot, situation };
        let admin = tokio::spawn(server::serve(listener, answers(sources)));
        Ok(Daemon { control, events, net_events, inbox, targets, follower, admin, socket })
    }

    async fn run(&mut self, signals: &mut Signals) {
        let checks = self.control.state.checks();
        let checking = tokio::spawn(checks::run(checks, self.inbox.clone()));
        select! {
            () = self.control.run(&mut self.events, &mut self.net_events) => {}
            () = signals.stop() => info!("stopping"),
        }
        checking.abort();
    }

    /// Forwarding goes on by the pinned state, unless it is to be detached.
    fn stop(self, detach: bool) -> Result<(), RunError> {
        self.follower.abort();
        self.admin.abort();
        drop(self.targets);
        remove_socket(&self.socket);
        let pins = self.control.kernel.into_pins();
        if detach {
            pins.remove()?;
            info!("stopped and detached");
        } else {
            info!("stopped; forwarding goes on, `steelyard detach` ends it");
        }
        Ok(())
    }
}

impl Control {
    /// Waits until every target has been looked up once, then applies the first plan.
    async fn first_look(&mut self, net_events: &mut mpsc::Receiver<NetEvent>, deadline: Instant) {
        let mut missing = self.state.targets();
        while !missing.is_empty() {
            match timeout_at(deadline.into(), net_events.recv()).await {
                Ok(Some(NetEvent::Hop(hop))) => {
                    if is_answered(&hop.reach) {
                        missing.remove(&hop.address);
                    }
                    self.handle(Event::Reached { address: hop.address, reach: hop.reach });
                }
                Ok(Some(NetEvent::Link(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        for address in missing {
            warn!("{} does not answer arp yet", self.state.servers_at(address));
        }
        self.settle();
    }
}

/// A neighbour that is being asked for may still answer.
fn is_answered(reach: &Reach) -> bool {
    match reach {
        Reach::Hop(hop) => hop.neighbour.is_some(),
        _ => true,
    }
}

/// Attaches everywhere or, as far as the links are new, nowhere.
fn attach_all(control: &mut Control, interfaces: &[Interface]) -> Result<(), AttachError> {
    let mut fresh = Vec::new();
    for interface in interfaces {
        match control.attach(interface) {
            Ok(true) => fresh.push(interface.name.clone()),
            Ok(false) => {}
            Err(error) => {
                for name in fresh {
                    control.kernel.pins.unlink(&name);
                }
                return Err(error);
            }
        }
    }
    control.settle();
    Ok(())
}

type Loaded = (Kernel, crate::io::kernel::Reader, crate::io::kernel::Flows);

fn load(pins: Pins, sizes: Sizes) -> Result<Loaded, (LoadError, Option<Pins>)> {
    let kernel = Kernel::load(pins, sizes).map_err(|error| (error, None))?;
    match kernel.reader().and_then(|reader| Ok((reader, kernel.flows()?))) {
        Ok((reader, flows)) => Ok((kernel, reader, flows)),
        Err(error) => Err((error, Some(kernel.into_pins()))),
    }
}

async fn interfaces(net: &Net, config: &Config) -> Result<Vec<Interface>, NetError> {
    let mut found = Vec::new();
    for name in &config.datapath.interfaces {
        found.push(net.interface(name).await?);
    }
    Ok(found)
}

fn secret(secret: &Secret) -> Result<Vec<u8>, FileError> {
    match secret {
        Secret::Unset => Ok(Vec::new()),
        Secret::Inline(text) => Ok(text.clone().into_bytes()),
        Secret::File(path) => file::secret(path),
    }
}

/// An early and plain answer; capabilities that are partly there show when they are used.
fn require_privileges() -> Result<(), RunError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) if mask & CAP_NET_ADMIN == 0 => Err(RunError::Privileges),
        _ => Ok(()),
    }
}

const CAP_NET_ADMIN: u64 = 1 << 12;

fn host_name() -> String {
    let name = nix::unistd::gethostname();
    name.map_or_else(|_| "unnamed".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn remove_socket(path: &Path) {
    // Gone already when somebody else removed it.
    let _ = std::fs::remove_file(path);
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Ends when the daemon should.
    async fn stop(&mut self) {
        loop {
            select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => not_reloaded("SIGHUP"),
                _ = self.user2.recv() => not_reloaded("SIGUSR2"),
                // The daemon logs to stderr, which has nothing to reopen.
                _ = self.user1.recv() => {}
            }
        }
    }
}

fn not_reloaded(signal: &str) {
    warn!("{signal}: reload is not built yet; restart instead, forwarding goes on meanwhile");
}

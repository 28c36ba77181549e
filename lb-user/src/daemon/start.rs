//! Start and stop, in order: nothing is attached before everything else is known to work, and what a failed
//! start has made is taken back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{Fuse, FusedFuture, join},
};
use lb_common::limits::{NAT_PORT_FIRST, NAT_PORT_LAST};
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
    control::{Control, INBOX, Inbox, PLAN_PAUSE_MIN},
    interfaces::target,
    keeper::{self, Keeper},
    notices::Notices,
    orders::{self, Limits, Loaded, ORDERS, Order, Orderer, Settings},
    replica::{self, Peers, Sessions},
    through::Steers,
    vrrp::{self, Routers, ThreadError},
};
use crate::{
    io::{
        admin::server::{self, BindError, SocketFile},
        file::{self, FileError, Held, Inputs},
        host,
        kernel::{AttachError, Kernel, LoadError, Pins, PinsError, Sizes, ThroughError, now},
        net::{
            Interface, Net, NetError,
            follow::{NetEvent, Watched, follow},
        },
    },
    pure::{
        config::model::Config,
        hop::Reach,
        lint,
        notice::Notice,
        place::{self, PlaceError},
        state::{CheckTask, Event, Start, State},
    },
};

pub struct Options {
    /// As it stands in the files of `inputs`, which a reload reads again.
    pub config: Config,
    pub inputs: Inputs,
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
    #[error(transparent)]
    Through(#[from] ThroughError),
    #[error(transparent)]
    Vrrp(#[from] vrrp::StartError),
    #[error("the thread of the virtual routers ended: {0}; start again, and report it if it comes back")]
    Routers(#[source] ThreadError),
    #[error(
        "may not load bpf programs or change interfaces: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    Privileges,
    #[error(
        "the task for {0} ended by itself, a fault of steelyard: report it with the log, and start again"
    )]
    Task(&'static str),
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
    let loaded = Loaded {
        secret: orders::secret(&options.config.cluster.secret)?,
        config: options.config.clone(),
        warnings: Vec::new(),
    };
    let pin = options.config.datapath.pin.clone();
    let pins = Pins::open(&pin)?;
    let built = select! {
        built = Daemon::build(loaded, options.inputs, pins) => built.map(Some),
        // Nothing is attached before the last await of the build.
        () = signals.stop() => Ok(None),
    };
    match built {
        Ok(Some(mut daemon)) => {
            let detail = concat!("steelyard ", env!("CARGO_PKG_VERSION")).to_owned();
            daemon.control.notices.tell(&Notice::Started { detail });
            let ended = daemon.run(&mut signals).await;
            daemon.stop(options.detach, &mut signals).await.and(ended)
        }
        Ok(None) => {
            Pins::open(&pin)?.remove_unused()?;
            info!("stopped before anything was attached");
            Ok(())
        }
        Err(error) => {
            // The first error is the one to report.
            let _ = Pins::open(&pin).and_then(Pins::remove_unused);
            Err(error)
        }
    }
}

/// A daemon that is ready: attached, first plan applied.
struct Daemon {
    control: Control,
    net_events: mpsc::Receiver<NetEvent>,
    orders: mpsc::Receiver<Order>,
    /// For orders that signals give.
    orderer: Orderer,
    tasks: watch::Receiver<Arc<Vec<CheckTask>>>,
    /// Of the nodes beside this one.
    cluster: watch::Receiver<replica::Cluster>,
    follower: tokio::task::JoinHandle<()>,
    admin: tokio::task::JoinHandle<std::io::Result<()>>,
    keeper: tokio::task::JoinHandle<()>,
    routers: Routers,
    /// Removed when the daemon ends.
    _socket: SocketFile,
    _state: Option<Held>,
}

impl Daemon {
    async fn build(loaded: Loaded, inputs: Inputs, pins: Pins) -> Result<Self, RunError> {
        let Loaded { config: file, secret, .. } = loaded;
        let Parts { net, interfaces, absent, listener, socket } = Parts::new(&file).await?;
        let state_directory = match file::hold(&file.global.state) {
            Ok(held) => Some(held),
            Err(error @ FileError::Held(_)) => return Err(error.into()),
            // Where nothing can be kept, the first change says so.
            Err(_) => None,
        };
        let kept = keeper::path(&file.global.state);
        let (mut overlay, damage) = keeper::load(&kept);
        for pruned in overlay.prune(&file) {
            warn!("{pruned}");
        }
        let config = overlay.apply(&file);
        let sizes = Sizes { flows: config.datapath.flows, ring_slots: place::ring_slots(&config) };
        #[cfg_attr(not(feature = "xdp-log"), expect(unused_mut, reason = "the logger takes a map"))]
        let mut kernel = Kernel::load(pins, sizes)?;
        #[cfg(feature = "xdp-log")]
        tokio::spawn(kernel.print_log()?);
        let reader = kernel.reader()?;
        let mode = config.datapath.mode;
        for interface in &interfaces {
            kernel.inspect(&target(interface), mode)?;
        }
        let warnings = warnings(&net, &config).await;
        let node = config.global.node.clone().unwrap_or_else(host_name);
        let mut state = State::new(Start {
            config,
            secret: &secret,
            pinned: kernel.tables(),
            ring_slots: kernel.ring_slots(),
            flows_max: kernel.flows_max(),
            now: Instant::now(),
        })?;
        // What a watchdog has let pass since the last daemon died is forwarded again from here on.
        kernel.beat(state.patience());
        for breaks in state.breaks() {
            warn!("{breaks}");
        }
        let memory = kernel.memory();
        state.advance(now(), |service| memory.refused_at(service));
        // Before the first plan: replies of flows that go on leave through these interfaces.
        for interface in &interfaces {
            state.attach(interface.index);
        }
        let changes = overlay.differences(&file);
        let situation = Arc::new(Mutex::new(Situation { changes, ..Situation::default() }));
        let (saver, keeper) = Keeper::start(kept, Arc::clone(&situation));
        let (wanted, watched) = watch::channel(Watched::default());
        let (net_sender, mut net_events) = mpsc::channel(INBOX);
        let follower = tokio::spawn(follow(watched, net_sender));
        let notices = Notices::start(&node, file.notify.clone(), &situation);
        let stream = notices.stream();
        let (publisher, snapshot) = watch::channel(Arc::new(state.snapshot()));
        let (checks, tasks) = watch::channel(Arc::new(state.checks()));
        let (cluster_sender, cluster) = watch::channel(replica::Cluster::default());
        let (routers, desk) = Routers::start(&file.vrrp, &situation)?;
        let mut control = Control {
            kernel,
            state,
            net,
            mode,
            situation: Arc::clone(&situation),
            notices,
            snapshot: publisher,
            settings: Settings { file, secret, overlay, keeper: saver },
            tasks: checks,
            wanted,
            warned: BTreeSet::new(),
            unattached: absent,
            orders: Arc::default(),
            pause: PLAN_PAUSE_MIN,
            steers: Steers::default(),
            rooms: BTreeMap::new(),
            sessions: Sessions::default(),
            peers: Peers::default(),
            cluster: cluster_sender,
            vrrp: desk,
        };
        control.wanted.send_replace(control.wanted_now());
        control.look_around(warnings);
        control.trouble(keeper::ABOUT, damage);
        control.look_for_sources().await?;
        control.first_look(&mut net_events, Instant::now() + FIRST_LOOK).await;
        control.steer()?;
        control.kernel.attaching()?;
        if let Err(error) = attach_all(&mut control, &interfaces) {
            control.kernel.not_attached();
            return Err(error.into());
        }
        control.kernel.attached()?;
        control.configure_vrrp();
        let (sender, orders) = mpsc::channel(ORDERS);
        let orderer = Orderer { orders: sender, inputs };
        let sources = Sources {
            node,
            started: Instant::now(),
            reader,
            snapshot,
            situation,
            stream,
            orderer: orderer.clone(),
            dry: Mutex::default(),
            listing: Mutex::default(),
            vrrp: control.vrrp.handle.clone(),
        };
        let admin = tokio::spawn(server::serve(listener, answers(sources)));
        Ok(Daemon {
            control,
            net_events,
            orders,
            orderer,
            tasks,
            cluster,
            follower,
            admin,
            keeper,
            routers,
            _socket: socket,
            _state: state_directory,
        })
    }

    /// Until a signal says stop. A task that ends by itself is a fault: better a restart than half a daemon.
    async fn run(&mut self, signals: &mut Signals) -> Result<(), RunError> {
        let (inbox, mut events) = mpsc::channel(INBOX);
        let mailbox = Arc::clone(&self.control.orders);
        let mut checking = tokio::spawn(checks::run(self.tasks.clone(), mailbox, inbox));
        let (joining, mut joined) = mpsc::channel(replica::JOINED);
        let (hearing, mut heard) = mpsc::channel(replica::HEARD);
        let mut replicating = tokio::spawn(replica::run(self.cluster.clone(), joining, hearing));
        let Routers { happenings, ended, .. } = &mut self.routers;
        let control = self.control.run(Inbox {
            events: &mut events,
            net_events: &mut self.net_events,
            orders: &mut self.orders,
            happenings,
            joined: &mut joined,
            heard: &mut heard,
        });
        let mut control = std::pin::pin!(control);
        // One reload by signal at a time; those that come meanwhile are one more.
        let mut reload = Fuse::terminated();
        let mut again = false;
        let task = loop {
            select! {
                wish = signals.next() => match wish {
                    Wish::Stop => {
                        checking.abort();
                        replicating.abort();
                        return Ok(());
                    }
                    Wish::Reload => again = true,
                },
                // Whoever sent the signal is answered by a notice.
                _ = &mut reload => {}
                () = &mut control => break "control",
                _ = &mut checking => break "health checks",
                _ = &mut replicating => break "replication",
                _ = &mut self.follower => break "netlink",
                _ = &mut self.admin => break "admin socket",
                _ = &mut self.keeper => break "keeper",
                ended = &mut *ended => match ended {
                    Ok(Err(error)) => {
                        checking.abort();
                        return Err(RunError::Routers(error));
                    }
                    // It never ends by itself, and tells nothing when it panicked.
                    Ok(Ok(())) | Err(_) => break "virtual routers",
                },
            }
            if again && reload.is_terminated() {
                again = false;
                reload = self.orderer.reload(Limits::default()).boxed().fuse();
            }
        };
        checking.abort();
        replicating.abort();
        Err(RunError::Task(task))
    }

    /// Forwarding goes on by the pinned state, unless it is to be detached.
    async fn stop(mut self, detach: bool, signals: &mut Signals) -> Result<(), RunError> {
        self.control.notices.tell(&Notice::Stopping);
        // Others take over while the rest ends here.
        let stopped = select! {
            () = self.routers.stop(|happening| self.control.happened(happening)) => true,
            // A second signal stops now.
            () = signals.stop() => false,
        };
        if stopped {
            let last_words = join(self.control.notices.close(), self.control.vrrp.close());
            select! {
                _ = last_words => {}
                () = signals.stop() => {}
            }
        }
        self.follower.abort();
        self.admin.abort();
        self.keeper.abort();
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
            self.kernel.beat(self.state.patience());
            match timeout_at(deadline.into(), net_events.recv()).await {
                Ok(Some(NetEvent::Hop(hop))) => {
                    if is_answered(&hop.reach) {
                        missing.remove(&hop.address);
                    }
                    self.handle_all([Event::Reached { address: hop.address, reach: hop.reach }].into_iter());
                }
                Ok(Some(NetEvent::Link(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let silent: Vec<_> =
            missing.iter().take(SILENT_SHOWN).map(|&address| self.state.servers_at(address)).collect();
        if !silent.is_empty() {
            let more = missing.len() - silent.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warn!("no answer to arp or neighbour discovery yet from {}{more}", silent.join(", "));
        }
        self.settle();
    }
}

const SILENT_SHOWN: usize = 5;

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
    leave_others(control, interfaces);
    Ok(())
}

/// Interfaces that are no longer configured lose the program an earlier daemon attached.
fn leave_others(control: &Control, interfaces: &[Interface]) {
    for name in control.kernel.pins.linked().unwrap_or_default() {
        let configured = interfaces.iter().any(|interface| interface.name == name);
        if !configured && !control.unattached.contains(&name) {
            control.kernel.pins.unlink(&name);
            info!("detached from interface {name}, which is no longer configured");
        }
    }
}

/// What can be had without touching the kernel's tables.
struct Parts {
    net: Net,
    interfaces: Vec<Interface>,
    /// Those that are not there yet.
    absent: BTreeSet<String>,
    listener: tokio::net::UnixListener,
    socket: SocketFile,
}

impl Parts {
    async fn new(config: &Config) -> Result<Self, RunError> {
        let net = Net::new()?;
        let (interfaces, absent) = interfaces(&net, &config.datapath.interfaces).await?;
        let (listener, socket) = server::bind(&config.global.admin_socket)?;
        Ok(Parts { net, interfaces, absent, listener, socket })
    }
}

/// Those that are there, and the names of those that are not. An error when there is none at all: a name mistyped
/// rather than an interface that is late.
async fn interfaces(net: &Net, names: &[String]) -> Result<(Vec<Interface>, BTreeSet<String>), NetError> {
    let (mut found, mut absent, mut first) = (Vec::new(), BTreeSet::new(), None);
    for name in names {
        match net.interface(name).await {
            Ok(interface) => found.push(interface),
            Err(error @ NetError::NoInterface { .. }) => {
                absent.insert(name.clone());
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first {
        Some(error) if found.is_empty() => Err(error),
        Some(error) => {
            warn!("{error}; it is attached to as soon as it appears");
            Ok((found, absent))
        }
        None => Ok((found, absent)),
    }
}

/// What is likely to go wrong later, by what it is about.
pub(super) async fn warnings(net: &Net, config: &Config) -> BTreeMap<String, String> {
    let mut warnings = BTreeMap::new();
    for &source in &config.datapath.nat_source {
        // It is here while a virtual router has it here, and is not missed elsewhere.
        if config.vrrp.moves(source) {
            continue;
        }
        if !matches!(net.resolve(source).await, Ok(Reach::Local)) {
            let text = format!(
                "nat_source {source} is not an address of this machine: replies come back only if it is routed here"
            );
            warnings.insert(format!("nat_source {source}"), text);
        }
    }
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    if first.is_some_and(|first: u16| first <= NAT_PORT_LAST) {
        let text = format!(
            "the host's ephemeral ports ({}) overlap those of nat ({NAT_PORT_FIRST}-{NAT_PORT_LAST}): \
             set net.ipv4.ip_local_port_range to begin at {}",
            range.split_whitespace().collect::<Vec<_>>().join("-"),
            NAT_PORT_LAST + 1
        );
        warnings.insert("ephemeral ports".to_owned(), text);
    }
    let of_routers = host::interfaces().map(|here| lint::host(&config.vrrp, &config.cluster, &here));
    // Where the host tells nothing there is nothing to compare with.
    warnings.extend(of_routers.unwrap_or_default().into_iter().map(|text| (text.clone(), text)));
    warnings
}

/// An early and plain answer; capabilities that are partly there show when they are used.
pub(super) fn require_privileges() -> Result<(), RunError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) if mask & CAP_NET_ADMIN == 0 => Err(RunError::Privileges),
        _ => Ok(()),
    }
}

const CAP_NET_ADMIN: u64 = 1 << 12;

pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname();
    name.map_or_else(|_| "unnamed".to_owned(), |name| name.to_string_lossy().into_owned())
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

    /// What the next signal that means something asks for.
    async fn next(&mut self) -> Wish {
        loop {
            select! {
                _ = self.terminate.recv() => return Wish::Stop,
                _ = self.interrupt.recv() => return Wish::Stop,
                _ = self.hangup.recv() => return Wish::Reload,
                _ = self.user2.recv() => return Wish::Reload,
                // The daemon logs to stderr, which has nothing to reopen.
                _ = self.user1.recv() => {}
            }
        }
    }

    /// Ends when the daemon should; until it runs there is nothing to reload.
    async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stop,
    Reload,
}

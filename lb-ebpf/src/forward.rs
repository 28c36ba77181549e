//! The order of the steps, and every way out.
//!
//! ```text
//!          plain packets of dsr, ipip, gue
//! entry ───────────────────────────────────► out
//!   ├─► any ── tags, options, fragments, wildcards, access
//!   │    ├─► icmp ── echo, errors about flows ──► out
//!   ├────┼─► choose ── new records, schedulers, tags ──► out
//!   │    │     ▲ └─► open ── pairs of records ─► nat
//!   ├────┼─► nat ── requests of recorded flows ──► out
//!   ├────┴─► reply ──► out
//!   └─► (all) ─► answer ── RST, ICMP errors ──► out
//! ```
//!
//! A stage is a program of its own in the kernel, reached by a tail call: what most packets need stays small, and
//! the verifier follows each alone. What a stage learned waits in `Held` for the next.

use lb_common::{
    counter::{COUNTS, Counter},
    entry::{Globals, Mode, Scheduler, Service},
    net::{Family, TCP, UDP, V4, V6},
    stage::Stage,
};

use crate::{
    answer, clamp,
    decide::{self, Choice, Refusal, Request},
    direct::{self, Detour, Path},
    fragment,
    header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_QINQ, ETHERTYPE_VLAN, Ethernet, Ports},
    icmp,
    ip::{Ip, Part},
    nat,
    parse::{self, Parsed, Unfit},
    tables::{FamilyTables, Packet, Tables, find_rule, find_service},
};

/// What becomes of a packet, and the counter that names the reason: one word, since the kernel half passes
/// it through every branch of the program.
///
/// ```text
///  63..32              10..8   5..0
///  interface or stage  action  counter
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Outcome(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To the kernel, untouched.
    Pass,
    Drop,
    /// Out of the interface it came in by.
    Transmit,
    /// Out of another interface, given by its index.
    Redirect(u32),
    /// No way out: the stage with this number says.
    Next(u32),
}

impl Outcome {
    #[inline(always)]
    pub const fn pass(counter: Counter) -> Self {
        Outcome(counter as u64)
    }

    #[inline(always)]
    pub const fn drop(counter: Counter) -> Self {
        Outcome(counter as u64 | 1 << ACTION_SHIFT)
    }

    #[inline(always)]
    pub const fn transmit(counter: Counter) -> Self {
        Outcome(counter as u64 | 2 << ACTION_SHIFT)
    }

    #[inline(always)]
    pub const fn redirect(counter: Counter, interface: u32) -> Self {
        Outcome(counter as u64 | 3 << ACTION_SHIFT | (interface as u64) << 32)
    }

    /// The counter is for a stage that is not there.
    #[inline(always)]
    pub const fn next(stage: Stage) -> Self {
        Outcome(Counter::DropTables as u64 | 4 << ACTION_SHIFT | (stage as u64) << 32)
    }

    #[inline(always)]
    pub const fn action(self) -> Action {
        let high = (self.0 >> 32) as u32;
        match self.0 >> ACTION_SHIFT & 7 {
            0 => Action::Pass,
            1 => Action::Drop,
            2 => Action::Transmit,
            3 => Action::Redirect(high),
            _ => Action::Next(high),
        }
    }

    /// Index of the counter, within `COUNTS` by its bits.
    #[inline(always)]
    pub const fn counter(self) -> usize {
        self.0 as usize & (COUNTS - 1)
    }
}

impl core::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = Counter::ALL.get(self.counter()).map_or("?", |counter| counter.name());
        write!(f, "{:?} {name}", self.action())
    }
}

const ACTION_SHIFT: u32 = 8;

/// What one stage leaves for the next.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Held<F: Family> {
    pub(crate) parsed: Parsed<F>,
    pub(crate) service: Service,
    pub task: Task,
}

/// What the next stage is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Task {
    pub(crate) kind: Kind,
    /// The server of `Open`; whether the packet made the record of `Opened`; the MTU of `TooBig`.
    pub(crate) value: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// A client's packet for a service.
    Request,
    /// The same, of a flow that is to be recorded.
    Open,
    /// The same, of a flow that was just recorded.
    Opened,
    /// Perhaps a server's answer.
    Reply,
    /// An ICMP message.
    Icmp,
    NoServer,
    NoFlow,
    TooBig,
    Expired,
}

impl Task {
    #[inline(always)]
    pub(crate) const fn of(kind: Kind) -> Self {
        Task { kind, value: 0 }
    }

    #[inline(always)]
    pub(crate) const fn too_big(mtu: u32) -> Self {
        Task { kind: Kind::TooBig, value: mtu }
    }
}

/// The stages of an IP version.
pub(crate) trait Stages: Ip {
    const ANY: Stage;
    const CHOOSE: Stage;
    const NAT: Stage;
    const OPEN: Stage;
    const REPLY: Stage;
    const ICMP_STAGE: Stage;
    const ANSWER: Stage;
}

impl Stages for V4 {
    const ANY: Stage = Stage::Any4;
    const CHOOSE: Stage = Stage::Choose4;
    const NAT: Stage = Stage::Nat4;
    const OPEN: Stage = Stage::Open4;
    const REPLY: Stage = Stage::Reply4;
    const ICMP_STAGE: Stage = Stage::Icmp4;
    const ANSWER: Stage = Stage::Answer4;
}

impl Stages for V6 {
    const ANY: Stage = Stage::Any6;
    const CHOOSE: Stage = Stage::Choose6;
    const NAT: Stage = Stage::Nat6;
    const OPEN: Stage = Stage::Open6;
    const REPLY: Stage = Stage::Reply6;
    const ICMP_STAGE: Stage = Stage::Icmp6;
    const ANSWER: Stage = Stage::Answer6;
}

/// The whole data path. The kernel goes from stage to stage by tail calls instead.
pub fn forward(packet: &mut impl Packet, tables: &impl Tables) -> Outcome {
    let mut outcome = entry(packet, tables);
    // No packet goes round.
    for _ in Stage::ALL {
        match outcome.action() {
            Action::Next(number) => {
                let Some(&(stage, _)) = Stage::ALL.get(number as usize) else { break };
                outcome = run(stage, packet, tables);
            }
            Action::Pass | Action::Drop | Action::Transmit | Action::Redirect(_) => break,
        }
    }
    outcome
}

#[inline(always)]
pub fn run(stage: Stage, packet: &mut impl Packet, tables: &impl Tables) -> Outcome {
    match stage {
        Stage::Any4 | Stage::Any6 => any(packet, tables, stage),
        Stage::Choose4 => choose::<V4>(packet, tables),
        Stage::Choose6 => choose::<V6>(packet, tables),
        Stage::Nat4 => nat::request::<V4>(packet, tables),
        Stage::Nat6 => nat::request::<V6>(packet, tables),
        Stage::Open4 => nat::open::<V4>(packet, tables),
        Stage::Open6 => nat::open::<V6>(packet, tables),
        Stage::Reply4 => nat::reply::<V4>(packet, tables),
        Stage::Reply6 => nat::reply::<V6>(packet, tables),
        Stage::Icmp4 => icmp::stage::<V4>(packet, tables),
        Stage::Icmp6 => icmp::stage::<V6>(packet, tables),
        Stage::Answer4 => answer::stage::<V4>(packet, tables),
        Stage::Answer6 => answer::stage::<V6>(packet, tables),
    }
}

/// The first stage: plain TCP and UDP to plain services.
#[inline(always)]
pub fn entry(packet: &mut impl Packet, tables: &impl Tables) -> Outcome {
    let mut frame = packet.frame();
    let Some(&mut ethernet) = frame.at::<Ethernet>(0) else { return Outcome::pass(Counter::PassTruncated) };
    // Flooded to many: another balancer would forward it a second time.
    let many = ethernet.destination.is_multicast();
    match ethernet.ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERTYPE_VLAN | ETHERTYPE_QINQ if many => {
            Outcome::pass(Counter::PassMulticast)
        }
        ETHERTYPE_IPV4 => fast::<V4>(packet, tables),
        ETHERTYPE_IPV6 => fast::<V6>(packet, tables),
        ETHERTYPE_VLAN | ETHERTYPE_QINQ => Outcome::next(Stage::Any4),
        _ => Outcome::pass(Counter::PassNotIp),
    }
}

#[inline(always)]
fn fast<F: Stages>(packet: &mut impl Packet, tables: &(impl Tables + FamilyTables<F>)) -> Outcome {
    let odd = Outcome::next(F::ANY);
    let Some(parsed) = parse::simple::<F>(&mut packet.frame()) else { return odd };
    let Some(globals) = tables.globals() else { return Outcome::pass(Counter::PassNoService) };
    if is_abandoned(tables, globals) {
        return Outcome::pass(Counter::PassWatchdog);
    }
    let Some(service) = find_service(tables, parsed.service_key()) else {
        let reply = globals.may_be_reply::<F>(parsed.tuple.source, parsed.tuple.destination);
        return match (globals.has_wildcards(), reply) {
            (true, _) => odd,
            (false, true) => hold_reply(tables, parsed),
            (false, false) => Outcome::pass(Counter::PassNoService),
        };
    };
    if !service.is_plain() {
        return odd;
    }
    let flags = match parse::transport(packet, &parsed) {
        Ok(flags) => flags,
        Err(unfit) => return refuse(tables, parsed, service, unfit),
    };
    let parsed = Parsed { flags, ..parsed };
    if service.mode.rewrites() {
        return hold(tables, parsed, service, Task::of(Kind::Request), F::NAT);
    }
    let request = Request::new(globals.hash_key(), &parsed, &service);
    let sent = match decide::known(tables, &request) {
        Ok(Some(server)) => direct::send(packet, tables, &request, Choice::of(server), Path::Fast),
        Ok(None) => Err(Detour::Slow),
        Err(Refusal::NoServer | Refusal::Full | Refusal::Moving) => {
            return no_server(tables, parsed, service);
        }
    };
    sent.unwrap_or_else(|detour| follow(tables, parsed, service, detour))
}

/// Whether the watchdog has given the daemon up: then every packet passes, as if no program were attached.
#[inline(always)]
fn is_abandoned(tables: &impl Tables, globals: &Globals) -> bool {
    globals.has_watchdog() && globals.is_abandoned(tables.now())
}

/// Packets of every other kind, and services with more to them.
#[inline(always)]
fn any(packet: &mut impl Packet, tables: &impl Tables, stage: Stage) -> Outcome {
    let (ethertype, l3) = match parse::link(&mut packet.frame()) {
        Ok(link) => link,
        Err(outcome) => return outcome,
    };
    match (stage, ethertype) {
        (Stage::Any4, ETHERTYPE_IPV4) => sort::<V4>(packet, tables, l3),
        (Stage::Any4, ETHERTYPE_IPV6) => Outcome::next(Stage::Any6),
        (Stage::Any6, ETHERTYPE_IPV6) => sort::<V6>(packet, tables, l3),
        _ => Outcome::pass(Counter::PassNotIp),
    }
}

/// Tells transport, fragments and ICMP apart.
#[inline(always)]
fn sort<F: Stages>(packet: &mut impl Packet, tables: &(impl Tables + FamilyTables<F>), l3: usize) -> Outcome {
    let (parsed, id) = match parse::full::<F>(&mut packet.frame(), l3) {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    if tables.globals().is_some_and(|globals| is_abandoned(tables, globals)) {
        return Outcome::pass(Counter::PassWatchdog);
    }
    if parsed.protocol == F::ICMP && parsed.part == Part::Whole {
        return hold(tables, parsed, NO_SERVICE, Task::of(Kind::Icmp), F::ICMP_STAGE);
    }
    if parsed.protocol != TCP && parsed.protocol != UDP {
        return Outcome::pass(Counter::PassProtocol);
    }
    // Through memory, so that the verifier forgets which headers led here.
    let _ = hold(tables, parsed, NO_SERVICE, Task::of(Kind::Request), F::ANY);
    let Some(Held { parsed, .. }) = held::<F>(tables) else { return Outcome::drop(Counter::DropTables) };
    let parsed = match with_ports(packet, tables, parsed, id) {
        Ok(parsed) => parsed,
        Err(outcome) => return outcome,
    };
    settle(packet, tables, parsed, id)
}

/// The ports of a packet, or of the fragment before it.
#[inline(always)]
fn with_ports<F: Stages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
    mut parsed: Parsed<F>,
    id: u32,
) -> Result<Parsed<F>, Outcome> {
    if parsed.part == Part::Later {
        return fragment::recall(tables, parsed, id);
    }
    let mut frame = packet.frame();
    let ports = frame.at::<Ports>(parsed.l4).ok_or(Outcome::pass(Counter::PassTruncated))?;
    parsed.tuple.source_port = ports.source;
    parsed.tuple.destination_port = ports.destination;
    Ok(parsed)
}

/// Finds whose a packet is, and sends it there.
#[inline(always)]
fn settle<F: Stages>(
    packet: &mut impl Packet,
    tables: &(impl Tables + FamilyTables<F>),
    mut parsed: Parsed<F>,
    id: u32,
) -> Outcome {
    let Some(globals) = tables.globals() else { return Outcome::pass(Counter::PassNoService) };
    let service = match find_service(tables, parsed.service_key()) {
        Some(service) => service,
        None => {
            let Parsed { tuple, protocol, .. } = parsed;
            let may_be_reply = globals.may_be_reply::<F>(tuple.source, tuple.destination);
            if may_be_reply && nat::is_reply(tables, &parsed) {
                fragment::remember(tables, &parsed, id);
                return hold_reply(tables, parsed);
            }
            let found = match globals.has_wildcards() {
                true => find_rule::<F>(tables, tuple.destination, tuple.destination_port, protocol),
                false => None,
            };
            if found.is_none()
                && parsed.part == Part::First
                && fragment::is_vip::<F>(tables, tuple.destination)
            {
                // So that the rest of a datagram for the machine itself is told from a service's.
                fragment::remember(tables, &parsed, id);
            }
            match found {
                Some(service) => service,
                None if may_be_reply => return Outcome::pass(Counter::PassNoFlow),
                None => return Outcome::pass(Counter::PassNoService),
            }
        }
    };
    fragment::remember(tables, &parsed, id);
    if service.access && decide::denied::<F>(tables, service.id, parsed.tuple.source) {
        return Outcome::drop(Counter::DropAccess);
    }
    parsed.flags = match parse::transport(packet, &parsed) {
        Ok(flags) => flags,
        Err(unfit) => return refuse(tables, parsed, service, unfit),
    };
    if parsed.is_syn() {
        clamp::mss(packet, tables, &parsed, service.mss);
    }
    let stage = if service.mode.rewrites() { F::NAT } else { F::CHOOSE };
    hold(tables, parsed, service, Task::of(Kind::Request), stage)
}

/// Packets whose server nothing has decided yet, and those that leave with tags.
#[inline(always)]
fn choose<F: Stages>(packet: &mut impl Packet, tables: &(impl Tables + FamilyTables<F>)) -> Outcome {
    const FAULT: Outcome = Outcome::drop(Counter::DropTables);
    let Some(Held { parsed, service, .. }) = held::<F>(tables) else { return FAULT };
    let Some(globals) = tables.globals() else { return FAULT };
    let request = Request::new(globals.hash_key(), &parsed, &service);
    let choice = match decide::choose(tables, &request) {
        Ok(choice) => choice,
        Err(Refusal::NoServer) if service.reset => {
            return pass_on::<F>(tables, Task::of(Kind::NoServer), F::ANSWER);
        }
        Err(Refusal::NoServer) => return Outcome::drop(Counter::DropNoServer),
        Err(Refusal::Full) => return Outcome::drop(Counter::DropFlowsFull),
        Err(Refusal::Moving) => return Outcome::drop(Counter::DropNoFlow),
    };
    if service.mode.rewrites() {
        let task = Task { kind: Kind::Open, value: choice.server.0 };
        return pass_on::<F>(tables, task, F::OPEN);
    }
    match direct::send(packet, tables, &request, choice, Path::Any) {
        Ok(outcome) | Err(Detour::Out(outcome)) => outcome,
        Err(Detour::Answer(task)) => pass_on::<F>(tables, task, F::ANSWER),
        Err(Detour::Slow) => FAULT,
    }
}

#[inline(always)]
fn follow<F: Stages>(
    tables: &impl FamilyTables<F>,
    parsed: Parsed<F>,
    service: Service,
    detour: Detour,
) -> Outcome {
    match detour {
        Detour::Out(outcome) => outcome,
        Detour::Answer(task) => hold(tables, parsed, service, task, F::ANSWER),
        Detour::Slow => hold(tables, parsed, service, Task::of(Kind::Request), F::CHOOSE),
    }
}

#[inline(always)]
fn no_server<F: Stages>(tables: &impl FamilyTables<F>, parsed: Parsed<F>, service: Service) -> Outcome {
    if service.reset {
        hold(tables, parsed, service, Task::of(Kind::NoServer), F::ANSWER)
    } else {
        Outcome::drop(Counter::DropNoServer)
    }
}

#[inline(always)]
fn refuse<F: Stages>(
    tables: &impl FamilyTables<F>,
    parsed: Parsed<F>,
    service: Service,
    unfit: Unfit,
) -> Outcome {
    match unfit {
        Unfit::Malformed => Outcome::drop(Counter::DropMalformed),
        Unfit::Expired => hold(tables, parsed, service, Task::of(Kind::Expired), F::ANSWER),
    }
}

#[inline(always)]
fn hold_reply<F: Stages>(tables: &impl FamilyTables<F>, parsed: Parsed<F>) -> Outcome {
    hold(tables, parsed, NO_SERVICE, Task::of(Kind::Reply), F::REPLY)
}

/// What the stage before left.
#[inline(always)]
pub(crate) fn held<F: Family>(tables: &impl FamilyTables<F>) -> Option<Held<F>> {
    let held = tables.held()?;
    Some(Held { parsed: held.parsed.confined(), ..held })
}

/// Leaves the rest of a held packet to another stage.
#[inline(always)]
pub(crate) fn pass_on<F: Family>(tables: &impl FamilyTables<F>, task: Task, stage: Stage) -> Outcome {
    tables.assign(task);
    Outcome::next(stage)
}

/// Leaves the rest to another stage.
#[inline(always)]
pub(crate) fn hold<F: Family>(
    tables: &impl FamilyTables<F>,
    parsed: Parsed<F>,
    service: Service,
    task: Task,
    stage: Stage,
) -> Outcome {
    tables.hold(&Held { parsed, service, task });
    Outcome::next(stage)
}

/// Where none is known yet.
const NO_SERVICE: Service = Service {
    id: 0,
    ring_base: 0,
    ring_mask: 0,
    mode: Mode::Dsr,
    scheduler: Scheduler::Ring,
    by_client: false,
    access: false,
    reset: false,
    mss: 0,
    idle_ticks: 0,
    client_ticks: 0,
};

//! Sweeps the void records out of the flow table, and surveys those that stay.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{
    flow::{FIN, FlowKey, NAT_REPLY, NAT_REQUEST, NatFlow, OPENING, Owner, RST, Ticks},
    flow_table::{self, FlowMemory, WAYS},
    net::{Family, TCP, V4, V6},
    slot::ServerId,
};
use nix::time::{ClockId, clock_gettime};

use super::carry::carry_out;
use crate::pure::{
    flows::{Verdict, alone, pair},
    replica::{Carried, Outlet, digest},
    settle::{Finding, Survey, judge},
    state::State,
    suspect::{Sign, Signs, sign},
};

/// Buckets looked at in one pass, so that it takes no more than 2 ms.
const PASS_BUCKETS: u32 = 1_024;

/// Which records a round collects for other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Telling {
    #[default]
    Nothing,
    /// What they have not heard of yet, or not for a while.
    News,
    Everything,
}

/// A record for other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub record: Carried,
    /// Also for those who have heard everything once.
    pub is_news: bool,
}

/// Goes round the flow tables, a bounded piece at a time.
#[derive(Default)]
pub struct Sweep {
    /// What the next round is to collect.
    pub telling: Telling,
    v4: Progress,
    v6: Progress,
    /// Of the round under way; None: the next pass begins one.
    found: Option<Round>,
}

/// How far a round over one table is.
#[derive(Default)]
struct Progress {
    /// The next bucket.
    next: u32,
    done: bool,
    /// Records that stay.
    records: u64,
    /// Ways with a tag and no record: being written, or lost by a writer that was killed.
    unwritten: BTreeSet<u32>,
    unwritten_before: BTreeSet<u32>,
    outlet: Outlet,
}

/// What a round over both tables found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// Records that stay.
    pub records: u64,
    /// The flows of each server they name.
    pub named: BTreeMap<ServerId, u64>,
    /// Connections of each server that nobody has ended yet.
    pub open: BTreeMap<ServerId, Open>,
    /// What the opening of connections says of the servers whose replies pass here.
    pub signs: Signs,
    pub survey: Survey,
    telling: Telling,
    /// Collected since it was last asked for.
    pub told: Vec<Told>,
}

/// By the kind of their records: the servers of a service have pairs, or records that stand alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    pub pairs: u64,
    pub alone: u64,
}

impl Sweep {
    /// One pass: deletes what is void or stale among the next records. Returns the round's result at its end.
    pub fn pass(
        &mut self,
        memory: &(impl FlowMemory<V4> + FlowMemory<V6>),
        now: Ticks,
        state: &State,
    ) -> Option<Round> {
        let telling = self.telling;
        let found = self.found.get_or_insert_with(|| Round::beginning(now, telling));
        let visit = Visit { now, state };
        if !self.v4.done {
            self.v4.pass::<V4>(memory, visit, found);
        } else if !self.v6.done {
            self.v6.pass::<V6>(memory, visit, found);
        }
        if !(self.v4.done && self.v6.done) {
            return None;
        }
        found.survey.fullest = self.v4.records.max(self.v6.records);
        self.v4.begin();
        self.v6.begin();
        self.found.take()
    }

    /// Whether the next pass begins a round.
    pub fn is_between_rounds(&self) -> bool {
        self.found.is_none()
    }

    /// What the round under way has collected since it was last asked.
    pub fn take_told(&mut self) -> Vec<Told> {
        self.found.as_mut().map(|found| std::mem::take(&mut found.told)).unwrap_or_default()
    }
}

/// What records are judged by.
#[derive(Clone, Copy)]
struct Visit<'a> {
    now: Ticks,
    state: &'a State,
}

impl Progress {
    fn pass<F: Family>(&mut self, memory: &impl FlowMemory<F>, visit: Visit<'_>, found: &mut Round) {
        let end = self.next.saturating_add(PASS_BUCKETS).min(memory.flow_buckets());
        for bucket in self.next..end {
            self.bucket(memory, visit, bucket, found);
        }
        self.next = end;
        self.done = end == memory.flow_buckets();
    }

    fn bucket<F: Family>(
        &mut self,
        memory: &impl FlowMemory<F>,
        visit: Visit<'_>,
        bucket: u32,
        found: &mut Round,
    ) {
        let Some(tags) = memory.flow_tags(bucket).filter(|tags| !tags.is_empty()) else { return };
        for index in (0..WAYS).filter(|&way| tags.is_used(way)).map(|way| bucket * WAYS + way) {
            let Some(flow) = memory.flow_record(index) else { return };
            let Some(key) = flow.key() else {
                if self.unwritten_before.contains(&index) {
                    flow_table::free(memory, index);
                } else {
                    self.unwritten.insert(index);
                }
                continue;
            };
            let owner = flow.owner();
            if verdict(memory, visit, &key, index, &owner) == Verdict::Remove {
                // A packet may have revived it, or another flow taken its place, meanwhile.
                if flow.owner() == owner {
                    flow_table::release(memory, index, &key);
                }
            } else if survey(memory, visit, &key, index, &owner, &mut found.survey) == Finding::Stale {
                flow_table::release(memory, index, &key);
            } else {
                self.records += 1;
                found.add(&owner);
                if found.telling != Telling::Nothing {
                    found.told.extend(self.told(memory, visit, &key, index, &owner, found.telling));
                }
                if let Some(sign) = opening(memory, visit.now, &key, index, &owner) {
                    found.signs.add(ServerId(owner.server), sign);
                }
            }
        }
    }

    /// What other nodes should know of a record. One that is being opened is not worth telling yet.
    fn told<F: Family>(
        &mut self,
        memory: &impl FlowMemory<F>,
        Visit { now, state }: Visit<'_>,
        key: &FlowKey<F>,
        index: u32,
        owner: &Owner,
        telling: Telling,
    ) -> Option<Told> {
        let id = ServerId(owner.server);
        if owner.state & (NAT_REPLY | OPENING) != 0 || !state.is_told(id, key, now) {
            return None;
        }
        let idle = state.idle_ticks(id, key.protocol(), key.is_of_client())?;
        let is_news = self.outlet.is_news(index, digest(key, owner), owner.seen, idle);
        let wanted = is_news || telling == Telling::Everything;
        let record = wanted.then(|| carry_out(memory, key, index, owner, now))??;
        Some(Told { record, is_news })
    }

    fn begin(&mut self) {
        let (unwritten, outlet) = (std::mem::take(&mut self.unwritten), std::mem::take(&mut self.outlet));
        *self = Progress { unwritten_before: unwritten, outlet, ..Progress::default() };
    }
}

impl Round {
    fn beginning(now: Ticks, telling: Telling) -> Self {
        Round { survey: Survey::beginning(now), telling, ..Round::default() }
    }

    fn add(&mut self, owner: &Owner) {
        self.records += 1;
        // A pair is one flow; also a half alone names its server.
        let flows = u64::from(owner.state & NAT_REPLY == 0);
        *self.named.entry(ServerId(owner.server)).or_default() += flows;
        let open = self.open.entry(ServerId(owner.server)).or_default();
        match owner.state {
            state if state & (NAT_REPLY | FIN | RST) != 0 => {}
            state if state & NAT_REQUEST != 0 => open.pairs += 1,
            _ => open.alone += 1,
        }
    }
}

fn verdict<F: Family>(
    memory: &impl FlowMemory<F>,
    Visit { now, state }: Visit<'_>,
    key: &FlowKey<F>,
    index: u32,
    owner: &Owner,
) -> Verdict {
    let idle = state.idle_ticks(ServerId(owner.server), key.protocol(), key.is_of_client());
    match alone(now, owner, idle) {
        Verdict::SeeTwin => {
            pair(now, owner, twin(memory, key, index).map(|twin| twin.flow.owner()).as_ref(), idle)
        }
        verdict => verdict,
    }
}

/// What a pair says of its server. An answered one is told by its reply half, so that only those that open need both.
fn opening<F: Family>(
    memory: &impl FlowMemory<F>,
    now: Ticks,
    key: &FlowKey<F>,
    index: u32,
    owner: &Owner,
) -> Option<Sign> {
    match owner.state {
        state if key.protocol() != TCP || state & (NAT_REQUEST | NAT_REPLY) == 0 => None,
        state if state & OPENING == 0 => (state & NAT_REPLY != 0).then_some(Sign::Answered(owner.seen)),
        state if state & NAT_REQUEST != 0 => sign(now, owner, &twin(memory, key, index)?.flow.owner()),
        _ => None,
    }
}

/// What a record that stays is to its slot. The server's half of a pair says no more than the client's.
fn survey<F: Family>(
    memory: &impl FlowMemory<F>,
    Visit { now, state }: Visit<'_>,
    key: &FlowKey<F>,
    index: u32,
    owner: &Owner,
    survey: &mut Survey,
) -> Finding {
    if owner.state & NAT_REPLY != 0 {
        return Finding::Own;
    }
    let Some(site) = state.site(ServerId(owner.server), key, now) else { return Finding::Own };
    let finding = judge(&site, owner);
    if let Finding::Other { confirm } = finding {
        survey.note(&site);
        if confirm {
            let is_pair = owner.state & NAT_REQUEST != 0;
            let twin = is_pair.then(|| twin(memory, key, index)).flatten().map(|twin| twin.flow);
            for half in [memory.flow_record(index), twin].into_iter().flatten() {
                half.confirm();
            }
        }
    }
    finding
}

/// The other half of a pair.
fn twin<'a, F: Family>(
    memory: &'a impl FlowMemory<F>,
    key: &FlowKey<F>,
    index: u32,
) -> Option<NatFlow<'a, F>> {
    let half = flow_table::nat(memory, index)?;
    let twin = flow_table::nat(memory, flow_table::find(memory, &key.twin(half.rewrite()))?)?;
    // Another flow may have taken the place of a half that was removed.
    twin.rewrites_to(key.tuple().reversed()).then_some(twin)
}

/// The clock that stamps records: the kernel reads the same one.
pub fn now() -> Ticks {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs());
    Ticks::from_ns(time)
}

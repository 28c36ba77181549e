//! The programs that take checks through the data path: at the kernel's traffic hooks (tcx) of the interfaces that checks
//! leave and answers arrive through, for as long as their owner lives. Nothing is pinned: a link ends with its descriptor,
//! also when the process is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, MapError, PerCpuArray},
    programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions},
};
use lb_common::{
    slot::ServerId,
    through::{
        Target,
        counter::{COUNTS, Counter},
    },
};
use nix::net::if_::if_indextoname;

use super::{
    errno,
    load::{LoadError, absent, chain, explain},
    take,
};
use crate::pure::{state::Steering, status};

pub struct Through {
    /// Keeps the programs loaded.
    object: Ebpf,
    targets: HashMap<MapData, u32, Target>,
    counts: PerCpuArray<MapData, [u64; COUNTS]>,
    /// What stands in `targets`.
    standing: BTreeMap<ServerId, Target>,
    /// By interface, one for each direction.
    links: BTreeMap<u32, [FdLink; 2]>,
}

#[derive(Debug, thiserror::Error)]
pub enum ThroughError {
    #[error(
        "this kernel has no tcx hooks, which checks through the data path need: \
         run Linux 6.6 or newer, or set `through = \"direct\"` in [service.check]"
    )]
    OldKernel,
    #[error(
        "checks cannot go through the data path on interface {name}: {cause}; or set `through = \"direct\"`"
    )]
    Attach { name: String, cause: String },
    #[error("checks cannot go through the data path: the table of their targets: {0}")]
    Targets(#[from] MapError),
    #[error("checks cannot go through the data path: {0}")]
    Load(#[from] LoadError),
}

impl Through {
    /// Loads the programs over the pinned `servers`; attaches them nowhere. `maps`: where those are pinned.
    pub(super) fn load(maps: &Path) -> Result<Self, ThroughError> {
        let servers = maps.join("servers");
        // The loader would make a new one, and pin it.
        if !servers.exists() {
            return Err(LoadError::Unpinned(servers).into());
        }
        let mut loader = EbpfLoader::new();
        loader.map_pin_path("servers", servers);
        let mut object = loader.load(OBJECT).map_err(|error| explain(&error))?;
        for (_, name) in HOOKS {
            program_mut(&mut object, name)?.load().map_err(|error| explain(&error))?;
        }
        // Taken only now: a descriptor closed before a program was loaded would be bound under its number.
        let targets = HashMap::try_from(take(&mut object, "targets")?)?;
        let counts = PerCpuArray::try_from(take(&mut object, "counters")?)?;
        Ok(Through { object, targets, counts, standing: BTreeMap::new(), links: BTreeMap::new() })
    }

    /// Makes it so: the targets, and the programs on these interfaces and no others.
    pub fn steer(&mut self, wanted: &Steering) -> Result<(), ThroughError> {
        self.set_targets(&wanted.targets)?;
        self.links.retain(|index, _| wanted.interfaces.contains(index));
        wanted.interfaces.iter().try_for_each(|&index| self.attach(index))
    }

    /// Attachments that somebody took away; the next `steer` makes them again.
    pub fn forget_lost(&mut self) {
        let Ok(programs) = self.programs() else { return };
        let ids = programs.map(|program| program.info().map(|info| info.id()).ok());
        self.links.retain(|&index, _| {
            let hooks = HOOKS.iter().zip(ids);
            hooks.into_iter().all(|(&(hook, _), id)| id.is_none_or(|id| stands(index, hook, id)))
        });
    }

    fn set_targets(&mut self, wanted: &BTreeMap<ServerId, Target>) -> Result<(), ThroughError> {
        let gone: BTreeSet<_> = self.standing.keys().filter(|id| !wanted.contains_key(id)).copied().collect();
        for id in gone {
            // Gone already is as good.
            let _ = self.targets.remove(&id.0);
            self.standing.remove(&id);
        }
        for (&id, &target) in wanted {
            if self.standing.get(&id) != Some(&target) {
                self.targets.insert(id.0, target, 0)?;
                self.standing.insert(id, target);
            }
        }
        Ok(())
    }

    fn attach(&mut self, index: u32) -> Result<(), ThroughError> {
        if self.links.contains_key(&index) {
            return Ok(());
        }
        // An interface that is gone carries no packets; what comes in its place has another index.
        let Ok(name) = if_indextoname(index) else { return Ok(()) };
        let name = name.to_string_lossy();
        let [outward, inward] = HOOKS.map(|(hook, program)| self.link(&name, hook, program));
        self.links.insert(index, [outward?, inward?]);
        Ok(())
    }

    fn link(&mut self, name: &str, hook: TcAttachType, program: &str) -> Result<FdLink, ThroughError> {
        let refused = |cause: String| ThroughError::Attach { name: name.to_owned(), cause };
        // Others see a check's packets as the kernel does: before they are changed, and after they are changed back.
        let order = match hook {
            TcAttachType::Ingress => LinkOrder::first(),
            TcAttachType::Egress | TcAttachType::Custom(_) => LinkOrder::last(),
        };
        let program = program_mut(&mut self.object, program)?;
        let made = program.attach_with_options(name, hook, TcAttachOptions::TcxOrder(order));
        let id = made.map_err(|error| match errno(&error) {
            Some(libc::EINVAL) => ThroughError::OldKernel,
            Some(code) => refused(std::io::Error::from_raw_os_error(code).to_string()),
            None => refused(chain(&error)),
        })?;
        let link = program.take_link(id).map_err(|error| refused(chain(&error)))?;
        FdLink::try_from(link).map_err(|_| ThroughError::OldKernel)
    }

    /// Every counter by name, summed over the CPUs.
    pub fn counters(&self) -> Result<status::Counters, MapError> {
        let per_cpu = self.counts.get(&0, 0)?;
        let sum = |counter: Counter| per_cpu.iter().map(|counts| counts[counter as usize]).sum();
        Ok(Counter::ALL.iter().map(|&counter| (counter.name().to_owned(), sum(counter))).collect())
    }

    /// The loaded programs, for test runs: of what leaves, and of what arrives.
    pub fn programs(&self) -> Result<[&SchedClassifier; 2], LoadError> {
        let program = |name: &str| {
            let program = self.object.program(name).ok_or_else(|| absent(name))?;
            program.try_into().map_err(|error: ProgramError| explain(&error))
        };
        let [(_, outward), (_, inward)] = HOOKS;
        Ok([program(outward)?, program(inward)?])
    }
}

/// As far as it can be told: an interface that is gone asks for nothing.
fn stands(index: u32, hook: TcAttachType, program: u32) -> bool {
    let Ok(name) = if_indextoname(index) else { return true };
    let found = SchedClassifier::query_tcx(&name.to_string_lossy(), hook);
    found.map_or(true, |(_, programs)| programs.iter().any(|info| info.id() == program))
}

fn program_mut<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, LoadError> {
    let program = object.program_mut(name).ok_or_else(|| absent(name))?;
    program.try_into().map_err(|error: ProgramError| explain(&error))
}

const HOOKS: [(TcAttachType, &str); 2] =
    [(TcAttachType::Egress, "steelyard_out"), (TcAttachType::Ingress, "steelyard_in")];

/// The object `build.rs` made. Aligned: the loader reads its headers in place.
static OBJECT: &[u8] = {
    #[repr(C, align(16))]
    struct Aligned<T: ?Sized>(T);
    static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("STEELYARD_THROUGH")));
    &ALIGNED.0
};
